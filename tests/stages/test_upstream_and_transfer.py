"""What happens before any task, on the smoke model: pruned upstream, cut, transferred with its zeros held."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoConfig

from obert.experiment import plan
from obert.experiment.checks import load_experiment
from obert.experiment.folders import checkpoint_folder, run_folder
from obert.experiment.plan import find_key, upstream_teacher_key
from obert.foundation.errors import UserError
from obert.masks.holding import FixedPattern
from obert.models.encoders import load_trained, prunable_weights
from obert.records.record import read_record
from obert.stages import downstream, transfer, upstream, upstream_teacher
from obert.training.trainer import share_of_batch

TASK = "movie_reviews"


@pytest.fixture
def experiment(experiment):
    """The smoke experiment with its teachers trained, the upstream one too."""
    key = upstream_teacher_key(experiment)
    if not (run_folder(experiment, key) / "metrics.json").exists():
        upstream_teacher.run(experiment, key)
    return experiment


def upstream_key(experiment, method="obert"):
    return find_key(experiment, "upstream", recipe="smoke_upstream", method=method)


def transfer_key(experiment, method="obert", task=TASK):
    return find_key(experiment, "transfer", recipe="smoke_transfer@smoke_upstream", method=method, task=task)


def made(experiment, stage, key):
    """The record of a run, which is made if it is not there."""
    path = run_folder(experiment, key) / "metrics.json"
    return read_record(path) if path.exists() else stage.run(experiment, key)


def file_of(experiment, key):
    return load_file(run_folder(experiment, key) / "model" / "model.safetensors")


def zeros_of(experiment, key, head):
    weights = prunable_weights(load_trained(run_folder(experiment, key) / "model", head))
    return {name: weight == 0 for name, weight in weights.items()}


def test_the_teacher_learns_and_its_head_is_tied(experiment):
    key = upstream_teacher_key(experiment)
    record = read_record(run_folder(experiment, key) / "metrics.json")
    assert record.metrics.keys() == {"masked_accuracy", "perplexity"}
    network = load_trained(run_folder(experiment, key) / "model", "masked_language_model")
    assert record.metrics["perplexity"].value < network.config.vocab_size  # which a uniform guess has
    assert network.get_output_embeddings().weight is network.get_input_embeddings().weight


@pytest.mark.parametrize("method", ["obert", "prune_ofa"])
def test_pruned_upstream_is_exact_and_says_what_it_is_from(experiment, method):
    record = made(experiment, upstream, upstream_key(experiment, method))
    zeros = zeros_of(experiment, upstream_key(experiment, method), "masked_language_model")
    size = sum(z.numel() for z in zeros.values())
    assert sum(int(z.sum()) for z in zeros.values()) == round(0.8 * size)
    assert record.inputs.keys() == {str(upstream_teacher_key(experiment).path)}


@pytest.mark.parametrize("method", ["obert", "prune_ofa"])
@pytest.mark.parametrize("task", ["movie_reviews", "city_qa"])
def test_transfer_keeps_every_zero_of_the_upstream_model(experiment, method, task):
    source, key = upstream_key(experiment, method), transfer_key(experiment, method, task)
    made(experiment, upstream, source)
    record = made(experiment, transfer, key)
    head = {"movie_reviews": "sequence_classification", "city_qa": "question_answering"}[task]
    before, after = zeros_of(experiment, source, "masked_language_model"), zeros_of(experiment, key, head)
    assert before.keys() == after.keys()
    assert all(not (before[name] & ~after[name]).any() for name in before)
    assert record.sparsity.target == 0.8
    count = sum(int(zeros.sum()) for zeros in before.values())
    assert record.details["pattern"] == {"zeros_before": count, "zeros_kept": count}
    dense_teacher = plan.teacher_key(experiment, task)
    assert record.inputs.keys() == {str(source.path), str(dense_teacher.path)}
    name = "bert.encoder.layer.0.output.dense.weight"
    assert not torch.equal(file_of(experiment, key)[name], file_of(experiment, source)[name])  # it has trained


def test_a_lost_zero_ends_the_run(experiment, monkeypatch):
    made(experiment, upstream, upstream_key(experiment))
    monkeypatch.setattr(FixedPattern, "hold", lambda self, weights: None)
    with pytest.raises(RuntimeError, match="are zero upstream and are not zero any more"):
        transfer.run(experiment, transfer_key(experiment))
    shutil.rmtree(checkpoint_folder(experiment, transfer_key(experiment)))


def test_the_dense_model_is_transferred_by_the_same_code(experiment):
    key = find_key(experiment, "transfer", recipe="smoke_transfer@smoke_masked_language_model", task=TASK)
    record = made(experiment, transfer, key)
    assert record.sparsity is None
    assert str(upstream_teacher_key(experiment).path) in record.inputs


def test_the_pretrained_model_can_be_transferred_as_it_is(experiment):
    block = {"recipe": "smoke_transfer", "upstream": ["pretrained"], "tasks": [TASK], "seeds": [7]}
    content = experiment.model_dump()
    content["upstream"]["transfer"] = [block]
    changed = type(experiment).model_validate(content)
    (key,) = plan.transfer_keys(changed)
    assert (key.recipe, key.seed) == ("smoke_transfer@pretrained", 7)
    record = transfer.run(changed, key)
    assert record.inputs.keys() == {str(plan.teacher_key(changed, TASK).path)}


def test_layers_are_dropped_then_pruned_on_a_task(experiment):
    source = find_key(experiment, "upstream", recipe="smoke_keep_1_layer")
    record = made(experiment, upstream, source)
    assert record.model["layers"] == 1
    folder = run_folder(experiment, source) / "model"
    assert AutoConfig.from_pretrained(folder).num_hidden_layers == 1
    key = find_key(experiment, "downstream", recipe="smoke_gradual_fewer_layers@smoke_keep_1_layer")
    pruned = downstream.run(experiment, key)
    assert pruned.model["layers"] == 1
    assert pruned.sparsity.measured == pytest.approx(0.8, abs=1e-3)
    assert pruned.inputs.keys() == {str(source.path), str(plan.teacher_key(experiment, TASK).path)}


def test_the_kept_layer_is_the_one_that_the_recipe_names(experiment, monkeypatch):
    started = {}

    def no_training(run, prepared, recipe, teacher=None, **rest):
        started.update({name: value.clone() for name, value in prepared.network.state_dict().items()})
        raise UserError("enough")

    monkeypatch.setattr(upstream, "train", no_training)
    with pytest.raises(UserError, match="enough"):
        upstream.run(experiment, find_key(experiment, "upstream", recipe="smoke_keep_1_layer"))
    teacher = file_of(experiment, upstream_teacher_key(experiment))
    for part in ("attention.self.query.weight", "output.dense.bias"):
        assert torch.equal(started[f"bert.encoder.layer.0.{part}"], teacher[f"bert.encoder.layer.1.{part}"])


@pytest.mark.parametrize("method", ["obert", "prune_ofa"])
@pytest.mark.parametrize("step", [3, 14, 25])
def test_upstream_interrupted_and_run_again_equals_uninterrupted(experiment, interrupted_at, method, step):
    key = upstream_key(experiment, method)
    whole = made(experiment, upstream, key)
    expected = file_of(experiment, key)
    with interrupted_at(step):
        upstream.run(experiment, key)
    assert list(checkpoint_folder(experiment, key).glob("checkpoint-*"))
    again = upstream.run(experiment, key)
    for name, value in file_of(experiment, key).items():
        assert torch.equal(value, expected[name]), name
    assert again.metrics == whole.metrics


def test_transfer_interrupted_and_run_again_equals_uninterrupted(experiment, interrupted_at):
    key = transfer_key(experiment)
    made(experiment, upstream, upstream_key(experiment))
    whole = made(experiment, transfer, key)
    expected = file_of(experiment, key)
    with interrupted_at(4):
        transfer.run(experiment, key)
    again = transfer.run(experiment, key)
    assert all(torch.equal(value, expected[name]) for name, value in file_of(experiment, key).items())
    assert again.metrics == whole.metrics


def with_training(experiment, **training):
    """The smoke experiment with settings of its upstream runs changed."""
    overrides = {"mlm": {"smoke_upstream": {"training": training}}}
    return experiment.model_copy(update={"recipe_overrides": overrides})


def test_bfloat16_is_for_training_alone(experiment):
    """Products of training are in bfloat16; pruning's gradients and the evaluation are not, the weights never."""
    seen = {True: set(), False: set()}

    def noted(module, arguments, outputs):
        if isinstance(module, torch.nn.Linear):
            seen[torch.is_autocast_enabled("cpu")].add(outputs.dtype)

    handle = torch.nn.modules.module.register_module_forward_hook(noted)
    try:
        record = upstream.run(with_training(experiment, precision="bfloat16"), upstream_key(experiment))
    finally:
        handle.remove()
    assert seen == {True: {torch.bfloat16}, False: {torch.float32}}
    assert {value.dtype for value in file_of(experiment, upstream_key(experiment)).values()} == {torch.float32}
    assert record.sparsity.measured == pytest.approx(0.8, abs=1e-3)
    shutil.rmtree(run_folder(experiment, upstream_key(experiment)))


