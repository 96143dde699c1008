"""What is read of ONNX files of other exporters, each made by hand."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from obert.deployment.onnx_contents import VOCABULARY, read_contents
from obert.foundation.errors import UserError

WEIGHT = np.array([[0, 3, 7], [7, 0, 7]])  # two of six are 0, three are 7


def file(tmp_path, nodes, constants, inputs=(("input_ids", TensorProto.INT64, ["batch", "tokens"]),)):
    declared = [helper.make_tensor_value_info(*one) for one in inputs]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", declared, [helper.make_empty_tensor_value_info("y")], stored)
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def node(kind, inputs, outputs):
    return helper.make_node(kind, inputs.split(), outputs.split())


def counted(path):
    found = read_contents(path)
    return found.weights, found.zeros, found.in_8_bits


@pytest.mark.parametrize(
    ("nodes", "constants", "zeros", "in_8_bits"),
    [
        ([node("MatMul", "x w", "y")], {"w": np.float32(WEIGHT)}, 2, 0),
        ([node("Gemm", "x w b", "y")], {"w": np.float16(WEIGHT), "b": np.zeros(3, np.float16)}, 2, 0),
        ([node("Transpose", "w", "t"), node("MatMul", "x t", "y")], {"w": np.float32(WEIGHT)}, 2, 0),
        ([node("MatMulInteger", "x w", "y")], {"w": np.int8(WEIGHT)}, 2, 6),
        ([node("MatMulInteger", "x w z zw", "y")], {"w": np.uint8(WEIGHT), "z": np.uint8(0), "zw": np.uint8(7)}, 3, 6),
        (
            [node("DequantizeLinear", "w s z", "f"), node("MatMul", "x f", "y")],
            {"w": np.uint8(WEIGHT), "s": np.float32(1), "z": np.uint8(7)},
            3,
            6,
        ),
        (  # a zero point for each row: of the first 7, of the second 0
            [node("DequantizeLinear", "w s z", "f"), node("MatMul", "x f", "y")],
            {"w": np.int8(WEIGHT), "s": np.float32([1, 1]), "z": np.int8([7, 0])},
            2,
            6,
        ),
        ([node("MatMul", "x w", "a"), node("MatMul", "a w", "y")], {"w": np.float32(WEIGHT)}, 2, 0),
    ],
)
def test_weights_are_counted_whatever_form_they_are_stored_in(tmp_path, nodes, constants, zeros, in_8_bits):
    assert counted(file(tmp_path, nodes, constants)) == (6, zeros, in_8_bits)


def test_products_of_computed_tensors_and_look_ups_are_no_linear_layers(tmp_path):
    nodes = [node("Gather", "table input_ids", "x"), node("MatMul", "x x", "y")]
    path = file(tmp_path, nodes, {"table": np.ones((11, 4), np.float32)})
    assert counted(path) == (0, 0, 0)
    found = read_contents(path)
    assert (found.vocabulary, found.sparsity, found.share_in_8_bits) == (11, 0, 0)
    assert found.megabytes == path.stat().st_size / 1e6


def test_the_vocabulary_is_that_of_the_tokens_table(tmp_path):
    nodes = [
        node("Gather", "types token_type_ids", "a"),
        node("DequantizeLinear", "words s", "floats"),
        node("Cast", "input_ids", "ids"),
        node("Gather", "floats ids", "b"),
        node("Add", "a b", "y"),
    ]
    nodes[2].attribute.append(helper.make_attribute("to", TensorProto.INT32))
    tables = {"types": np.ones((2, 4), np.float32), "words": np.ones((37, 4), np.int8), "s": np.float32(1)}
    inputs = [(name, TensorProto.INT64, [3, None]) for name in ("input_ids", "token_type_ids")]
    found = read_contents(file(tmp_path, nodes, tables, inputs))
    assert found.vocabulary == 37
    assert found.inputs == {"input_ids": (3, None), "token_type_ids": (3, None)}
    assert read_contents(file(tmp_path, [node("Identity", "input_ids", "y")], {})).vocabulary == VOCABULARY


def test_weights_beside_the_file_count(tmp_path):
    path = file(tmp_path, [node("MatMul", "x w", "y")], {"w": np.zeros((64, 64), np.float32)})
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert counted(path) == (4096, 4096, 0)
    assert read_contents(path).megabytes == sum(one.stat().st_size for one in tmp_path.iterdir()) / 1e6
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(UserError, match="not a readable ONNX model"):
        read_contents(path)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ([("pixel_values", TensorProto.FLOAT, [1, 3, 8, 8])], "an input 'pixel_values' of type float with 4 axes"),
        ([("input_ids", TensorProto.INT32, [1, 8])], "an input 'input_ids' of type int32 with 2 axes"),
        ([("attention_mask", TensorProto.INT64, [1, 8])], "takes no input_ids"),
    ],
)
def test_other_inputs_are_refused(tmp_path, inputs, expected):
    path = file(tmp_path, [node("Identity", inputs[0][0], "y")], {}, inputs)
    with pytest.raises(UserError, match=expected):
        read_contents(path)
