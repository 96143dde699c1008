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
    helper.make_node("MatMul", ["q_sum", "self.query.weight"], ["q_again"]),  # a layer that runs twice
    helper.make_node("Transpose", ["tied.weight"], ["tied_transposed"]),  # a weight that is also a table
    helper.make_node("Gather", ["tied.weight", "ids"], ["rows"]),
    helper.make_node("MatMul", ["x", "tied_transposed"], ["t"]),
    helper.make_node("MatMul", ["q_heads", "k"], ["scores"]),
    helper.make_node("Softmax", ["scores"], ["probabilities"]),
    helper.make_node("MatMul", ["probabilities", "v_sum"], ["mixed"]),
]
CONSTANTS = {
    "self.query.weight": np.eye(2, dtype=np.float32),
    "bias": np.float32([1, 2]),
    "shape": np.int64([1, 2]),
    "out.weight_quantized": np.eye(2, dtype=np.int8),
    "tied.weight": np.eye(2, dtype=np.float32),
    "scale": np.float32([[0.5]]),
}


@pytest.fixture
def graph():
    tensors = [numpy_helper.from_array(value, name) for name, value in CONSTANTS.items()]
    outputs = [helper.make_tensor_value_info("mixed", TensorProto.FLOAT, None)]
    return OnnxGraph(helper.make_graph(NODES, "made_up", [], outputs, tensors))


def test_layers_are_found_by_their_weights(graph):
    outputs = {name: [node.output[0] for node in nodes] for name, nodes in graph.layers().items()}
    assert outputs == {"self.query": ["q", "q_again"], "self.value": ["v"], "out": ["o"], "tied": ["t"]}
    np.testing.assert_array_equal(graph.values("self.value.weight"), np.eye(2))


def test_a_sum_is_that_of_a_constant(graph):
    layers = graph.layers()
    assert graph.sum_of(layers["self.query"][0]).output[0] == "q_sum"
    assert graph.sum_of(layers["self.value"][0]) is layers["self.value"][0]


def test_numbers(graph):
    assert graph.number("scale") == np.float32(0.5)
    assert graph.number("bias") is None
    assert graph.number("x") is None
    assert graph.number(None) is None
