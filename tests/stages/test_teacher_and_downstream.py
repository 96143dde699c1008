"""Training and pruning on the smoke model: exact sparsity, masks that hold, records, and resume that equals."""

import csv
import json

import pytest
import torch
from planned import changed, make
from safetensors.torch import load_file
from samples import HEADS
from transformers import TrainerCallback

from obert.foundation import registry
from obert.foundation.errors import UserError
from obert.models.encoders import load_tokenizer, load_trained, prunable_weights
from obert.pruning.shared.training_hooks import TrainingHook
from obert.records.record import read_record
from obert.training.checkpoints import MARKER, latest_checkpoint
from obert.training.gradual import GradualPruning
from obert.training.pruner import Pruner
from obert.training.trainer import CompressionTrainer

TASKS = ("movie_reviews", "city_qa")


def gradual_run(plan, task="movie_reviews", method="obert"):
    return plan.find("downstream", task=task, recipe="smoke_gradual", method=method)


def weights_of(run):
    return load_file(run.folder / "model" / "model.safetensors")


@pytest.mark.parametrize("task", TASKS)
def test_teacher_learns_and_records(plan, task):
    run = plan.teacher(task)
    record = read_record(run.folder / "metrics.json")
    assert record.primary_metric in record.metrics
    assert record.sparsity is None
    assert record.data["splits"]["train"] == {"movie_reviews": 96, "city_qa": 64}[task]
    lines = (run.folder / "predictions.jsonl").read_text().splitlines()
    scores = [json.loads(line)["score"] for line in lines]
    assert len(scores) == record.metrics[record.primary_metric].count
    assert sum(scores) / len(scores) == pytest.approx(record.metrics[record.primary_metric].value)


@pytest.mark.parametrize("task", TASKS)
def test_a_teacher_keeps_the_logits_that_students_are_compared_with(plan, task):
    run = plan.teacher(task)
    assert "teacher_logits.jsonl" in read_record(run.folder / "metrics.json").files
    rows = [json.loads(line) for line in (run.folder / "teacher_logits.jsonl").read_text().splitlines()]
    examples = run.task.load()["validation"]
    assert {row["id"] for row in rows} <= set(examples["id"])
    network = load_trained(run.folder / "model", run.task.head)
    features = run.task.encode(examples, load_tokenizer(run.folder / "model"))
    for row in (rows[0], rows[-1]):
        feature = features[rows.index(row) * len(features) // len(rows)]
        inputs = {name: torch.tensor([feature[name]]) for name in ("input_ids", "attention_mask", "token_type_ids")}
        with torch.no_grad():
            found = network(**inputs)
        for name, (values,) in row["logits"].items():
            assert values == pytest.approx(found[name][0].tolist(), abs=1e-3)
    assert list(rows[0]["logits"]) == list(run.task.head.outputs)


@pytest.mark.parametrize(
    ("task", "recipe"),
    [("movie_reviews", "smoke_one_shot"), ("movie_reviews", "smoke_gradual"), ("city_qa", "smoke_gradual")],
)
def test_final_sparsity_is_exact_on_disk(plan, task, recipe):
    run = plan.find("downstream", task=task, recipe=recipe, method="magnitude")
    record = make(run)
    head = {"movie_reviews": HEADS["sequence_classification"], "city_qa": HEADS["question_answering"]}[task]
    weights = prunable_weights(load_trained(run.folder / "model", head))
    size = sum(w.numel() for w in weights.values())
    assert sum(int((w == 0).sum()) for w in weights.values()) == round(0.8 * size)
    assert record.sparsity.measured == pytest.approx(0.8, abs=1 / size)
    assert record.inputs.keys() == {str(plan.teacher(task).key.path)}


def test_every_method_prunes_in_one_shot(plan):
    """But for those that learn their scores in training."""
    runs = [run for run in plan.of_stage("downstream") if run.key.recipe == "smoke_one_shot"]
    assert {run.key.method for run in runs} == {*registry.names("pruning")} - {"movement", "platon", "soft_movement"}
    for run in runs:
        make(run)
        network = load_trained(run.folder / "model", HEADS["sequence_classification"])
        found = {n: (int((w == 0).sum()), w.numel()) for n, w in prunable_weights(network).items()}
        zeros, sizes = (sum(column) for column in zip(*found.values(), strict=True))
        if registry.load("pruning", run.key.method).compares_within:
            assert all(own == round(0.8 * size) for own, size in found.values()), run.key.method
        else:
            assert zeros == round(0.8 * sizes), run.key.method


def test_gradual_run_follows_its_schedules(plan):
    run = gradual_run(plan)
    record = make(run)
    # 96 examples in batches of 16 are 6 steps an epoch; events at epochs 0, 1, 2; 0.8 - 0.1 * (1 - x)^3
    assert [event["step"] for event in record.details["events"]] == [0, 6, 12]
    assert [event["sparsity"] for event in record.details["events"]] == pytest.approx([0.7, 0.7875, 0.8])
    with (run.folder / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 19))
    assert [float(row["sparsity"]) for row in rows] == pytest.approx([0.7] * 6 + [0.7875] * 6 + [0.8] * 6)
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates[0] == rates[6] == pytest.approx(1e-4)  # rewound at epoch 1
    assert rates[5] == rates[-1] == pytest.approx(1e-5)
    assert record.costs["gradient_evaluations"] == 3 * 32


