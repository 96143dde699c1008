"""What happens before any task, on the smoke model: pruned upstream, cut, transferred with its zeros held."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from planned import changed, made, make, upstream_teacher
from safetensors.torch import load_file
from samples import HEADS
from transformers import AutoConfig

from obert.experiment.plan import Plan
from obert.experiment.recipe import Training
from obert.foundation.errors import UserError
from obert.masks.holding import FixedPattern
from obert.models.encoders import load_trained, prunable_weights
from obert.records.record import read_record
from obert.training.trainer import share_of_batch

TASK = "movie_reviews"


@pytest.fixture
def plan(plan):
    """The plan of the smoke experiment, with its teachers trained, the upstream one too."""
    made(upstream_teacher(plan))
    return plan


def upstream_run(plan, method="obert"):
    return plan.find("upstream", recipe="smoke_upstream", method=method)


def transfer_run(plan, method="obert", task=TASK):
    return plan.find("transfer", recipe="smoke_transfer@smoke_upstream", method=method, task=task)


def file_of(run):
    return load_file(run.folder / "model" / "model.safetensors")


def zeros_of(run, head):
    weights = prunable_weights(load_trained(run.folder / "model", head))
    return {name: weight == 0 for name, weight in weights.items()}


def test_the_teacher_learns_and_its_head_is_tied(plan):
    run = upstream_teacher(plan)
    record = read_record(run.folder / "metrics.json")
    assert record.metrics.keys() == {"masked_accuracy", "perplexity"}
    network = load_trained(run.folder / "model", HEADS["masked_language_model"])
    assert record.metrics["perplexity"].value < network.config.vocab_size  # which a uniform guess has
    assert network.get_output_embeddings().weight is network.get_input_embeddings().weight


@pytest.mark.parametrize("method", ["obert", "prune_ofa"])
def test_pruned_upstream_is_exact_and_says_what_it_is_from(plan, method):
    record = made(upstream_run(plan, method))
    zeros = zeros_of(upstream_run(plan, method), HEADS["masked_language_model"])
    size = sum(z.numel() for z in zeros.values())
    assert sum(int(z.sum()) for z in zeros.values()) == round(0.8 * size)
    assert record.inputs.keys() == {str(upstream_teacher(plan).key.path)}


@pytest.mark.parametrize("method", ["obert", "prune_ofa"])
@pytest.mark.parametrize("task", ["movie_reviews", "city_qa"])
def test_transfer_keeps_every_zero_of_the_upstream_model(plan, method, task):
    source, run = upstream_run(plan, method), transfer_run(plan, method, task)
    made(source)
    record = made(run)
    head = {"movie_reviews": HEADS["sequence_classification"], "city_qa": HEADS["question_answering"]}[task]
    before, after = zeros_of(source, HEADS["masked_language_model"]), zeros_of(run, head)
    assert before.keys() == after.keys()
    assert all(not (before[name] & ~after[name]).any() for name in before)
    assert record.sparsity.target == 0.8
    count = sum(int(zeros.sum()) for zeros in before.values())
    assert record.details["pattern"] == {"zeros_before": count, "zeros_kept": count}
    dense_teacher = plan.teacher(task)
    assert record.inputs.keys() == {str(source.key.path), str(dense_teacher.key.path)}
    name = "bert.encoder.layer.0.output.dense.weight"
    assert not torch.equal(file_of(run)[name], file_of(source)[name])  # it has trained


def test_a_lost_zero_ends_the_run(plan, monkeypatch):
    made(upstream_run(plan))
    monkeypatch.setattr(FixedPattern, "hold", lambda self, weights: None)
    with pytest.raises(RuntimeError, match="are zero upstream and are not zero any more"):
        make(transfer_run(plan))
    shutil.rmtree(transfer_run(plan).checkpoints)


def test_the_dense_model_is_transferred_by_the_same_code(plan):
    run = plan.find("transfer", recipe="smoke_transfer@smoke_masked_language_model", task=TASK)
    record = made(run)
    assert record.sparsity is None
    assert str(upstream_teacher(plan).key.path) in record.inputs


def test_the_pretrained_model_can_be_transferred_as_it_is(plan):
    block = {"recipe": "smoke_transfer", "upstream": ["pretrained"], "tasks": [TASK], "seeds": [7]}
    content = plan.experiment.model_dump()
    content["upstream"]["transfer"] = [block]
    transferred = Plan.of(type(plan.experiment).model_validate(content))
    (run,) = transferred.of_stage("transfer")
    assert (run.key.recipe, run.key.seed) == ("smoke_transfer@pretrained", 7)
    record = make(run)
    assert record.inputs.keys() == {str(transferred.teacher(TASK).key.path)}


def test_layers_are_dropped_then_pruned_on_a_task(plan):
    source = plan.find("upstream", recipe="smoke_keep_1_layer")
    record = made(source)
    assert record.model["layers"] == 1
    folder = source.folder / "model"
    assert AutoConfig.from_pretrained(folder).num_hidden_layers == 1
    run = plan.find("downstream", recipe="smoke_gradual_fewer_layers@smoke_keep_1_layer")
    pruned = make(run)
    assert pruned.model["layers"] == 1
    assert pruned.sparsity.measured == pytest.approx(0.8, abs=1e-3)
    assert pruned.inputs.keys() == {str(source.key.path), str(plan.teacher(TASK).key.path)}


def test_the_kept_layer_is_the_one_that_the_recipe_names(plan, monkeypatch):
    started = {}

    def no_training(recording, prepared, teacher=None, **rest):
        started.update({name: value.clone() for name, value in prepared.network.state_dict().items()})
        raise UserError("enough")

    monkeypatch.setattr("obert.stages._trained.train", no_training)
    with pytest.raises(UserError, match="enough"):
        make(plan.find("upstream", recipe="smoke_keep_1_layer"))
    teacher = file_of(upstream_teacher(plan))
    for part in ("attention.self.query.weight", "output.dense.bias"):
        assert torch.equal(started[f"bert.encoder.layer.0.{part}"], teacher[f"bert.encoder.layer.1.{part}"])


@pytest.mark.parametrize("method", ["obert", "prune_ofa"])
@pytest.mark.parametrize("step", [14, *(pytest.param(step, marks=pytest.mark.slow) for step in (3, 25))])
def test_upstream_interrupted_and_run_again_equals_uninterrupted(plan, interrupted_at, method, step):
    run = upstream_run(plan, method)
    whole = made(run)
    expected = file_of(run)
    with interrupted_at(step):
        make(run)
    assert list(run.checkpoints.glob("checkpoint-*"))
    again = make(run)
    for name, value in file_of(run).items():
        assert torch.equal(value, expected[name]), name
    assert again.metrics == whole.metrics


def test_transfer_interrupted_and_run_again_equals_uninterrupted(plan, interrupted_at):
    run = transfer_run(plan)
    made(upstream_run(plan))
    whole = made(run)
    expected = file_of(run)
    with interrupted_at(4):
        make(run)
    again = make(run)
    assert all(torch.equal(value, expected[name]) for name, value in file_of(run).items())
    assert again.metrics == whole.metrics


def with_training(plan, **training):
    """The smoke experiment with settings of its upstream runs changed."""
    overrides = {"mlm": {"smoke_upstream": {"training": training}}}
    return changed(plan, recipe_overrides=overrides)


def test_bfloat16_is_for_training_alone(plan):
    """Products of training are in bfloat16; pruning's gradients and the evaluation are not, the weights never."""
    seen = {True: set(), False: set()}

    def noted(module, arguments, outputs):
        if isinstance(module, torch.nn.Linear):
            seen[torch.is_autocast_enabled("cpu")].add(outputs.dtype)

    handle = torch.nn.modules.module.register_module_forward_hook(noted)
    try:
        record = make(upstream_run(with_training(plan, precision="bfloat16")))
    finally:
        handle.remove()
    assert seen == {True: {torch.bfloat16}, False: {torch.float32}}
    assert {value.dtype for value in file_of(upstream_run(plan)).values()} == {torch.float32}
    assert record.sparsity.measured == pytest.approx(0.8, abs=1e-3)
    shutil.rmtree(upstream_run(plan).folder)


