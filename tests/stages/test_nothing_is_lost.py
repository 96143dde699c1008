"""What follows training may fail anywhere: the run is complete, or the same command completes it without training."""

import itertools
import shutil
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import yaml
from planned import made, make, results_in
from safetensors.torch import load_file
from test_methods_in_training import RECIPE, with_recipe

from obert.commands import cli
from obert.experiment.plan import Plan
from obert.foundation import files
from obert.masks import counts
from obert.models import encoders
from obert.records import record, recording
from obert.stages import _trained
from obert.tracking import mirror, store
from obert.training import prediction
from obert.training.pruner import Pruner
from obert.training.trainer import CompressionTrainer

KINDS = (RuntimeError, ImportError, SystemExit, OSError, KeyboardInterrupt)
# What runs when training is over, as the command line has it.
FOLLOWING = (
    _trained.record_trained,
    _trained._costs,
    _trained._as_csv,
    CompressionTrainer.curves,
    prediction.predict_logits,
    counts.count_zeros,
    counts.assert_sparsity,
    encoders.prunable_weights,
    encoders.save,
    files.write_text,
    files.file_hash,
    recording.Recording.finish,
    recording.Recording._record,
    record.as_json,
    record.write_record,
    mirror.mirror_run,
    mirror._write,
    mirror._params,
    mirror._tags,
    mirror._final_metrics,
    mirror._curve_metrics,
    store.experiment_id,
    store.find_runs,
)


def lines_of(function):
    """A function's lines that do something."""
    code = function.__code__
    return sorted({line for _, _, line in code.co_lines() if line and line > code.co_firstlineno})


def cases():
    """Every call fails, in every run of the tests; every line, in the slow ones."""
    for function in (*FOLLOWING, cli._run_stage):
        first, *others = lines_of(function)
        marks = [] if function is cli._run_stage else [pytest.mark.slow]
        yield pytest.param(function, first, id=function.__name__)
        for i, line in enumerate(others, start=2):
            yield pytest.param(function, line, id=f"{function.__name__}, line {i}", marks=marks)


@contextmanager
def failing_at(function, line, kind):
    """A block in which a function fails once, before it does what stands in a line, that is after the line before."""
    failed = []

    def within(frame, event, _):
        if event == "line" and frame.f_lineno == line and not failed:
            failed.append(True)
            raise kind(f"injected before line {line} of {function.__name__}")
        return within

    def of_frame(frame, *_):
        return within if frame.f_code is function.__code__ else None

    before = sys.gettrace()
    sys.settrace(of_frame)
    try:
        yield failed
    finally:
        sys.settrace(before)


@pytest.fixture
def work(monkeypatch):
    """Counts of optimiser steps and pruning events."""
    done = {"steps": 0, "events": 0}
    step, prune = CompressionTrainer.training_step, Pruner.prune

    def counted_step(self, *arguments, **options):
        done["steps"] += 1
        return step(self, *arguments, **options)

    def counted_event(self, *arguments, **options):
        done["events"] += 1
        return prune(self, *arguments, **options)

    monkeypatch.setattr(CompressionTrainer, "training_step", counted_step)
    monkeypatch.setattr(Pruner, "prune", counted_event)
    return done


def snakemake_deletes_outputs(run):
    """What becomes of the outputs of a failed job."""
    shutil.rmtree(run.folder, ignore_errors=True)


def weights_of(run):
    [file] = (run.folder / "model").glob("*.safetensors")  # of another name where the model is quantised
    return load_file(file)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name, value in found.items() if not value.equal(expected[name])] == []


def gradual(plan, method):
    return with_recipe(plan, RECIPE).find("downstream", method=method, seed=0)