def test_checkpoints_come_by_the_clock(experiment, interrupted_at):
    by_clock = with_training(experiment, checkpoint_steps=None, checkpoint_minutes=1e-9)
    with interrupted_at(5):
        upstream.run(by_clock, upstream_key(experiment))
    found = {p.name for p in checkpoint_folder(experiment, upstream_key(experiment)).glob("checkpoint-*")}
    assert found == {"checkpoint-3", "checkpoint-4"}
    rarely = with_training(experiment, checkpoint_steps=None, checkpoint_minutes=60)
    shutil.rmtree(checkpoint_folder(experiment, upstream_key(experiment)))
    with interrupted_at(5):
        upstream.run(rarely, upstream_key(experiment))
    assert not list(checkpoint_folder(experiment, upstream_key(experiment)).glob("checkpoint-*"))


def test_a_batch_is_shared_out_or_refused():
    training = load_experiment_training(batch_size=32, gradient_accumulation=8)
    assert [share_of_batch(training, n) for n in (1, 2, 8)] == [(32, 8), (32, 4), (32, 1)]
    assert share_of_batch(load_experiment_training(batch_size=32), 4) == (8, 1)
    with pytest.raises(UserError, match="3 processes cannot share a batch of 32 x 8"):
        share_of_batch(training, 3)


