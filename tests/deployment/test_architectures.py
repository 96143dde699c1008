"""Every architecture, exported in float32 and in 8 bits: what the file declares, its weights, products and logits."""

import copy
from collections import Counter
from types import SimpleNamespace

import onnx
import pytest
import torch
from architectures.models import ALIKE, NAMES, make
from onnx import TensorProto
from samples import HEADS

from obert.deployment.export import export_onnx, exported_sparsity, stored_weights
from obert.deployment.integer_graph import to_integer
from obert.deployment.parity import parity
from obert.engines import ModelFiles
from obert.engines.onnxruntime import OnnxRuntime
from obert.engines.openvino import OpenVino
from obert.experiment.schema import Model
from obert.foundation.errors import UserError
from obert.models.encoders import load_pretrained, prunable_weights
from obert.quantization.fake import quantize
from obert.quantization.quantizers import freeze_scales

# Three layers each. Of a layer: its linear layers, and the products of its attention.
PRODUCTS = {
    "bert": 3 * (6 + 2) + 2,  # pooler, classifier
    "bert_large": 24 * (6 + 2) + 2,
    "electra": 1 + 3 * (6 + 2) + 2,  # embeddings_project
    "distilbert": 3 * (6 + 2) + 2,
    "mobilebert": 1 + 3 * (4 + 3 + 4 + 2) + 2,  # embedding_transformation; attention, bottlenecks, two FFNs, products
    "roberta": 3 * (6 + 2) + 2,
    "xlm_roberta": 3 * (6 + 2) + 2,
    "albert": 1 + 3 * (6 + 2) + 2,  # embedding_hidden_mapping_in; one layer, used three times
    "deberta_v2": 3 * (6 + 2 + 4) + 2,  # queries and keys of positions too, and products of contents with positions
    "deberta_v3": 3 * (6 + 2 + 4) + 2,
    "mpnet": 3 * (6 + 2) + 2,
    "modernbert": 3 * (4 + 2) + 2,  # Wqkv is one
}
SHAPES = ((1, 3), (1, 7), (3, 8), (2, 33), (4, 60))  # the traced example is [2, 8]
HEAD = HEADS["sequence_classification"]


def batches(network, inputs):
    """Random tokens; the rows of a batch end one after the other."""
    generator = torch.Generator().manual_seed(0)
    for rows, length in SHAPES:
        mask = torch.ones((rows, length), dtype=torch.long)
        for row in range(1, rows):
            mask[row, max(2, length - 5 * row) :] = 0
        tokens = torch.randint(5, network.config.vocab_size, (rows, length), generator=generator)
        tokens = torch.where(mask == 1, tokens, network.config.pad_token_id or 0)
        made = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": (torch.arange(length) > 4).long() * mask}
        yield {name: made[name] for name in inputs}


def loaded(name, folder, head=HEAD):
    """A tiny model with zeros in every matrix, and weights large enough for a wrong operator to move its logits."""
    make(name, folder)
    torch.manual_seed(0)
    network, tokenizer = load_pretrained(Model(source=str(folder)), head, ("no", "yes"))
    network.set_attn_implementation("eager")
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 2:
                parameter.mul_(5).view(-1)[::3] = 0
            elif not parameter.any():
                parameter.normal_(0, 0.1)
    return network.eval(), list(tokenizer.model_input_names)


def calibrated(network, inputs):
    quantized = quantize(copy.deepcopy(network))
    with torch.no_grad():
        for batch in batches(network, inputs):
            quantized(**batch)
    return freeze_scales(quantized)


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ()) for name in NAMES],
)
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    network, inputs = loaded(request.param, folder)
    floating, integer = (ModelFiles(folder / f"{form}.onnx", folder, HEAD) for form in ("float", "integer"))
    export_onnx(network, HEAD, floating.onnx, inputs)
    quantized = calibrated(network, inputs)
    integer.onnx.write_bytes(floating.onnx.read_bytes())
    to_integer(integer.onnx, quantized)
    return SimpleNamespace(
        name=request.param, network=network, inputs=inputs, floating=floating, quantized=quantized, integer=integer
    )


