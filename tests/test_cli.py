"""The command line: one clear message and status 2 for a mistake, before anything is done."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from planned import finish
from tables.examples import record

from obert.commands.cli import main
from obert.experiment.plan import Plan
from obert.records import progress
from obert.records.listening import Listener
from obert.records.record import write_record


def fails(capsys, *arguments) -> str:
    assert main(list(arguments)) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def test_alone_it_lists_the_stages(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    assert {"upstream_teacher", "transfer", "sweep", "tables"} <= set(capsys.readouterr().out.split())


def test_check_says_what_it_found(config, capsys):
    assert main(["check", "--config", config()]) == 0
    found = capsys.readouterr().out
    assert "96 training examples (96 features) and 48 validation examples" in found
    assert " prunable" in found


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": {"source": "./nowhere"}}, ["./nowhere"]),
        ({"model": {"layers": [0, 2]}}, ["model.layers [0, 2]", "layers 0 to 1"]),
        ({"tasks": {"movie_reviews": {"source": "tests/data/nowhere"}}}, ["tests/data/nowhere"]),
        ({"tasks": {"movie_reviews": {"max_length": 129}}}, ["max_length 129", "at most 128 tokens"]),
        ({"benchmark": {"sequence_length": 129}}, ["benchmark.sequence_length 129", "positions for 128 tokens"]),
        (
            {"recipe_overrides": {"city_qa": {"smoke_gradual": {"methods": {"obert": {"num_gradients": 4000}}}}}},
            ["draws 4000 training features", "Lower the number of gradients"],
        ),
        (
            {"recipe_overrides": {"city_qa": {"smoke_gradual": {"schedule": {"every_epochs": 0.01}}}}},
            ["every_epochs 0.01 is less than one optimiser step"],
        ),
        (
            {"recipe_overrides": {"city_qa": {"smoke_gradual": {"methods": {"obert": {"fisher_block_size": 10**6}}}}}},
            ["a pruning event needs", "fisher_block_size"],
        ),
    ],
)
def test_check_stops_what_would_fail_later(config, capsys, changes, expected):
    message = fails(capsys, "check", "--config", config(**changes))
    for part in expected:
        assert part in message


def test_check_and_each_stage_look_at_the_data_first(config, capsys, tmp_path):
    """A validation label that is null is met after training, if nobody looks before."""
    for split, label in (("train", 0), ("validation", None)):
        rows = [{"sentence": f"film {i}", "label": i % 2} for i in range(8)] + [{"sentence": "fine", "label": label}]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    edited = config(tasks={"movie_reviews": {"source": str(tmp_path)}})
    expected = f"{tmp_path}/validation.jsonl, line 9, column 'label': is null. Allowed: a class"
    for command in (["check"], ["teacher", "--task", "movie_reviews"]):
        assert expected in fails(capsys, *command, "--config", edited)
    assert not [*(tmp_path / "results").rglob("model.safetensors")]


def test_check_stops_when_the_disk_is_too_small(config, capsys, monkeypatch):
    usage = shutil.disk_usage(".")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "disk:" in fails(capsys, "check", "--config", config())


def test_what_is_made_needs_no_more_disk(config, capsys, monkeypatch):
    """Who goes on with an experiment on a disk that its runs have filled is not turned away."""
    usage = shutil.disk_usage(".")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    written = config()
    for run in Plan.load(written):
        finish(run)
    assert main(["check", "--config", written]) == 0
    assert "disk: about 0.0 GB needed" in capsys.readouterr().out


def test_unknown_run_lists_the_possible_ones(config, capsys):
    message = fails(capsys, "downstream", "--config", config(), "--task", "movie_reviews", "--sparsity", "0.5")
    assert "names no run" in message
    assert "--recipe smoke_gradual --method obert --sparsity 0.8 --seed 0" in message


def test_a_sweep_is_told_apart_from_an_experiment(root, capsys):
    assert "Did you mean 'configs/sweeps/smoke.yaml'?" in fails(capsys, "sweep", "--config", "configs/sweeps/smok.yaml")
    assert "unknown key 'model'" in fails(capsys, "sweep", "--config", "configs/smoke.yaml")
    with pytest.raises(SystemExit):
        main(["sweep"])
    assert "--config" in capsys.readouterr().err


@pytest.mark.parametrize("option", [("--workers", "0"), ("--worker", "-1"), ("--workers", "many")])
def test_numbers_of_workers_that_cannot_be_are_refused(root, capsys, option):
    with pytest.raises(SystemExit):
        main(["sweep", "--config", "configs/sweeps/smoke.yaml", *option])
    assert option[0] in capsys.readouterr().err


def test_missing_teacher_is_named(config, capsys):
    arguments = ["--task", "movie_reviews", "--recipe", "smoke_one_shot", "--method", "magnitude"]
    message = fails(capsys, "downstream", "--config", config(), *arguments)
    assert "run the stage that makes it first" in message


def test_environments_are_made_for_the_engines_that_need_one(config, capsys, monkeypatch):
    monkeypatch.setattr("obert.foundation.environments.Environment.make", lambda self: f"no {self.library} here")
    assert main(["environment", "--config", config(benchmark={"engines": ["deepsparse", "onnxruntime"]})]) == 0
    assert capsys.readouterr().out == (
        "deepsparse: no environment, so the benchmark will skip it: no deepsparse here\n"
    )
    assert "Did you mean 'deepsparse'?" in fails(capsys, "environment", "--engine", "depsparse")


def test_a_run_that_another_process_makes_is_not_made_twice(config, capsys, monkeypatch):
    """Snakemake was killed with -9, its job goes on, and Snakemake is started again."""
    path = config()
    run = Plan.load(path).teacher("movie_reviews")
    monkeypatch.setattr(type(run.stage), "run", lambda *_: pytest.fail("a second process makes it"))
    afterwards = []
    for name in ("tracking.mirror.mirror_run", "report.model_card.write_model_card"):
        monkeypatch.setattr(f"obert.{name}", lambda *_, name=name: afterwards.append(name))
    other = progress.Telling(run.checkpoints / progress.FILE_NAME, Listener())
    hashes = {"spec_hash": run.specification_hash, "code_hash": run.code_hash}

    def complete(_):
        write_record(run.folder, record("teacher", 80.0, spec=run.specification, **hashes))
        other.end()

    monkeypatch.setattr(progress.time, "sleep", complete)  # while it is waited for
    assert main(["teacher", "--config", path, "--task", "movie_reviews"]) == 0
    said = capsys.readouterr()
    assert "makes it already: waiting\n" in said.out and "accuracy 80.00 (n=4)\n" in said.out
    assert "obert teacher" not in said.err and len(afterwards) == 2
    assert not run.checkpoints.exists()


@pytest.mark.filterwarnings("ignore:A test tried to use socket")
def test_a_finished_run_is_kept_though_mlflow_cannot_be_reached(config, capsys, monkeypatch):
    made = record("teacher", 90.0)
    monkeypatch.setattr("obert.stages.teacher.Teacher.run", lambda *_: made)
    path = config(tracking_uri="http://127.0.0.1:9")
    write_record(Plan.load(path).find("teacher", task="city_qa").folder, made)
    assert main(["teacher", "--config", path, "--task", "city_qa"]) == 0
    said = capsys.readouterr().err
    assert "the run is complete, but not in MLflow: tracking store http://127.0.0.1:9 failed" in said
    assert f"Later, `python -m obert track --config {path}` does the rest." in said
    assert "http://127.0.0.1:9 failed" in fails(capsys, "track", "--config", path)


@pytest.mark.parametrize("unread", ["a full disk", "nobody reads"])
def test_a_finished_run_is_kept_though_its_words_cannot_be_printed(config, unread):
    """A job that ended with an error would lose its model to Snakemake."""
    path = config(tracking_uri="sqlite:////dev/null/mlflow.db")
    key = Plan.load(path).find("teacher", task="city_qa").key
    code = f"""
import sys
from obert.commands.cli import main
from obert.stages.teacher import Teacher
from tables.examples import record
Teacher.run = lambda *_: record("teacher", 90.0)
sys.exit(main(["teacher", "--config", {path!r}, *{key.arguments.split()!r}]))
"""
    if unread == "a full disk":
        stream = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, stream = os.pipe()
        os.close(reader)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        done = subprocess.run([sys.executable, "-c", code], stdout=stream, stderr=stream, env=environment, timeout=300)
    finally:
        os.close(stream)
    assert done.returncode == 0


def test_full_disk_is_told_in_one_message(config, capsys, monkeypatch):
    def full(*_):
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("obert.commands.check.run", full)
    assert "the disk is full" in fails(capsys, "check", "--config", config())
