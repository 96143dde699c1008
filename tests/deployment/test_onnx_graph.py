"""Layers and products of a made-up graph, whose nodes have no names."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from obert.deployment.onnx_graph import OnnxGraph

NODES = [
    helper.make_node("MatMul", ["x", "self.query.weight"], ["q"]),
    helper.make_node("Add", ["q", "bias"], ["q_sum"]),
    helper.make_node("Reshape", ["q_sum", "shape"], ["q_heads"]),
    helper.make_node("Identity", ["self.query.weight"], ["self.value.weight"]),  # equal weights
    helper.make_node("MatMulInteger", ["xq", "out.weight_quantized"], ["o"]),
    helper.make_node("MatMul", ["x", "self.value.weight"], ["v"]),
    helper.make_node("Add", ["v", "x"], ["v_sum"]),  # no bias
    helper.make_node("MatMul", ["q_heads", "k"], ["scores"]),
    helper.make_node("Softmax", ["scores"], ["probabilities"]),
    helper.make_node("MatMul", ["probabilities", "v_sum"], ["mixed"]),
]
CONSTANTS = {
    "self.query.weight": np.eye(2, dtype=np.float32),
    "bias": np.float32([1, 2]),
    "shape": np.int64([1, 2]),
    "out.weight_quantized": np.eye(2, dtype=np.int8),
    "scale": np.float32([[0.5]]),
}


@pytest.fixture
def graph():
    tensors = [numpy_helper.from_array(value, name) for name, value in CONSTANTS.items()]
    outputs = [helper.make_tensor_value_info("mixed", TensorProto.FLOAT, None)]
    return OnnxGraph(helper.make_graph(NODES, "made_up", [], outputs, tensors))


def test_layers_are_found_by_their_weights(graph):
    outputs = {name: node.output[0] for name, node in graph.layers().items()}
    assert outputs == {"self.query": "q", "self.value": "v", "out": "o"}
    np.testing.assert_array_equal(graph.values("self.value.weight"), np.eye(2))


def test_a_sum_is_that_of_a_constant(graph):
    layers = graph.layers()
    assert graph.sum_of(layers["self.query"]).output[0] == "q_sum"
    assert graph.sum_of(layers["self.value"]) is layers["self.value"]


def test_products_of_attention_are_those_that_query_and_value_lead_to(graph):
    assert graph.next_product("q").output[0] == "scores"
    assert graph.next_product("v").output[0] == "mixed"
    assert graph.next_product("scores").output[0] == "mixed"
    assert graph.next_product("mixed") is None
    assert graph.next_product("x") is graph.next_product("v")  # through the sum, not through the layers that read it


def test_numbers(graph):
    assert graph.number("scale") == np.float32(0.5)
    assert graph.number("bias") is None
    assert graph.number("x") is None
    assert graph.number(None) is None
