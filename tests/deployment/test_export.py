import copy
import gzip
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import transformers
from samples import EXPORTED, HEADS, padded_batches
from transformers import BertConfig

from obert.deployment.export import OPSET, export_onnx, exported_sparsity, file_sizes_mb, stored_weights
from obert.deployment.onnx_graph import OnnxGraph
from obert.deployment.parity import PARITY_TOLERANCE, parity
from obert.engines import ModelFiles
from obert.engines.onnxruntime import OnnxRuntime
from obert.foundation.errors import UserError
from obert.heads import INPUT_COLUMNS
from obert.models.encoders import prunable_weights

# initializer_range makes logits of order 1 to 10, as those of a trained model are.
CONFIG = BertConfig(
    vocab_size=60,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=48,
    initializer_range=0.3,
)
LENGTHS = (5, 40, 3, 17, 9, 9, 31, 12, 3, 48, 20)


def tiny(head, layers: int = 2):
    torch.manual_seed(0)
    network = getattr(transformers, head.auto_model).from_config(CONFIG, attn_implementation="eager").eval()
    del network.base_model.encoder.layer[layers:]
    return network


@pytest.fixture(params=EXPORTED, scope="module")
def head(request):
    return EXPORTED[request.param]


@pytest.fixture(scope="module")
def made(head, tmp_path_factory):
    """A pruned model with known zeros, and its file."""
    network = tiny(head)
    with torch.no_grad():
        for weight in prunable_weights(network).values():
            weight.view(-1)[::4] = 0
    path = tmp_path_factory.mktemp("made") / "model.onnx"
    export_onnx(network, head, path, INPUT_COLUMNS)
    return network, path


@pytest.fixture
def exported(made, tmp_path):
    """A copy of both, alone in its folder, which a test may change."""
    return copy.deepcopy(made[0]), Path(shutil.copy(made[1], tmp_path))


