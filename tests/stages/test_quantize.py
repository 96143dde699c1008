"""Quantisation-aware training on the smoke model: zeros held, scales frozen, resume that equals, an integer export."""

import pytest
import torch
from planned import at, make
from safetensors.torch import load_file
from samples import HEADS

from obert.deployment import trial
from obert.foundation.errors import UserError
from obert.models.encoders import load_trained, prunable_weights
from obert.quantization.fake import QuantizedLinear
from obert.records.record import read_record

TASK = "movie_reviews"


@pytest.fixture
def runs(plan):
    """The pruned model and its quantised form, the first of them made."""
    source = plan.find("downstream", task=TASK, recipe="smoke_gradual", method="obert")
    if not (source.folder / "metrics.json").exists():
        make(source)
    return source, plan.find("quantize", task=TASK, recipe="smoke_quantize@smoke_gradual")


def model_of(run):
    return load_trained(run.folder / "model", HEADS["sequence_classification"])


def test_zeros_are_those_of_the_pruned_model_and_scales_are_frozen(plan, runs):
    source, run = runs
    record = make(run)
    before, after = (prunable_weights(model_of(k)) for k in runs)
    for name, weight in before.items():
        assert (after[name][weight == 0] == 0).all()
        assert not weight.any() or not torch.equal(after[name], weight)  # what is left has trained
    assert record.details["pattern"]["zeros_kept"] == record.details["pattern"]["zeros_before"]
    assert record.inputs.keys() == {str(source.key.path), str(plan.teacher(TASK).key.path)}
    for module in model_of(run).modules():
        if isinstance(module, QuantizedLinear):
            assert not module.input_fake_quant.observer_enabled
            assert float(module.input_fake_quant.max_val) < float("inf")


@pytest.mark.parametrize("step", [3, 5])
def test_interrupted_and_run_again_equals_uninterrupted(plan, runs, interrupted_at, step):
    _, run = runs
    whole = make(run)
    expected = load_file(run.folder / "model" / "quantized.safetensors")
    with interrupted_at(step):
        make(run)
    assert list(run.checkpoints.glob("checkpoint-*"))
    again = make(run)
    found = load_file(run.folder / "model" / "quantized.safetensors")
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name
    assert again.metrics == whole.metrics


@pytest.fixture
def cannot_be_exported(monkeypatch):
    def fails(*_):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(trial, "_passed", set())
    monkeypatch.setattr(trial, "export_onnx", fails)


def test_a_model_that_cannot_be_exported_is_refused_before_its_first_step(plan, runs, cannot_be_exported):
    for run in (plan.teacher(TASK), runs[1]):
        run.drop_checkpoints()
        with pytest.raises(UserError, match="a trial before training shows: no such operator"):
            run.stage.run(run)
        assert not list(run.checkpoints.glob("checkpoint-*"))


def test_a_run_that_goes_on_has_been_through_the_trial(plan, runs, interrupted_at, cannot_be_exported, monkeypatch):
    with monkeypatch.context() as patch, interrupted_at(3):
        patch.setattr(trial, "try_export", lambda *_: None)
        make(runs[1])
    make(runs[1])


def test_the_export_is_an_integer_graph_with_the_zeros(plan, runs):
    source, run = runs
    make(run)
    record = make(at(plan, run, "export"))
    assert record.details["quantized"]
    pruned = read_record(source.folder / "metrics.json").sparsity
    assert record.sparsity.measured >= pruned.measured
    floating = make(at(plan, plan.teacher(TASK), "export"))
    assert not floating.details["quantized"]


def test_the_dense_teacher_is_quantised_by_the_same_code(plan):
    run = plan.find("quantize", task=TASK, recipe="smoke_quantize@smoke_finetune")
    record = make(run)
    assert record.sparsity is None
    assert record.inputs.keys() == {str(plan.teacher(TASK).key.path)}
