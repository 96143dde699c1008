"""The reader of ONNX files against the onnx package, and against files that are cut, changed, foreign or hostile."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from obert.foundation.errors import UserError
from obert.sparse.reading import read
from obert.sparse.reading.onnx_file import load

TYPES = (
    np.float32, np.uint8, np.int8, np.uint16, np.int16, np.int32, np.int64, np.bool_, np.float16, np.float64, np.uint32,
    np.uint64,
)  # fmt: skip


def tiny():
    """A model of few bytes with a field of each kind that is read."""
    attributes = {"axis": -1, "epsilon": 0.5, "mode": "constant", "perm": [1, 0], "scales": [0.5, 2.0]}
    node = helper.make_node("Add", ["x", "w", ""], ["y"], name="sum", **attributes)
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array([3, -4])))
    weight = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("x", "y")]
    graph = helper.make_graph([constant, node], "g", values[:1], values[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("other", 3)])


def written(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def refused(path: Path, *words: str) -> None:
    with pytest.raises(UserError) as error:
        load(path)
    message = str(error.value)
    assert str(path) in message and "\n" not in message
    assert all(word in message for word in words), message


def test_a_file_is_read_as_the_onnx_package_reads_it(tmp_path, exported):
    for path in (written(tmp_path / "tiny.onnx", tiny()), *exported("bert", "question_answering")):
        file, model = load(path), onnx.load(path)
        graph = model.graph
        assert file.inputs == tuple(value.name for value in graph.input)
        assert file.outputs == tuple(value.name for value in graph.output)
        assert file.opset == 18
        assert file.size == path.stat().st_size
        assert list(file.constants) == [tensor.name for tensor in graph.initializer]
        for tensor in graph.initializer:
            same(file.constants[tensor.name], numpy_helper.to_array(tensor))
        for node, expected in zip(file.nodes, graph.node, strict=True):
            assert (node.kind, node.name) == (expected.op_type, expected.name)
            assert (node.inputs, node.outputs) == (tuple(expected.input), tuple(expected.output))
            assert list(node.attributes) == [attribute.name for attribute in expected.attribute]
            for attribute in expected.attribute:
                found, value = node.attributes[attribute.name], helper.get_attribute_value(attribute)
                if isinstance(value, TensorProto):
                    same(found, numpy_helper.to_array(value))
                else:
                    assert found == (value.decode() if isinstance(value, bytes) else value) or found == tuple(value)


def same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("raw", [True, False])
def test_tensors_of_every_type(tmp_path, kind, raw):
    random = np.random.default_rng(0)
    info = np.iinfo(kind) if np.dtype(kind).kind in "iu" else None
    values = np.array([info.min, info.max, 0, 1, 2, 3], kind) if info else random.normal(size=6).astype(kind)
    values = values.reshape(2, 3)
    tensor = numpy_helper.from_array(values, "w")
    if not raw:
        tensor = helper.make_tensor("w", tensor.data_type, (2, 3), values.ravel().tolist())
        assert not tensor.raw_data
    model = tiny()
    model.graph.initializer[0].CopyFrom(tensor)
    same(load(written(tmp_path / "m.onnx", model)).constants["w"], values)


def test_weights_are_mapped_from_the_file(tmp_path):
    model = tiny()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((100, 3), np.float32), "w"))
    weight = load(written(tmp_path / "m.onnx", model)).constants["w"]
    assert not weight.flags.owndata and not weight.flags.writeable


@pytest.mark.parametrize(
    "content, words",
    [(b"", ["empty"]), (b"PK\x03\x04 a zip file", []), (b"<html>not found</html>", []), (b"\x00" * 64, [])],
)
def test_foreign_files(tmp_path, content, words):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    refused(path, "ONNX model", *words)


def test_what_is_no_file(tmp_path):
    refused(tmp_path)
    refused(tmp_path / "missing.onnx")


def field(number: int, content: bytes) -> bytes:
    """A field of bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    coded = []
    while value > 127:
        coded.append(value & 127 | 128)
        value >>= 7
    return bytes([*coded, value])


def hostile(tensor: bytes) -> bytes:
    """A model whose only initializer has these fields."""
    return field(7, field(5, tensor)) + field(8, b"\x10\x12")


@pytest.mark.parametrize(
    "content, words",
    [
        (varint(7 << 3 | 2) + varint(1 << 62) + b"x", ["too early"]),
        (b"\x3a" + b"\xff" * 10 + b"\x01", ["64 bits"]),
        (b"\x3a" + b"\xff" * 9, ["too early"]),
        (b"\x3b\x3c", ["wire type"]),
        (hostile(varint(1 << 3) + varint(1 << 40) + b"\x10\x01"), ["has not the bytes"]),
        (hostile(b"\x08\x00" + varint(1 << 3) + varint((1 << 63) - 1) + b"\x10\x01"), ["shape"]),
        (hostile(varint(1 << 3) + varint((1 << 64) - 1) + b"\x10\x01"), ["shape"]),
        (hostile(b"\x08\x01" * 9 + b"\x10\x01" + field(9, b"abcd")), ["shape"]),
        (hostile(b"\x08\x01\x10\x01" + field(9, b"abc")), ["has not the bytes"]),
        (hostile(b"\x08\x01\x10\x01" + field(4, b"abc")), ["whole numbers"]),
        (hostile(b"\x08\x01\x10\x07" + field(7, b"\x80")), ["too early"]),
        (hostile(b"\x08\x01\x10\x63"), ["data type 99"]),
        (hostile(b"\x08\x01\x10\x01\x70\x01" + field(8, b"w") + field(13, b"")), ["'w'", "another file"]),
        (hostile(field(8, b"\xff\xfe")), ["no text"]),
        (field(8, b"\x10\x12"), ["no graph"]),
        (field(7, b""), ["opset"]),
        (field(7, b"") * 2 + field(8, b"\x10\x12"), ["several graphs"]),
    ],
)
def test_hostile_files(tmp_path, content, words):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    refused(path, *words)


def test_deep_nesting_costs_nothing(tmp_path):
    """A graph within an attribute of a node within a graph, and so on, longer than Python's stack."""
    graph = b""
    for _ in range(5000):
        graph = field(1, field(5, field(6, graph)))
    path = tmp_path / "m.onnx"
    path.write_bytes(field(7, graph) + field(8, b"\x10\x12"))
    assert load(path).nodes[0].attributes == {}


def test_truncated_anywhere(tmp_path):
    """A file that ends early is refused, unless what is missing is whole fields that come last."""
    whole, path = tiny().SerializeToString(), tmp_path / "m.onnx"
    loaded = 0
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        try:
            load(path)
            loaded += 1
        except UserError as error:
            assert str(path) in str(error)
    assert loaded <= 2


def test_every_bit_flipped(tmp_path):
    """Each is read, or refused in one line: no other exception, and nothing large."""
    whole, path = tiny().SerializeToString(), tmp_path / "m.onnx"
    refusals = 0
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            file = load(path)
            assert sum(array.nbytes for array in file.constants.values()) <= len(whole)
        except UserError as error:
            refusals += 1
            assert str(path) in str(error)
    assert refusals > len(whole)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_an_export_with_changed_bytes_is_read_or_refused(exported, tmp_path_factory, data):
    """Bytes of names, shapes, operators and weights alike; the whole reading, not the file alone."""
    source, _ = exported("bert", "question_answering")
    content = bytearray(source.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("changed") / "m.onnx"
    path.write_bytes(content)
    try:
        read(path)
    except UserError as error:
        assert str(path) in str(error)