RUNS = {
    "teacher": lambda plan: plan.teacher("city_qa"),
    "gradual": lambda plan: gradual(plan, "obert"),
    "learned scores": lambda plan: gradual(plan, "soft_movement"),
    "one-shot": lambda plan: plan.find("downstream", recipe="smoke_one_shot", method="obert"),
    "upstream": lambda plan: plan.find("upstream", recipe="smoke_upstream", method="prune_ofa"),
    "transfer": lambda plan: plan.find(
        "transfer", task="city_qa", recipe="smoke_transfer@smoke_upstream", method="obert"
    ),
    "quantize": lambda plan: plan.find("quantize", recipe="smoke_quantize@smoke_gradual", method="obert"),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_whose_evaluation_fails_is_completed_without_training_again(plan, monkeypatch, work, name):
    run = RUNS[name](plan)
    for source in (*itertools.chain(*(s.made_from for s in run.made_from)), *run.made_from):
        made(source)
    whole = make(run)
    expected, curves = weights_of(run), run.folder / "curves.csv"
    steps = curves.read_text() if curves.is_file() else ""
    done = dict(work)

    def broken(*_):
        raise ZeroDivisionError("a metric that fails")

    with monkeypatch.context() as patch:
        patch.setattr(type(run.task), "score", broken)
        with pytest.raises(ZeroDivisionError):
            make(run)
    assert work != done  # it was trained, or pruned, a second time
    snakemake_deletes_outputs(run)
    done = dict(work)
    again = make(run)
    assert work == done
    assert_same(weights_of(run), expected)
    assert again.metrics == whole.metrics
    assert again.sparsity == whole.sparsity
    assert (curves.read_text() if curves.is_file() else "") == steps
    for cost in ("optimizer_steps", "gradient_evaluations"):
        assert again.costs[cost] == whole.costs[cost]
    assert (again.costs["pruning_seconds"] > 0) == bool(again.details["events"])
    assert again.costs["training_seconds"] > 0 or run.recipe.is_one_shot
    assert not run.checkpoints.exists()


def test_checkpoints_by_time_alone_end_with_one_at_the_last_step(plan, monkeypatch):
    run = plan.teacher("movie_reviews")
    assert run.recipe.training.checkpoint_steps is None and run.recipe.training.checkpoint_minutes > 1
    run.stage.run(run)
    (checkpoint,) = run.checkpoints.iterdir()
    assert checkpoint.name == "checkpoint-6"
    assert not (checkpoint / "optimizer.pt").exists()  # no step follows
    run.drop_checkpoints()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, initialized):
    """A gradual run on the command line, with its checkpoint of the last step and the weights that it ends with."""
    folder = tmp_path_factory.mktemp("trained")
    root = Path(__file__).parents[2]
    content = yaml.safe_load((root / "configs/smoke.yaml").read_text(encoding="utf-8"))
    content["tracking_uri"] = f"sqlite:///{folder}/tracking/mlflow.db"
    (folder / "tracking").mkdir()
    shutil.copy(initialized, folder / "tracking")
    (folder / "smoke.yaml").write_text(yaml.safe_dump(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        results_in(folder / "results", patch)
        plan = Plan.load(folder / "smoke.yaml")
        run = plan.find("downstream", task="movie_reviews", recipe="smoke_gradual", method="magnitude")
        plan.teacher("movie_reviews").stage.run(plan.teacher("movie_reviews"))
        run.stage.run(run)
        yield run, folder / "smoke.yaml", weights_of(run), shutil.copytree(run.checkpoints, folder / "kept")


@pytest.fixture
def command(trained, root, monkeypatch):
    """Runs the command line on that run, which has been trained and not evaluated."""
    run, config, _, kept = trained
    results_in(config.parent / "results", monkeypatch)
    snakemake_deletes_outputs(run)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    shutil.copytree(kept, run.checkpoints)
    return lambda: cli.main(["downstream", "--config", str(config), *run.key.arguments.split()])


@pytest.mark.parametrize(("function", "line"), list(cases()))
def test_a_failure_after_any_line_loses_nothing(trained, command, work, function, line):
    run, _, expected, _ = trained
    status = None
    with failing_at(function, line, KINDS[line % len(KINDS)]) as failed, suppress(*KINDS):
        status = command()
    assert failed or line != lines_of(function)[0]
    if status != 0:
        assert run.checkpoints.is_dir()
        snakemake_deletes_outputs(run)
        assert command() == 0
    assert work == {"steps": 0, "events": 0}
    found = record.read_record(run.folder / "metrics.json")
    assert [name for name in found.files if not (run.folder / name).exists()] == []
    assert_same(weights_of(run), expected)
    assert not run.checkpoints.exists()


def test_lines_fail_where_they_should(trained, command, capsys):
    """The tracer does what the test above relies on, before the record and after it."""
    run = trained[0]
    first = lines_of(record.write_record)[0]
    with failing_at(record.write_record, first, RuntimeError) as failed, pytest.raises(RuntimeError, match="injected"):
        command()
    assert failed and not (run.folder / "metrics.json").exists()
    last = lines_of(mirror._write)[-1]
    with failing_at(mirror._write, last, ImportError) as failed:
        assert command() == 0
    assert failed and (run.folder / "metrics.json").exists()
    said = capsys.readouterr().err
    assert "the run is complete, but not in MLflow" in said and "injected" in said


def test_scores_and_predictions_of_any_kind_are_kept(plan, monkeypatch):
    """A correlation of constant predictions is not a number, and metrics' libraries return numpy's numbers."""
    run = plan.teacher("movie_reviews")
    score = type(run.task).score

    def unusual(self, predictions, examples):
        found = score(self, predictions, examples)
        for line in predictions:
            line |= {"score": np.float32(line["score"]), "all": np.arange(2), "raw": b"\x01"}
        return found | {"pearson": record.Score(value=float("nan"), count=np.int64(3))}

    monkeypatch.setattr(type(run.task), "score", unusual)
    make(run)
    found = record.read_record(run.folder / "metrics.json")
    assert np.isnan(found.metrics["pearson"].value) and found.metrics["pearson"].count == 3
    assert '"all": [0, 1], "raw": "01"' in (run.folder / "predictions.jsonl").read_text()


def test_what_a_record_cannot_hold_is_found_before_training(plan, monkeypatch, work):
    monkeypatch.setattr("obert.records.recording.environment", lambda: "no mapping")
    with pytest.raises(ValueError, match="environment"):
        make(plan.teacher("movie_reviews"))
    assert work["steps"] == 0
