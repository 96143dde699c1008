"""Quantisation-aware training on the smoke model: zeros held, scales frozen, resume that equals, an integer export."""

import pytest
import torch
from safetensors.torch import load_file

from obert.experiment.folders import checkpoint_folder, run_folder
from obert.experiment.plan import find_key, teacher_key
from obert.models.encoders import load_trained, prunable_weights
from obert.quantization.fake import QuantizedLinear
from obert.records.record import read_record
from obert.stages import downstream, export, quantize

TASK = "movie_reviews"


@pytest.fixture
def keys(experiment):
    """The pruned model and its quantised form, the first of them made."""
    source = find_key(experiment, "downstream", task=TASK, recipe="smoke_gradual", method="obert")
    if not (run_folder(experiment, source) / "metrics.json").exists():
        downstream.run(experiment, source)
    return source, find_key(experiment, "quantize", task=TASK, recipe="smoke_quantize@smoke_gradual")


def model_of(experiment, key):
    return load_trained(run_folder(experiment, key) / "model", "sequence_classification")


def test_zeros_are_those_of_the_pruned_model_and_scales_are_frozen(experiment, keys):
    source, key = keys
    record = quantize.run(experiment, key)
    before, after = (prunable_weights(model_of(experiment, k)) for k in keys)
    for name, weight in before.items():
        assert (after[name][weight == 0] == 0).all()
        assert not torch.equal(after[name], weight)  # it has trained
    assert record.details["pattern"]["zeros_kept"] == record.details["pattern"]["zeros_before"]
    assert record.inputs.keys() == {str(source.path), str(teacher_key(experiment, TASK).path)}
    for module in model_of(experiment, key).modules():
        if isinstance(module, QuantizedLinear):
            assert not module.input_fake_quant.observer_enabled
            assert float(module.input_fake_quant.max_val) < float("inf")


@pytest.mark.parametrize("step", [3, 5])
def test_interrupted_and_run_again_equals_uninterrupted(experiment, keys, interrupted_at, step):
    _, key = keys
    whole = quantize.run(experiment, key)
    expected = load_file(run_folder(experiment, key) / "model" / "model.safetensors")
    with interrupted_at(step):
        quantize.run(experiment, key)
    assert list(checkpoint_folder(experiment, key).glob("checkpoint-*"))
    again = quantize.run(experiment, key)
    found = load_file(run_folder(experiment, key) / "model" / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name
    assert again.metrics == whole.metrics


def test_the_export_is_an_integer_graph_with_the_zeros(experiment, keys):
    source, key = keys
    quantize.run(experiment, key)
    record = export.run(experiment, key.at("export"))
    assert record.details["quantized"]
    pruned = read_record(run_folder(experiment, source) / "metrics.json").sparsity
    assert record.sparsity.measured >= pruned.measured
    floating = export.run(experiment, teacher_key(experiment, TASK).at("export"))
    assert not floating.details["quantized"]


def test_the_dense_teacher_is_quantised_by_the_same_code(experiment):
    key = find_key(experiment, "quantize", task=TASK, recipe="smoke_quantize@smoke_finetune")
    record = quantize.run(experiment, key)
    assert record.sparsity is None
    assert record.inputs.keys() == {str(teacher_key(experiment, TASK).path)}
