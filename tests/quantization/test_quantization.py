"""Rounding to 8 bits against integers worked out by hand, and the integer graph against the model it is made from."""

import copy
import json

import numpy as np
import onnx
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from samples import WHOLE_AND_TOKENS, padded_batches, with_new_head
from transformers import AutoModel, BertConfig

from obert.deployment.export import export_onnx, exported_sparsity
from obert.deployment.integer_graph import to_integer
from obert.deployment.parity import parity
from obert.engines import ModelFiles
from obert.engines.onnxruntime import OnnxRuntime
from obert.foundation.errors import UserError
from obert.heads import INPUT_COLUMNS
from obert.models.encoders import load_float, load_tokenizer, load_trained, prunable_weights, save
from obert.quantization.fake import (
    FreezeObservers,
    QuantizedEmbedding,
    QuantizedLinear,
    integer_weight,
    is_of_quantizer,
    is_quantized,
    quantize,
    quantize_layer,
)
from obert.quantization.quantizers import freeze_scales

CONFIG = BertConfig(
    vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
    max_position_embeddings=48, initializer_range=0.2,
)  # fmt: skip
TINY = "tests/data/tiny_bert"


def batch(count=6, length=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(5, CONFIG.vocab_size, (count, length), generator=generator)
    mask = torch.ones_like(tokens)
    mask[1, length // 2 :] = 0
    return {"input_ids": tokens, "attention_mask": mask, "token_type_ids": torch.zeros_like(tokens)}


def tiny(head):
    torch.manual_seed(0)
    return getattr(transformers, head.auto_model).from_config(CONFIG, attn_implementation="eager").eval()


def calibrated(network):
    """Quantised, the scales from a few batches."""
    quantize(network)
    with torch.no_grad():
        for seed in range(4):
            network(**batch(seed=seed))
    return freeze_scales(network)


@pytest.fixture(params=WHOLE_AND_TOKENS, scope="module")
def head(request):
    return WHOLE_AND_TOKENS[request.param]


def test_a_linear_layer_by_hand():
    """Weight scale 1.27/127 = 0.01; input from -0.5 to 2.05: scale 2.55/255 = 0.01, zero point 50.

    Row 0 of the weight becomes (127, -40, 0), the input (255 - 50, 100 - 50, 0 - 50) = (205, 50, -50); with the bias
    0.12345 = 1234.5 -> 1234 (to even) steps of 0.0001: 205 * 127 - 50 * 40 + 1234 = 25269 steps.
    """
    layer = torch.nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.27, -0.404, 0.0], [0.5, 0.0, 0.016]]))
        layer.bias.copy_(torch.tensor([0.12345, 0.0]))
    quantize_layer(layer)
    inputs = torch.tensor([[2.05, 0.5, -0.5]])
    assert type(layer) is QuantizedLinear
    outputs = layer(inputs)
    assert integer_weight(layer).tolist() == [[127, -40, 0], [50, 0, 2]]
    assert int(layer.input_fake_quant.zero_point) == 50
    # second row: 205 * 50 + 2 * -50 = 10150 steps
    torch.testing.assert_close(outputs, torch.tensor([[2.5269, 1.0150]]), atol=2e-4, rtol=0)


def test_everything_that_multiplies_is_quantised_and_nothing_else(head):
    network = tiny(head)
    names = set(dict(network.named_parameters()))
    before = [id(p) for p in network.parameters()]
    quantize(network)
    kinds = {type(module) for module in network.modules()}
    assert torch.nn.Linear not in kinds
    assert torch.nn.Embedding not in kinds
    assert {QuantizedLinear, QuantizedEmbedding, torch.nn.LayerNorm} <= kinds
    assert set(dict(network.named_parameters())) == names
    assert [id(p) for p in network.parameters()] == before
    assert is_quantized(network)
    assert not is_quantized(tiny(head))


def test_zeros_stay_zero_and_scales_freeze(head):
    network = tiny(head)
    with torch.no_grad():
        for weight in prunable_weights(network).values():
            weight.view(-1)[::3] = 0
    quantize(network).train()
    network(**batch())
    for module in network.modules():
        if isinstance(module, QuantizedLinear):
            rounded = module.weight_fake_quant(module.weight)
            assert (rounded[module.weight == 0] == 0).all()
    frozen = FreezeObservers(step=3)
    layer = network.base_model.encoder.layer[0].output.dense

    class State:
        global_step = 2

    frozen.on_step_begin(None, State, None, model=network)
    network(**batch(seed=1))
    moved = layer.input_fake_quant.scale.clone()
    State.global_step = 3
    frozen.on_step_begin(None, State, None, model=network)
    network(**{**batch(seed=2), "input_ids": batch(seed=2)["input_ids"] * 0 + 7})
    assert torch.equal(layer.input_fake_quant.scale, moved)