def test_the_graph_declares_what_the_tokenizer_makes(made):
    for files in (made.floating, made.integer):
        graph = onnx.load(files.onnx).graph
        assert {tensor.name for tensor in graph.input} == set(made.inputs)
        names = [node.name for node in graph.node]
        assert len(set(names)) == len(names)


def test_every_matrix_is_in_the_file_under_its_name_with_its_zeros(made):
    stored = stored_weights(made.floating.onnx)
    for name, parameter in made.network.named_parameters():
        if parameter.dim() == 2:
            assert sorted(stored[name].shape) == sorted(parameter.shape)
            assert int((stored[name] == 0).sum()) == int((parameter == 0).sum()) > parameter.numel() / 4
    for files, network in ((made.floating, made.network), (made.integer, made.quantized)):
        found = exported_sparsity(files.onnx, network, 1 / 3)
        assert list(found.layers) == list(prunable_weights(network))
        assert 1 / 3 <= found.measured < 0.4


@pytest.mark.parametrize("engine_class", [OnnxRuntime, OpenVino])
def test_the_float_file_gives_the_models_logits(made, engine_class):
    engine = engine_class(made.floating, 1)
    found = parity(made.network, engine, HEAD, batches(made.network, made.inputs))
    assert found.largest < 1e-4
    assert found.count == sum(rows for rows, _ in SHAPES)
    assert engine.unsupported() is None


@pytest.mark.parametrize("engine_class", [OnnxRuntime, OpenVino])
def test_the_integer_file_gives_the_models_logits(made, engine_class):
    engine = engine_class(made.integer, 1)
    found = parity(made.quantized, engine, HEAD, batches(made.network, made.inputs), quantized=True)
    assert found.mean < 1e-2
    left = engine.unsupported()
    assert left is None or "saturates on this processor" in left


def test_all_that_multiplies_is_in_8_bits(made):
    graph = onnx.load(made.integer.onnx).graph
    kinds = Counter(node.op_type for node in graph.node)
    assert kinds["MatMulInteger"] == PRODUCTS[made.name]
    assert kinds["MatMul"] == kinds["Gemm"] == 0
    tables = [t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) > 1]
    assert [name for name in tables if ".conv." not in name] == []  # a convolution is no linear layer


def test_a_module_that_runs_several_times_is_in_the_file_once(tmp_path):
    network, inputs = loaded("albert", tmp_path)
    export_onnx(network, HEAD, tmp_path / "model.onnx", inputs)
    graph = onnx.load(tmp_path / "model.onnx").graph
    weights = [tensor.name for tensor in graph.initializer if tensor.name.endswith("ffn.weight")]
    (weight,) = weights
    readers = [node.name for node in graph.node if weight in node.input]
    layer = weight.removesuffix(".weight")
    assert readers == [f"{layer}/MatMul", f"{layer}/MatMul_1", f"{layer}/MatMul_2"]


@pytest.mark.parametrize("name", ["bert", "deberta_v3"])
@pytest.mark.parametrize("head", ["question_answering", "masked_language_model"])
def test_heads_of_tokens(name, head, tmp_path):
    """The weight of a masked language model's last layer is also the table of its embeddings."""
    network, inputs = loaded(name, tmp_path, HEADS[head])
    files = ModelFiles(tmp_path / "model.onnx", tmp_path, HEADS[head])
    export_onnx(network, HEADS[head], files.onnx, inputs)
    assert parity(network, OnnxRuntime(files, 1), HEADS[head], batches(network, inputs)).largest < 1e-4
    exported_sparsity(files.onnx, network, 0.0, list(dict(network.named_parameters()))[:1])
    quantized = calibrated(network, inputs)
    to_integer(files.onnx, quantized)
    found = parity(quantized, OnnxRuntime(files, 1), HEADS[head], batches(network, inputs), quantized=True)
    assert found.mean < 1e-2


def test_a_product_that_nothing_rounds_is_refused(tmp_path):
    """MobileBERT's masked language model multiplies with two weights put together, outside of any layer."""
    head = HEADS["masked_language_model"]
    network, inputs = loaded("mobilebert", tmp_path, head)
    export_onnx(network, head, tmp_path / "model.onnx", inputs)
    with pytest.raises(UserError, match=r"cls\.predictions"):
        to_integer(tmp_path / "model.onnx", calibrated(network, inputs))