def load_experiment_training(**settings):
    from obert.experiment.recipe import Training

    return Training(epochs=1, learning_rate={"initial": 1e-4}, **settings)


def test_two_processes_train_as_one(root, tmp_path, monkeypatch):
    """The command line under torchrun: without dropout, two processes and one end with the same model."""
    for name in ("configs", "tests/data"):
        shutil.copytree(root / name, tmp_path / name)
    settings = tmp_path / "tests/data/tiny_bert/config.json"
    settings.write_text(settings.read_text().replace('dropout_prob": 0.1', 'dropout_prob": 0.0'))
    content = yaml.safe_load((tmp_path / "configs/smoke.yaml").read_text())
    content["upstream"]["options"]["train_examples"] = 230
    content["recipe_overrides"] = {"mlm": {"smoke_upstream": {"training": {"gradient_accumulation": 2, "epochs": 0.9}}}}
    (tmp_path / "configs/smoke.yaml").write_text(yaml.safe_dump(content))
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}

    def run(stage, *launcher):
        command = [sys.executable, "-m", *launcher, "obert", stage, "--config", "configs/smoke.yaml"]
        chosen = ["--method", "obert"] if stage == "upstream" else []
        done = subprocess.run([*command, *chosen], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    monkeypatch.chdir(tmp_path)
    run("upstream_teacher")
    run("upstream")
    smoke = load_experiment("configs/smoke.yaml")
    folder = run_folder(smoke, upstream_key(smoke))
    one = load_file(folder / "model/model.safetensors")
    expected = read_record(folder / "metrics.json")
    shutil.rmtree(folder)
    said = run("upstream", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m")
    assert said.count("masked_accuracy") == 1  # one of them makes the record
    record = read_record(folder / "metrics.json")
    assert record.costs["optimizer_steps"] == expected.costs["optimizer_steps"]
    for name, value in load_file(folder / "model/model.safetensors").items():
        torch.testing.assert_close(value, one[name], atol=2e-5, rtol=0, msg=name)
    assert record.metrics["perplexity"].value == pytest.approx(expected.metrics["perplexity"].value, rel=1e-4)