@pytest.fixture(scope="module")
def features():
    generator = np.random.default_rng(0)
    return {
        "input_ids": [generator.integers(5, CONFIG.vocab_size, n).tolist() for n in LENGTHS],
        "attention_mask": [[1] * n for n in LENGTHS],
        "token_type_ids": [[0] * (n // 2) + [1] * (n - n // 2) for n in LENGTHS],
    }


def engine(path):
    return OnnxRuntime(ModelFiles(path, path.parent, None), 1)


def edit(path, layer, change):
    """Apply `change` to the array [in, out] of a linear layer in an exported file."""
    model = onnx.load(path)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == f"{layer}.weight")
    array = onnx.numpy_helper.to_array(tensor).copy()
    change(array)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(model, path)


def test_file_has_the_stated_interface(exported, head):
    model = onnx.load(exported[1])
    onnx.checker.check_model(model)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    assert model.ir_version == 8, "DeepSparse's reader knows none above 9"
    assert [i.name for i in model.graph.input] == ["input_ids", "attention_mask", "token_type_ids"]
    for tensor in model.graph.input:
        assert tensor.type.tensor_type.elem_type == onnx.TensorProto.INT64
        assert [d.dim_param for d in tensor.type.tensor_type.shape.dim] == ["batch", "tokens"]
    assert [o.name for o in model.graph.output] == list(head.outputs)
    assert [path.name for path in exported[1].parent.iterdir()] == ["model.onnx"], "weights must be inside"


def test_stored_weights_are_the_models_own(exported):
    network, path = exported
    weights = stored_weights(path)
    for name, weight in prunable_weights(network).items():
        torch.testing.assert_close(weights[name].T, weight.detach(), rtol=0, atol=0)


def test_nothing_tells_of_the_machine_it_was_made_on(exported):
    """The exporter stores stack traces by default."""
    content = exported[1].read_bytes()
    assert str(Path(torch.__file__).parents[1]).encode() not in content
    assert b".py" not in content
    assert not {op.op_type for op in onnx.load(exported[1]).graph.node} & {"LayerNormalization", "Gelu"}


def test_layer_norm_keeps_what_it_adds_to_the_variance(exported):
    """1e-12, which an optimiser may take for nothing; without it a constant row is divided by zero."""
    graph = OnnxGraph(onnx.load(exported[1]).graph)
    made_by = {output: node for node in graph.graph.node for output in node.output}
    added = [node for node in graph.graph.node if graph.only_reader(node, "Sqrt")]
    assert [node.op_type for node in added] == ["Add"] * 5
    assert {made_by[node.input[1]].attribute[0].f for node in added} == {np.float32(CONFIG.layer_norm_eps)}


def test_sparsity_is_read_back(exported):
    network, path = exported
    found = exported_sparsity(path, network, 0.25)
    assert found.measured == found.target == 0.25
    assert len(found.layers) == 2 * 6
    layer = found.layers[f"{network.base_model_prefix}.encoder.layer.1.output.dense.weight"]
    assert (layer.zeros, layer.size) == (32 * 64 // 4, 32 * 64)


@pytest.mark.parametrize("head", ["question_answering"], indirect=True)
def test_weights_pruned_entirely_are_read_back(head, tmp_path):
    """Equal tensors, which the exporter stores once."""
    network = tiny(head)
    attention = network.base_model.encoder.layer[0].attention.self
    with torch.no_grad():
        attention.query.weight.zero_()
        attention.key.weight.zero_()
    export_onnx(network, head, tmp_path / "model.onnx", INPUT_COLUMNS)
    found = exported_sparsity(tmp_path / "model.onnx", network, 0.0)
    assert sum(layer.zeros for layer in found.layers.values()) == 2 * 32 * 32


@pytest.mark.parametrize("head", ["question_answering"], indirect=True)
@pytest.mark.parametrize(
    "damage", [lambda a: np.put(a, -1, 0), lambda a: np.put(a, 0, 1)], ids=["one more", "one less"]
)
def test_one_wrong_zero_is_caught(exported, damage):
    network, path = exported
    edit(path, "bert.encoder.layer.1.intermediate.dense", damage)
    with pytest.raises(UserError, match=r"layer\.1\.intermediate\.dense\.weight': 51[13] zeros of 2048.* 512 zeros"):
        exported_sparsity(path, network, 0.25)


@pytest.mark.parametrize("head", ["question_answering"], indirect=True)
def test_file_of_another_model_is_caught(head, exported):
    path = exported[1]
    export_onnx(tiny(head, layers=1), head, path, INPUT_COLUMNS)
    with pytest.raises(UserError, match=r"layer\.0.*zeros of"):
        exported_sparsity(path, exported[0], 0.25)
    with pytest.raises(UserError, match=r"layer\.1.*no such layer"):
        exported_sparsity(path, tiny(head), 0.0)


@pytest.mark.parametrize("head", ["question_answering"], indirect=True)
def test_cut_file_is_caught(exported):
    network, path = exported
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match="is not a readable ONNX model"):
        exported_sparsity(path, network, 0.25)


def test_parity_over_batches_and_lengths_the_exporter_has_not_seen(head, exported, features):
    network, path = exported
    difference, mean, count = parity(network, engine(path), head, padded_batches(features, 0))
    assert mean <= difference
    assert count == len(LENGTHS)
    assert 0 <= difference < 1e-4


def test_parity_finds_the_largest_difference_of_real_positions(head, exported, features):
    """A head's bias moves every logit by as much; padding is moved by more and must not count."""
    network, path = exported
    moved = 0.75 * PARITY_TOLERANCE
    runtime = engine(path)

    class Shifted(OnnxRuntime):
        def __init__(self):
            pass

        def run(self, inputs):
            outputs = [output + np.float32(moved) for output in runtime.run(inputs)]
            if head.of_tokens:
                real = inputs["attention_mask"] == 1
                outputs = [np.where(real if x.ndim == 2 else real[..., None], x, np.nan) for x in outputs]
            return outputs

    assert parity(network, Shifted(), head, padded_batches(features, 0))[0] == pytest.approx(moved, abs=1e-4)


@pytest.mark.parametrize("wrong", [0.01, float("nan")])
def test_parity_failure_raises_with_the_figure(head, exported, features, wrong):
    network, path = exported
    with torch.no_grad():
        list(network.parameters())[-1][0] += wrong
    with pytest.raises(UserError, match=f"by up to {wrong:.2g}.* over 11 features; allowed is 0.001"):
        parity(network, engine(path), head, padded_batches(features, 0))


@pytest.mark.parametrize("head", ["question_answering"], indirect=True)
def test_parity_over_nothing_is_an_error(exported):
    with pytest.raises(UserError, match="no validation feature"):
        parity(exported[0], engine(exported[1]), HEADS["question_answering"], [])


@pytest.mark.parametrize("head", ["sequence_classification"], indirect=True)
def test_export_is_quiet_and_the_same_every_time(head, tmp_path, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("one.onnx", "two.onnx"):
            export_onnx(tiny(head), head, tmp_path / name, INPUT_COLUMNS)
    assert capfd.readouterr() == ("", "")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


@pytest.mark.parametrize("head", ["sequence_classification"], indirect=True)
def test_failed_export_leaves_no_file(head, tmp_path, monkeypatch):
    def half(model, path):
        Path(path).write_bytes(b"half")
        raise RuntimeError("disk full")

    monkeypatch.setattr(onnx, "save", half)
    with pytest.raises(RuntimeError, match="disk full"):
        export_onnx(tiny(head), head, tmp_path / "model.onnx", INPUT_COLUMNS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 1000, (1 << 20) + 1, 3 << 20])
def test_file_sizes_equal_those_of_the_gzip_module(tmp_path, size):
    content = np.random.default_rng(0).integers(0, 20, size, dtype=np.uint8).tobytes()
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert file_sizes_mb(path) == (size / 1e6, len(gzip.compress(content, compresslevel=6)) / 1e6)
