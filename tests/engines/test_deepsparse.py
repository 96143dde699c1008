"""What DeepSparse does not accelerate is told by name: from made-up logs, and from the library itself where it is."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from samples import HEADS, with_new_head

from obert.deployment.export import export_onnx
from obert.deployment.latency import random_inputs
from obert.deployment.onnx_graph import OnnxGraph
from obert.engines import EngineError, ModelFiles, _deepsparse_log
from obert.engines.deepsparse import VERSION, DeepSparse
from obert.engines.onnxruntime import OnnxRuntime
from obert.foundation.files import file_hash
from obert.heads import INPUT_COLUMNS
from obert.models.encoders import prunable_weights

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests/data/tiny_bert"
PINS = ROOT / "workflow/envs/deepsparse.txt"
HEADING = "[nm_ort 7f >DIAGNOSE< operator() x.cc:1] "
PARTS = {
    "hidden": ["Node 3: MatMul hidden", "Node 4: Add hidden_bias"],
    "odd": ["Node 5: Sin odd"],
    "out": ["Node 6: Gemm out", "Node 7: Softmax probabilities"],
}
PRODUCTS = {
    "hidden": "      (Connected x -> h_sum (fc weights = [ 4, 4 ] bias = [  ] a = 1 b = 0 transpose_weights = 1))",
    "odd": "",
    "out": "      (IntegerFC s -> y (integer_fc a_zero_point {unsigned char, [ 1 ]: 136} transpose_weights = 1))",
}


def made_up_log(*subgraphs, fails=(), said=""):
    """The log of a graph of which these parts were compiled, each part for itself."""
    nodes = ["Node 1: Cast cast", "Node 2: And mask", *(line for part in PARTS.values() for line in part)]
    lines = [f"{HEADING}Single engine mode, total_num_threads=2", "Printing GraphViewer main_graph:", *nodes, "", said]
    for part in subgraphs:
        lines += [f"{HEADING}== Beginning new subgraph ==", f"{HEADING}Printing subgraph:", *PARTS[part], ""]
        lines += [f"{HEADING}== Translating subgraph NM_Subgraph_1 to NM intake graph.", PRODUCTS[part]]
        if part in fails:
            lines += ["==== FAILED TO COMPILE ===="]
        else:
            lines += [f"{HEADING}== Compiling NM_Subgraph_1 with batch size 2 using 2 threads."]
    lines += [f"{HEADING}Created {len(subgraphs)} compiled subgraphs.", "Printing GraphViewer main_graph:"]
    return "\n".join([*lines, "Node 5: Sin odd", "Node 9: NM_Subgraph_1 NMExecutionProvider_1", ""])


@pytest.fixture
def path(tmp_path):
    """A linear layer, Sin, another linear layer and Softmax; and a mask that has nothing to do with their results."""
    nodes = [
        helper.make_node("Cast", ["ids"], ["x"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("And", ["flags", "flags"], ["mask"], name="mask"),
        helper.make_node("Identity", ["weight"], ["same_weight"], name="same"),
        helper.make_node("MatMul", ["x", "same_weight"], ["h"], name="hidden"),
        helper.make_node("Add", ["bias", "h"], ["h_sum"], name="hidden_bias"),
        helper.make_node("Shape", ["h_sum"], ["size"], name="folded"),
        helper.make_node("Sin", ["h_sum"], ["s"], name="odd"),
        helper.make_node("Gemm", ["s", "weight", "bias"], ["y"], name="out"),
        helper.make_node("Softmax", ["y"], ["p"], name="probabilities"),
    ]
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, [2, 4]),
        helper.make_tensor_value_info("flags", TensorProto.BOOL, [2, 4]),
    ]
    weights = [
        helper.make_tensor("weight", TensorProto.FLOAT, [4, 4], [0.0] * 16),
        helper.make_tensor("bias", TensorProto.FLOAT, [4], [0.0] * 4),
    ]
    outputs = [helper.make_tensor_value_info("p", TensorProto.FLOAT, [2, 4])]
    onnx.save(helper.make_model(helper.make_graph(nodes, "graph", inputs, outputs, weights)), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


NOT_CONSTANT = made_up_log("hidden", "odd", "out").replace("Connected x", "MatMul x w")


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (made_up_log("hidden", "odd", "out"), None),
        (made_up_log("hidden", "out"), "Sin 'odd'"),
        (made_up_log("hidden", "out", said="Unsupported Sin odd, no such kernel"), "Sin 'odd' (no such kernel)"),
        (made_up_log("hidden", "odd"), "Gemm 'out', and 1 more"),
        (made_up_log("hidden", "odd", "out", fails=["out"]), "Gemm 'out', and 1 more"),
        (made_up_log("odd", "out"), "MatMul 'hidden', and 1 more"),
        (NOT_CONSTANT, "MatMul 'hidden'"),
        (made_up_log(), "MatMul 'hidden', and 4 more"),
    ],
)
def test_the_first_operator_that_is_not_accelerated(path, log, expected):
    assert _deepsparse_log.first_unsupported(path, log) == expected


def test_a_weight_that_is_computed_is_named(path):
    model = onnx.load(path)
    model.graph.node[2].op_type = "DequantizeLinear"
    onnx.save(model, path)
    expected = "MatMul 'hidden' (its weight comes from DequantizeLinear)"
    assert _deepsparse_log.first_unsupported(path, NOT_CONSTANT) == expected


def test_threads_are_those_of_the_last_compilation():
    assert _deepsparse_log.threads(made_up_log("hidden")) == 2
    assert _deepsparse_log.threads(made_up_log()) == 2
    assert _deepsparse_log.threads(f"{made_up_log('hidden')}== Compiling NM_Subgraph_1 using 1 threads") == 1
    assert _deepsparse_log.threads("") is None


def test_the_pinned_version_is_the_one_whose_log_is_read():
    assert f"deepsparse=={VERSION}" in PINS.read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model with zeros, exported."""
    if reason := DeepSparse.unavailable_reason():
        pytest.skip(reason)
    torch.manual_seed(0)
    network = with_new_head(TINY, HEADS["sequence_classification"], attn_implementation="eager").eval()
    with torch.no_grad():
        for weight in prunable_weights(network).values():
            weight[weight.abs() < weight.abs().quantile(0.8)] = 0
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    export_onnx(network, HEADS["sequence_classification"], path, INPUT_COLUMNS)
    return ModelFiles(path, TINY, HEADS["sequence_classification"])