class Watch(TrainerCallback):
    """Counts zeros after every optimiser step, when the Trainer's own callbacks are done."""

    def __init__(self, pruner: Pruner):
        self.pruner = pruner
        self.seen = []

    def on_step_end(self, args, state, control, **kwargs):
        weights = prunable_weights(self.pruner.network)
        zeros = sum(int((w == 0).sum()) for w in weights.values())
        self.seen.append((zeros, round(self.pruner.sparsity * sum(w.numel() for w in weights.values()))))


def test_masks_hold_after_every_optimizer_step(plan, monkeypatch):
    watches = []
    original = GradualPruning.__init__

    def watched(self, pruner, schedule):
        original(self, pruner, schedule)
        watches.append(Watch(pruner))

    monkeypatch.setattr(GradualPruning, "__init__", watched)
    train = CompressionTrainer.train

    def watched_train(self, **kwargs):
        self.add_callback(watches[0])
        return train(self, **kwargs)

    monkeypatch.setattr(CompressionTrainer, "train", watched_train)
    make(gradual_run(plan))
    assert len(watches[0].seen) == 18
    assert all(found == wanted for found, wanted in watches[0].seen)


@pytest.mark.parametrize("step", [4, 9, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 5, 11))])
def test_interrupted_at_any_step_and_run_again_equals_uninterrupted(plan, interrupted_at, step):
    run = gradual_run(plan, task="city_qa")
    whole = make(run)
    expected = weights_of(run)
    with interrupted_at(step):
        make(run)
    checkpoints = list(run.checkpoints.glob("checkpoint-*"))
    assert len(checkpoints) == min(2, (step - 1) // 2)
    again = make(run)
    for name, value in weights_of(run).items():
        assert torch.equal(value, expected[name]), name
    assert again.metrics == whole.metrics
    assert [e["sparsity"] for e in again.details["events"]] == [e["sparsity"] for e in whole.details["events"]]
    assert again.costs["gradient_evaluations"] == whole.costs["gradient_evaluations"]
    assert not run.checkpoints.exists()


def test_damaged_or_foreign_checkpoints_are_passed_over(tmp_path, caplog):
    for step, identity in ((2, "mine"), (4, "mine"), (6, "mine"), (8, "other")):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights").write_text("abc")
        digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # sha256 of "abc" (FIPS 180-2)
        if step != 6:
            (folder / MARKER).write_text(json.dumps({"identity": identity, "files": {"weights": digest}}))
    (tmp_path / "checkpoint-4" / "weights").write_text("abd")
    assert latest_checkpoint(tmp_path, "mine") == tmp_path / "checkpoint-2"
    for reason in ("another configuration", "not finished", "file weights is damaged"):
        assert reason in caplog.text


def test_methods_meet_the_same_data_in_the_same_order(plan, monkeypatch):
    orders = {}
    original = CompressionTrainer.compute_loss

    def noted(self, model, inputs, *rest, **kwargs):
        orders.setdefault(run.key.method, []).append(inputs["input_ids"].clone())
        return original(self, model, inputs, *rest, **kwargs)

    monkeypatch.setattr(CompressionTrainer, "compute_loss", noted)
    for method in ("magnitude", "obert"):
        run = gradual_run(plan, method=method)
        make(run)
    pairs = zip(orders["magnitude"], orders["obert"], strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    first_epoch, second_epoch = orders["obert"][:6], orders["obert"][6:12]
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first_epoch, second_epoch, strict=True))


def test_loss_that_is_not_finite_names_step_and_tensor(plan, monkeypatch):
    def poison(self, masks, at_target):
        next(iter(self.layers.values())).weight.data[0, 0] = float("nan")

    monkeypatch.setattr(TrainingHook, "after_step", poison)
    with pytest.raises(UserError, match=r"not finite at step 1: parameter 'bert\.encoder\.layer\.0"):
        make(gradual_run(plan, method="magnitude"))


def test_more_gradients_than_examples_end_before_training(plan):
    overrides = {"movie_reviews": {"smoke_gradual": {"methods": {"obert": {"num_gradients": 97}}}}}
    greedy = changed(plan, recipe_overrides=overrides)
    with pytest.raises(UserError, match="draws 97 training features, there are 96"):
        make(gradual_run(greedy))


def test_missing_teacher_is_named(plan, monkeypatch, tmp_path):
    monkeypatch.setattr("obert.experiment.folders.RESULTS", tmp_path)
    with pytest.raises(UserError, match=r"metrics\.json is missing"):
        make(plan.of_stage("downstream")[0])
