"""Pairs of QuantizeLinear and DequantizeLinear against products worked out by hand; what the library says of itself."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from obert.engines import ModelFiles, openvino
from obert.engines._quantized_pairs import to_pairs
from obert.engines.openvino import OpenVino

X = np.float32([[1.0, -0.5]])  # in steps of 0.5: 2 and -1
Y = np.float32([[0.25, 1.0], [-0.75, 0.5]])  # in steps of 0.25: 1, 4, -3, 2
CONSTANTS = {
    "x_scale": np.float32(0.5), "x_zero": np.uint8(3), "y_scale": np.float32(0.25), "y_zero": np.uint8(9),
    "w": np.int8([[1, -2], [3, 4]]), "w_zero": np.int8(0), "bias": np.int32([5, -6]),
    "xw_scale": np.float32(0.05), "xy_scale": np.float32(0.125),
}  # fmt: skip
LINEAR = [
    helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["xq"]),
    helper.make_node("MatMulInteger", ["xq", "w", "x_zero", "w_zero"], ["xw"], "product"),
    helper.make_node("Add", ["bias", "xw"], ["sum"]),
    helper.make_node("Cast", ["sum"], ["sum_float"], to=TensorProto.FLOAT),
    helper.make_node("Mul", ["sum_float", "xw_scale"], ["out"]),
]
OF_TWO = [
    LINEAR[0],
    helper.make_node("QuantizeLinear", ["y", "y_scale", "y_zero"], ["yq"]),
    helper.make_node("MatMulInteger", ["xq", "yq", "x_zero", "y_zero"], ["xy"], "product"),
    helper.make_node("Cast", ["xy"], ["xy_float"], to=TensorProto.FLOAT),
    helper.make_node("Mul", ["xy_float", "xy_scale"], ["out"]),
]


@pytest.fixture(autouse=True)
def with_vnni(monkeypatch):
    """On any processor: the integers here are too small to saturate."""
    monkeypatch.setattr(openvino, "_saturates", lambda: False)


def graph_of(nodes, outputs=("out",), **constants):
    """A model of these nodes over x [rows, 2] and y [2, 2], as far as they read them."""
    sizes = {"x": ["rows", 2], "y": [2, 2]}
    read = [name for name in sizes if any(name in node.input for node in nodes)]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes[name]) for name in read]
    kinds = {"xw": TensorProto.INT32}
    results = [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), ["rows", 2]) for n in outputs]
    weights = [numpy_helper.from_array(np.asarray(v), n) for n, v in (CONSTANTS | constants).items()]
    graph = helper.make_graph(nodes, "made_up", inputs, results, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def another(nodes, **names):
    """The same operators once more, with other tensors where `names` says so."""
    copies = []
    for node in nodes:
        tensors = [[names.get(name, name) for name in part] for part in (node.input, node.output)]
        copies.append(helper.make_node(node.op_type, *tensors, f"second_{node.name}"))
        copies[-1].attribute.extend(node.attribute)
    return copies


def kinds_of(model):
    return [node.op_type for node in model.graph.node]


def inputs_of(model):
    return {value.name: {"x": X, "y": Y}[value.name] for value in model.graph.input}


def results_of(model):
    onnx.checker.check_model(model)
    return ReferenceEvaluator(model).run(None, inputs_of(model))


def engine_of(model, tmp_path):
    onnx.save(model, tmp_path / "model.onnx")
    return OpenVino(ModelFiles(tmp_path / "model.onnx", tmp_path, None), 1)


# (2, -1) times the integers of w is (-1, -8), with the bias (4, -14), in steps of 0.05;
# times those of y it is (5, 6), in steps of 0.125.
@pytest.mark.parametrize(("nodes", "expected"), [(LINEAR, [[0.2, -0.7]]), (OF_TWO, [[0.625, 0.75]])])
def test_a_product_between_pairs_is_the_integer_product(nodes, expected, tmp_path):
    model = graph_of(nodes)
    np.testing.assert_allclose(results_of(model)[0], expected, rtol=1e-6)
    engine = engine_of(model, tmp_path)
    np.testing.assert_allclose(engine.run(inputs_of(model))[0], expected, rtol=1e-6)
    assert engine.unsupported() is None
    assert list(to_pairs(model.graph).values()) == ["out"]
    np.testing.assert_allclose(results_of(model)[0], expected, rtol=1e-6)
    assert "MatMulInteger" not in kinds_of(model)
    assert kinds_of(model).count("DequantizeLinear") == 2


@pytest.mark.parametrize(("weight", "scale", "expected"), [("w2", 0.05, [0.3, 0.1]), ("w", 0.1, [0.4, -1.4])])
def test_what_two_products_read_is_dequantized_once_for_each_scale(weight, scale, expected):
    names = {"xw": "xw2", "sum": "sum2", "sum_float": "sum_float2", "xw_scale": "scale2", "out": "out2"}
    second = another(LINEAR[1:], w=weight, **names)
    model = graph_of([*LINEAR, *second], outputs=("out", "out2"), w2=-CONSTANTS["w"], scale2=np.float32(scale))
    to_pairs(model.graph)
    np.testing.assert_allclose(results_of(model), [[[0.2, -0.7]], [expected]], rtol=1e-6)
    assert kinds_of(model).count("DequantizeLinear") == 3


@pytest.mark.parametrize(("nodes", "expected"), [(LINEAR, [[0.2, -0.7]]), (OF_TWO, [[0.625, 0.75]])])
def test_where_8_bits_saturate_a_layer_is_multiplied_in_float32_and_named(nodes, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(openvino, "_saturates", lambda: True)
    model = graph_of(nodes)
    engine = engine_of(model, tmp_path)
    np.testing.assert_allclose(engine.run(inputs_of(model))[0], expected, rtol=1e-6)
    saturates = "MatMulInteger 'product' (in float32, as in 8 bits it saturates on this processor)"
    assert engine.unsupported() == (saturates if nodes is LINEAR else None)


def test_wide_weights_are_the_scaled_integers():
    model = graph_of(LINEAR)
    assert to_pairs(model.graph, wide_weights=True) == {"product": "out"}
    np.testing.assert_allclose(results_of(model)[0], [[0.2, -0.7]], rtol=1e-6)
    product = next(node for node in model.graph.node if node.op_type == "MatMul")
    weight = next(t for t in model.graph.initializer if t.name == product.input[1])
    np.testing.assert_allclose(numpy_helper.to_array(weight), 0.1 * CONSTANTS["w"], rtol=1e-6)


LEFT_ALONE = {
    "a scale for each channel": graph_of(LINEAR, xw_scale=np.float32([0.05, 0.1])),
    "the integers are a result": graph_of(LINEAR, outputs=("out", "xw")),
    "no zero points": graph_of(
        [LINEAR[0], helper.make_node("MatMulInteger", ["xq", "w"], ["xw"], "product"), *LINEAR[2:]], x_zero=np.uint8(0)
    ),
    "an input of unknown scale": graph_of(
        [helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "x_scale1", "x_zero1"]),
         helper.make_node("MatMulInteger", ["xq", "w", "x_zero1", "w_zero"], ["xw"], "product"), *LINEAR[2:]]
    ),
    "zero points of columns": graph_of(LINEAR, w_zero=np.int8([1, 2])),
    "more than the scales": graph_of(OF_TWO, xy_scale=np.float32(0.5)),
    "no scale": graph_of([*LINEAR[:3], helper.make_node("Cast", ["sum"], ["out"], to=TensorProto.FLOAT)]),
}  # fmt: skip


@pytest.mark.parametrize("model", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_another_product_is_left_alone_and_named(model, tmp_path):
    """The library multiplies it in float32, which its own record of the compiled graph says."""
    before = model.SerializeToString()
    engine = engine_of(model, tmp_path)
    for found, expected in zip(engine.run(inputs_of(model)), results_of(model), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert engine.unsupported() == "MatMulInteger 'product'"
    assert to_pairs(model.graph) == {}
    assert model.SerializeToString() == before


def test_the_first_layer_in_float32_is_named(tmp_path):
    """Two layers with a scale for each channel, the second of which makes the output."""
    nodes = [*LINEAR[:-1], helper.make_node("Mul", ["sum_float", "xw_scale"], ["between"])]
    names = {"xq": "zq", "xw": "zw", "sum": "z_sum", "sum_float": "z_float", "out": "z_out"}
    nodes += another(LINEAR, x="between", **names)
    nodes.append(helper.make_node("Tanh", ["z_out"], ["out"]))
    wide = np.float32([0.05, 0.1])
    assert engine_of(graph_of(nodes), tmp_path).unsupported() is None
    engine = engine_of(graph_of(nodes, xw_scale=wide), tmp_path)
    assert engine.unsupported() == "MatMulInteger 'product', and 1 more"


def test_nothing_is_reported_to_anybody(tmp_path):
    """From its import on the library reports its use, and keeps a number of the user's in the home folder."""
    onnx.save(graph_of(LINEAR), tmp_path / "model.onnx")
    program = f"""
import sys
from pathlib import Path

def refuse(event, arguments):
    assert event not in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.posix_spawn"), arguments

sys.addaudithook(refuse)
from obert.engines import ModelFiles
from obert.engines.openvino import OpenVino
path = Path({str(tmp_path / "model.onnx")!r})
OpenVino(ModelFiles(path, path.parent, None), 1)
assert not [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module]
"""
    home = tmp_path / "home"
    home.mkdir()
    variables = {name: value for name, value in os.environ.items() if name not in ("CI", "HOME")}
    subprocess.run([sys.executable, "-c", program], check=True, env={**variables, "HOME": str(home)}, timeout=120)
    assert list(home.iterdir()) == []