def test_checkpoints_come_by_the_clock(plan, interrupted_at):
    by_clock = with_training(plan, checkpoint_steps=None, checkpoint_minutes=1e-9)
    with interrupted_at(5):
        make(upstream_run(by_clock))
    found = {p.name for p in upstream_run(plan).checkpoints.glob("checkpoint-*")}
    assert found == {"checkpoint-3", "checkpoint-4"}
    rarely = with_training(plan, checkpoint_steps=None, checkpoint_minutes=60)
    shutil.rmtree(upstream_run(plan).checkpoints)
    with interrupted_at(5):
        make(upstream_run(rarely))
    assert not list(upstream_run(plan).checkpoints.glob("checkpoint-*"))


def test_a_batch_is_shared_out_or_refused():
    training = training_of(batch_size=32, gradient_accumulation=8)
    assert [share_of_batch(training, n) for n in (1, 2, 8)] == [(32, 8), (32, 4), (32, 1)]
    assert share_of_batch(training_of(batch_size=32), 4) == (8, 1)
    with pytest.raises(UserError, match="3 processes cannot share a batch of 32 x 8"):
        share_of_batch(training, 3)


def training_of(**settings):
    return Training(epochs=1, learning_rate={"initial": 1e-4}, **settings)


@pytest.mark.slow
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
    smoke = Plan.load("configs/smoke.yaml")
    folder = upstream_run(smoke).folder
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
