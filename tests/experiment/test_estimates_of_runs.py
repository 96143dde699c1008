"""What runs are expected to take, by records that are made up and figures that are worked out by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from obert.experiment.estimates import (
    ALIKE,
    RATE,
    START,
    STEPS,
    TARGET,
    WORK,
    Estimates,
    in_words,
    seconds_left,
)
from obert.experiment.plan import Plan
from obert.experiment.resources import expected_seconds, operations
from obert.experiment.sizes import DataSize, ModelSize, Sizes

TASK = "movie_reviews"
FEATURES = 96  # in batches of 16, six steps an epoch
DOWNSTREAM = [
    {"recipes": ["smoke_gradual"], "methods": ["obert"], "tasks": [TASK], "sparsities": [0.75, 0.8], "seeds": [0, 1]},
    {"recipes": ["smoke_one_shot"], "methods": ["magnitude"], "tasks": [TASK], "sparsities": [0.8]},
]


@pytest.fixture
def plan(root, tmp_path, monkeypatch):
    """The plan of a small experiment, nothing of which is there."""
    monkeypatch.setattr("obert.experiment.folders.RESULTS", tmp_path / "results")
    content = yaml.safe_load(Path("configs/smoke.yaml").read_text(encoding="utf-8"))
    for section in ("upstream", "quantize", "benchmark"):
        del content[section]
    path = tmp_path / "edited.yaml"
    path.write_text(yaml.safe_dump(content | {"downstream": DOWNSTREAM}))
    return Plan.load(str(path))


def finish(run, seconds, steps=0, memory=1000.0, folder=None, spec=None, **fields):
    """Write the record of a run that took so long."""
    made = {
        "spec": spec or json.loads(json.dumps(run.specification)),
        "spec_hash": run.specification_hash,
        "code_hash": "0" * 16,
        "inputs": {},
        "wall_time_seconds": seconds,
        "peak_memory_mb": memory,
        "environment": {"gpu": None},
        "costs": {"optimizer_steps": steps},
        "data": {"features": {"train": FEATURES}},
        **fields,
    }
    path = (folder or run.folder) / "metrics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(made))
    return path


def gradual(plan, sparsity, seed):
    return plan.find("downstream", recipe="smoke_gradual", sparsity=sparsity, seed=seed)


def count(plan):
    """What a check counts: 16,384 weights, and sequences of 20 tokens."""
    sizes, run = Sizes(), plan.teacher(TASK)
    parts = {"encoder": {"layer.0.weight": 16384}, "embeddings": {}, "head": {}}
    sizes.add_model(
        run.model,
        ModelSize(
            parameters=30000,
            multiplied=16384,
            layers=2,
            hidden=32,
            feed_forward=64,
            heads=2,
            vocabulary=100,
            parts=parts,
        ),
    )
    sizes.add_data(run, DataSize(train=FEATURES, validation=48, sequences=1, tokens=20.0, longest=32))
    sizes.save(plan.experiment)


def stated(run, **changes):
    """Seconds of a run at the stated rates; with changes of its training."""
    if changes:
        recipe = run.recipe.model_copy(update={"training": run.recipe.training.model_copy(update=changes)})
        run = replace(run, recipe=recipe)
    return expected_seconds(operations(run, Sizes.of(run.experiment)), run, on_gpu=False)


def test_nothing_is_known_before_anything_is_counted(plan):
    estimates = Estimates(plan, on_gpu=False)
    assert all(estimates[run] is None for run in plan)
    assert estimates.steps_of(gradual(plan, 0.75, 0)) is None


def test_another_seed_says_most(plan):
    finish(gradual(plan, 0.75, 0), 100.0, steps=60, memory=900)
    finish(gradual(plan, 0.8, 0), 300.0, steps=60, memory=1200)
    found = Estimates(plan, on_gpu=False)
    same, other = found[gradual(plan, 0.75, 1)], found[gradual(plan, 0.8, 1)]
    assert (same.seconds, same.memory_mb, same.basis, same.count) == (100, 900, ALIKE, 1)
    assert (other.seconds, other.basis) == (300, ALIKE)


def test_then_another_target(plan):
    finish(gradual(plan, 0.75, 0), 100.0, steps=60)
    finish(gradual(plan, 0.75, 1), 140.0, steps=60)
    found = Estimates(plan, on_gpu=False)[gradual(plan, 0.8, 1)]
    assert (found.seconds, found.basis, found.count) == (120, TARGET, 2)


def test_then_the_pace_of_another_experiments_steps(plan, tmp_path):
    """Half as many epochs with another schedule, on the same task and model: 3 s a step."""
    run = gradual(plan, 0.8, 0)
    spec = json.loads(json.dumps(run.specification))
    own = Estimates(plan, on_gpu=False)
    spec["recipe"]["training"]["epochs"] /= 2
    spec["recipe"]["schedule"]["end_epoch"] /= 2
    elsewhere = tmp_path / "results/runs/other" / run.key.path
    path = finish(run, 90.0, steps=30, folder=elsewhere, spec=spec, spec_hash="other")
    own.update()
    steps = own.steps_of(run)
    assert steps == round(6 * run.recipe.training.epochs)
    assert (own[run].seconds, own[run].basis) == (pytest.approx(3 * steps), STEPS)
    spec["threads"] += 1
    finish(run, 90.0, steps=30, folder=elsewhere, spec=spec, spec_hash="other")
    assert path.exists() and Estimates(plan, on_gpu=False)[run] is None


def test_then_the_work_of_this_experiments_runs(plan):
    count(plan)
    teacher, run = plan.teacher(TASK), gradual(plan, 0.8, 0)
    finish(teacher, 50.0, steps=18)
    found = Estimates(plan, on_gpu=False)[run]
    assert found.seconds == pytest.approx(START + (50 - START) * stated(run) / stated(teacher))
    assert (found.basis, found.count) == (WORK, 1)


def test_of_these_those_of_the_same_stage_come_first(plan):
    """A teacher takes twice as long as at the stated rates, and a pruned model four times."""
    count(plan)
    teacher, made, run = plan.teacher(TASK), gradual(plan, 0.8, 0), plan.find("downstream", recipe="smoke_one_shot")
    finish(teacher, START + 2 * stated(teacher), steps=18)
    finish(made, START + 4 * stated(made), steps=18)
    found = Estimates(plan, on_gpu=False)[run]
    assert (found.seconds, found.basis, found.count) == (pytest.approx(START + 4 * stated(run)), WORK, 1)


def test_then_a_stated_rate(plan):
    count(plan)
    run = gradual(plan, 0.8, 0)
    found = Estimates(plan, on_gpu=False)[run]
    assert (found.seconds, found.basis) == (START + stated(run), RATE)
    # forward of 20 tokens through 16,384 weights, once for each feature of validation, and four times for each of a
    # step's 16; nobody predicts the training data
    work = operations(run, Sizes.of(plan.experiment))
    assert work.passes == 2 * 16384 * 20 * (48 + 4 * 16 * round(6 * run.recipe.training.epochs))
    assert stated(run) == pytest.approx(work.passes / 50e9 + work.events / 20e9) and work.events > 0
    assert stated(run, precision="bfloat16") == pytest.approx(work.passes / 100e9 + work.events / 20e9)


def test_what_is_expected_of_an_experiment_is_near_to_what_it_took(root, tmp_path, monkeypatch):
    """143 runs took 2.5 to 3.5 hours on two cores. Where nothing has run, half and twice as much are near."""
    monkeypatch.setattr("obert.experiment.folders.RESULTS", tmp_path / "results")
    plan, sizes, width = Plan.load("configs/real_tasks.yaml"), Sizes(), 384**2
    matrices = {"query": width, "key": width, "value": width, "output": width, "up": 4 * width, "down": 4 * width}
    encoder = {f"{layer}.{name}.weight": size for layer in range(6) for name, size in matrices.items()}
    six_layers = ModelSize(
        parameters=22_713_216,
        multiplied=sum(encoder.values()),
        layers=6,
        hidden=384,
        feed_forward=1536,
        heads=12,
        vocabulary=30522,
        parts={"encoder": encoder, "embeddings": {}, "head": {}},
    )
    for task, train, validation, tokens in (("sst2", 16_000, 872, 13.4), ("stsb", 5743, 1500, 27.5)):
        sizes.add_model(plan.teacher(task).model, six_layers)
        data = DataSize(train=train, validation=validation, sequences=1, tokens=tokens, longest=64)
        sizes.add_data(plan.teacher(task), data)
    sizes.save(plan.experiment)
    estimates = Estimates(plan, on_gpu=False)
    assert {estimates[run].basis for run in plan} == {RATE}
    hours = seconds_left({run: estimates[run].seconds for run in plan}, cores=2, gpus=0) / 3600
    assert 3.5 / 2 < hours < 2 * 2.5


def test_a_run_on_another_kind_of_machine_does_not_count(plan):
    finish(gradual(plan, 0.75, 0), 10.0, steps=60, environment={"gpu": "A100"}, spec_hash="other")
    assert Estimates(plan, on_gpu=False)[gradual(plan, 0.75, 1)] is None
    assert Estimates(plan, on_gpu=True)[gradual(plan, 0.75, 1)].seconds == 10


def test_an_experiment_goes_on_on_the_machines_that_it_began_on(plan):
    finish(gradual(plan, 0.75, 0), 10.0, steps=60, environment={"gpu": "A100"})
    assert Estimates(plan, on_gpu=False)[gradual(plan, 0.75, 1)].seconds == 10, "asked on a login node"


def test_what_a_job_took_counts_imports(plan, tmp_path):
    run = gradual(plan, 0.75, 0)
    finish(run, 10.0, steps=60)
    job = tmp_path / "results/benchmarks/smoke" / f"{run.key.path}.jsonl"
    job.parent.mkdir(parents=True)
    job.write_text('{"s": 17.5}\n')
    assert Estimates(plan, on_gpu=False)[gradual(plan, 0.75, 1)].seconds == 17.5


def test_a_run_that_was_resumed_counts_whole(plan):
    costs = {"optimizer_steps": 60, "training_seconds": 80.0, "pruning_seconds": 40.0}
    finish(gradual(plan, 0.75, 0), 30.0, costs=costs)
    assert Estimates(plan, on_gpu=False)[gradual(plan, 0.75, 1)].seconds == 120


def test_a_record_that_cannot_be_read_is_left_to_others(plan):
    path = finish(gradual(plan, 0.75, 0), 100.0)
    path.write_text("{")
    estimates = Estimates(plan, on_gpu=False)
    assert estimates[gradual(plan, 0.75, 1)] is None and estimates.cost_of(gradual(plan, 0.75, 0)) is None


def test_what_is_finished_later_is_read_then(plan):
    estimates = Estimates(plan, on_gpu=False)
    finish(gradual(plan, 0.75, 0), 100.0, steps=60)
    assert estimates[gradual(plan, 0.75, 1)] is None
    estimates.update()
    assert estimates[gradual(plan, 0.75, 1)].seconds == 100


def test_runs_share_cores_and_wait_for_what_they_are_made_from(plan):
    """A teacher of 60 s, and four gradual runs of 100 s each that start from the pre-trained model with it."""
    pending = {plan.teacher(TASK): 60.0} | {gradual(plan, s, k): 100.0 for s in (0.75, 0.8) for k in (0, 1)}
    assert plan.experiment.threads == 1
    assert seconds_left(pending, cores=1, gpus=0) == 460
    assert seconds_left(pending, cores=2, gpus=0) == 230
    assert seconds_left(pending, cores=64, gpus=0) == 160, "behind one another"
    assert seconds_left(pending, cores=64, gpus=2) == 230, "each takes a GPU"
    assert seconds_left({}, cores=2, gpus=0) == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (2e5, "2.3 days")],
)
def test_durations_are_for_people(seconds, text):
    assert in_words(seconds) == text