def test_rounding_passes_gradients_to_all_parameters(head):
    network = quantize(tiny(head)).train()
    outputs = network(**batch(), return_dict=False)
    sum(output.sum() for output in outputs).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert without == []


def test_saved_and_loaded_is_the_same_model(head, root, tmp_path):
    torch.manual_seed(0)
    network = calibrated(with_new_head(root / TINY, head))
    save(network, load_tokenizer(root / TINY), tmp_path)
    assert json.loads((tmp_path / "quantization.json").read_text())["bits"] == 8
    again = load_trained(tmp_path, head)
    assert is_quantized(again)
    with torch.no_grad():
        expected, found = (n(**batch(), return_dict=False) for n in (network, again))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert not is_quantized(load_float(tmp_path, head))
    with pytest.raises(OSError, match=r"model\.safetensors"):  # Transformers alone does not take it for a float model
        AutoModel.from_pretrained(tmp_path)
    file = tmp_path / "quantized.safetensors"
    for lost, lacks in (
        (is_of_quantizer, "fake_quant"),
        (lambda name: name.endswith("output.dense.bias"), "dense.bias"),
    ):
        weights = load_file(file)
        save_file({name: weight for name, weight in weights.items() if not lost(name)}, file)
        with pytest.raises(UserError, match=f"lacks .*{lacks}"):
            load_trained(tmp_path, head)
        save_file(weights, file)


@pytest.fixture(scope="module")
def exported(head, tmp_path_factory):
    network = tiny(head)
    with torch.no_grad():
        for weight in prunable_weights(network).values():
            weight.view(-1)[::3] = 0
    floating = copy.deepcopy(network)
    calibrated(network)
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_onnx(floating, head, path, INPUT_COLUMNS)
    to_integer(path, network)
    return network, path


def features(count=16):
    generator = np.random.default_rng(0)
    lengths = generator.integers(3, 40, count)
    tokens = [generator.integers(5, CONFIG.vocab_size, n).tolist() for n in lengths]
    return {
        "input_ids": tokens,
        "attention_mask": [[1] * len(row) for row in tokens],
        "token_type_ids": [[0] * len(row) for row in tokens],
    }


def test_the_integer_graph_gives_the_models_logits(exported, head):
    network, path = exported
    found = parity(
        network,
        OnnxRuntime(ModelFiles(path, path.parent, head), 1),
        head,
        padded_batches(features(), 0),
        quantized=True,
    )
    assert found.mean < 1e-3  # 0.01 where products of integers saturate
    assert found.count == 16


def test_no_product_is_left_in_float(exported):
    network, path = exported
    model = onnx.load(path)
    kinds = [node.op_type for node in model.graph.node]
    assert "MatMul" not in kinds
    assert "Gemm" not in kinds
    linear = sum(isinstance(module, QuantizedLinear) for module in network.modules())
    assert kinds.count("MatMulInteger") == linear + 2 * 2  # and two products in each of two layers
    tables = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 2]
    assert tables == []


def test_the_pattern_is_what_sparse_runtimes_look_for(exported):
    """QuantizeLinear (uint8) -> MatMulInteger (int8 weight) -> Add (int32) -> Cast -> Mul."""
    graph = onnx.load(exported[1]).graph
    constants = {t.name: t for t in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    readers = {name: node for node in graph.node for name in node.input}
    seen = 0
    for node in graph.node:
        if node.op_type == "MatMulInteger" and node.input[1] in constants:
            assert constants[node.input[1]].data_type == onnx.TensorProto.INT8
            assert made_by[node.input[0]].op_type == "QuantizeLinear"
            assert constants[node.input[2]].data_type == onnx.TensorProto.UINT8
            add = readers[node.output[0]]
            assert add.op_type == "Add"
            assert constants[add.input[1]].data_type == onnx.TensorProto.INT32
            cast = readers[add.output[0]]
            assert (cast.op_type, readers[cast.output[0]].op_type) == ("Cast", "Mul")
            seen += 1
    assert seen >= 12


def test_sparsity_is_counted_in_the_integers(exported):
    network, path = exported
    found = exported_sparsity(path, network, 1 / 3)
    assert found.measured >= 1 / 3
    for name, layer in found.layers.items():
        pruned = int((prunable_weights(network)[name] == 0).sum())
        assert layer.zeros >= pruned


def test_another_models_graph_is_refused(head, tmp_path):
    shallow = tiny(head)
    del shallow.base_model.encoder.layer[1:]
    path = tmp_path / "model.onnx"
    export_onnx(shallow, head, path, INPUT_COLUMNS)
    with pytest.raises(UserError, match=r"layer\.1"):
        to_integer(path, calibrated(tiny(head)))