@pytest.fixture(scope="module")
def inputs():
    return random_inputs(vocabulary=100, batch_size=2, length=16, seed=0)


def edited(model, path, edit):
    """A copy of a model's graph after `edit`."""
    changed = onnx.load(model.onnx)
    edit(changed.graph)
    onnx.save(changed, path)
    return replace(model, onnx=path)


def test_an_exported_model_is_accelerated_and_its_file_left_alone(model, inputs):
    before = file_hash(model.onnx)
    engine = DeepSparse(model, 2)
    engine.run(inputs)
    assert engine.unsupported() is None
    assert (engine.version(), engine.threads()) == (VERSION, 2)
    assert file_hash(model.onnx) == before


def test_an_operator_without_a_kernel_is_named(model, inputs, tmp_path):
    def insert_sin(graph):
        position, node = next((i, n) for i, n in enumerate(graph.node) if n.name.endswith(".intermediate.dense/Add"))
        output, node.output[0] = node.output[0], "before_sin"
        graph.node.insert(position + 1, onnx.helper.make_node("Sin", ["before_sin"], [output], name="/odd/Sin"))

    changed = edited(model, tmp_path / "sin.onnx", insert_sin)
    engine, reference = DeepSparse(changed, 1), OnnxRuntime(changed, 1)
    np.testing.assert_allclose(engine.run(inputs)[0], reference.run(inputs)[0], atol=1e-5)
    assert engine.unsupported() == "Sin '/odd/Sin'"


def test_linear_layers_whose_zeros_are_not_seen_are_named(model, inputs, tmp_path):
    """Weights behind DequantizeLinear: the library runs their products with its own kernels, but dense."""

    def quantize_weights(graph):
        layers = OnnxGraph(graph).layers().values()
        products = [node for nodes in layers for node in nodes if node.op_type == "MatMul"]
        arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        scale = np.float32(0.01)
        for node in products:
            name = node.input[1]
            integers = np.rint(arrays[name] / scale).astype(np.int8)
            for array, suffix in ((integers, "_int8"), (scale, "_scale"), (np.int8(0), "_zero_point")):
                graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), f"{name}{suffix}"))
            parts = [f"{name}{suffix}" for suffix in ("_int8", "_scale", "_zero_point")]
            node.input[1] = f"{name}_real"
            real = onnx.helper.make_node("DequantizeLinear", parts, [f"{name}_real"], name=f"{name}_dequantize")
            graph.node.insert(0, real)

    engine = DeepSparse(edited(model, tmp_path / "pairs.onnx", quantize_weights), 1)
    engine.run(inputs)
    found = engine.unsupported()
    assert found.startswith("MatMul 'bert.encoder.layer.0.attention.self.query/MatMul'")
    assert "(its weight comes from DequantizeLinear)" in found
    assert found.endswith(", and 11 more")  # of two layers with six each


def test_more_threads_than_the_process_may_use_are_refused(model, inputs):
    """The library itself takes fewer without an error, and says so in its log alone."""
    cores = len(os.sched_getaffinity(0))
    with pytest.raises(EngineError, match=f"was asked for {cores + 1} threads and takes {cores}: "):
        DeepSparse(model, cores + 1).run(inputs)
