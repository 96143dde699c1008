"""A DAG with every stage as a user runs it, in a copy of the project to which one method was added."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from copied import copy_project

from obert.experiment.plan import Plan
from obert.records.record import read_record
from obert.tracking import fetch

EXPERIMENT = """
name: smoke
description: Less of the smoke experiment, a run or two of every stage, and an engine that cannot be had.
model: {source: tests/data/tiny_bert}
tasks:
  movie_reviews: {source: tests/data/movie_reviews, max_length: 32}
  city_qa: {source: tests/data/city_qa, max_length: 64, doc_stride: 16}
seeds: [0]
threads: 1
teacher: smoke_finetune
upstream:
  options: {source: tests/data/mlm, max_length: 32}
  teacher: smoke_masked_language_model
  grid:
    - {recipes: [smoke_upstream], methods: [obert], sparsities: [0.8]}
    - {recipes: [smoke_keep_1_layer]}
  transfer:
    - {recipe: smoke_transfer, upstream: [smoke_upstream], tasks: [movie_reviews]}
downstream:
  - recipes: [smoke_gradual_fewer_layers]
    upstream: smoke_keep_1_layer
    tasks: [movie_reviews]
    methods: [obert]
    sparsities: [0.8]
  - {recipes: [smoke_one_shot], tasks: [city_qa], methods: [last_rows], sparsities: [0.8]}
  - {recipes: [smoke_gradual], tasks: [movie_reviews], methods: [magnitude, obert], sparsities: [0.8]}
quantize:
  - {recipe: smoke_quantize, models: [smoke_gradual], methods: [obert], sparsities: [0.8], tasks: [movie_reviews]}
benchmark:
  recipes: [smoke_gradual, smoke_quantize]
  methods: [obert]
  engines: [pytorch, onnxruntime, sparse, deepsparse]
  batch_size: 2
  sequence_length: 16
  threads: 1
  warmup: 1
  iterations: 5
sweeps: [smoke]
tracking_uri: sqlite:///results/tracking/smoke/mlflow.db
"""
RUNS = {  # of each stage
    "teacher": 2,
    "upstream_teacher": 1,
    "upstream": 2,
    "transfer": 1,
    "downstream": 1 + 1 + 2,  # fewer layers, one-shot; gradual by two methods
    "quantize": 1,
    "export": 3,  # dense, gradual, quantised
    "benchmark": 3,
}
NEW_METHOD = '''
"""Prunes the weights of the last rows first; a stranger's method, in one file."""

import torch

from obert.pruning import Method


class LastRows(Method):
    def score(self, context):
        return {
            name: -torch.arange(w.shape[0], dtype=torch.float32)[:, None].expand_as(w)
            for name, w in context.weights.items()
        }
'''


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {
        "PYTHONPATH": str(project),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "",
        "PIP_CONFIG_FILE": "/dev/null",
    }
    return subprocess.run(arguments, cwd=project, env=environment, capture_output=True, text=True, check=False)


def snakemake(project: Path, *arguments: str) -> str:
    done = run(project, "snakemake", "--cores", "2", "--configfile", "configs/smoke.yaml", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def planned(project: Path, *arguments: str) -> set[str]:
    """Log files of the jobs that a dry run names: each job has its own."""
    lines = snakemake(project, "-n", *arguments).splitlines()
    return {line.split("log: ")[1].strip() for line in lines if "    log: " in line}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with one more method, after its DAG has run in it."""
    copy = copy_project(tmp_path_factory.mktemp("project"))
    (copy / "obert" / "pruning" / "last_rows.py").write_text(NEW_METHOD)
    (copy / "configs/smoke.yaml").write_text(EXPERIMENT)
    (copy / "said.txt").write_text(snakemake(copy))
    return copy


def test_method_in_one_file_is_on_the_leaderboard(project):
    board = pd.read_csv(project / "results/tables/smoke/leaderboard.csv")
    assert set(board["method"]) == {"dense", "last_rows", "magnitude", "obert"}
    assert (project / "results/tables/smoke/report.html").stat().st_size > 10_000


def test_every_run_has_its_record_and_its_mirror(project, monkeypatch, tmp_path):
    monkeypatch.chdir(project)
    from obert.records.record import read_records

    records = read_records(Path("results/runs/smoke"))
    assert Counter(record.key.stage for record in records) == RUNS
    mirrored = read_records(fetch.fetch("sqlite:///results/tracking/smoke/mlflow.db", "smoke", tmp_path))
    assert mirrored == records


def test_the_terminal_says_how_far_it_is_and_ends_with_all(project):
    said = (project / "said.txt").read_text()
    runs = len(list((project / "results/runs/smoke").rglob("metrics.json")))
    assert f" 0 of {runs} runs done, {runs} waiting; about " in said
    assert f" {runs} of {runs} runs done\n" in said
    assert "steps (" not in said and "    jobid: " not in said
    done = run(project, sys.executable, "-m", "obert", "status", "--config", "configs/smoke.yaml")
    assert done.stdout.startswith(f"experiment smoke: {runs} of {runs} runs done\n"), done.stdout
    assert not [path for path in (project / "results/checkpoints").rglob("*") if path.is_file()]


def test_tables_from_mlflow_alone_are_the_same(project):
    folder = project / "results/tables/smoke"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    uri = "sqlite:///results/tracking/smoke/mlflow.db"
    done = run(project, sys.executable, "-m", "obert", "tables", "--config", "configs/smoke.yaml", "--from-mlflow", uri)
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_nothing_to_do_with_more_cores(project):
    assert planned(project, "--cores", "4") == set()


def test_what_runs_no_job_needs_no_cores(project):
    for option in (["--unlock"], ["--report", "smoke.html"]):
        done = run(project, "snakemake", "--configfile", "configs/smoke.yaml", *option)
        assert done.returncode == 0, done.stdout + done.stderr
    page = (project / "smoke.html").read_text()
    assert [name for name in ("report.html", "leaderboard.csv") if name not in page] == []


def test_a_longer_grid_plans_what_is_new_and_nothing_else(project):
    path = project / "configs/smoke.yaml"
    text = path.read_text()
    longer = text.replace(
        "methods: [magnitude, obert], sparsities: [0.8]", "methods: [magnitude, obert], sparsities: [0.8, 0.85]"
    )
    assert longer != text
    try:
        path.write_text(longer)
        logs = planned(project)
    finally:
        path.write_text(text)
    stages = {"downstream": 2, "export": 1, "benchmark": 1}  # by magnitude and oBERT, which alone is timed
    assert {stage: sum(f"/{stage}/" in log for log in logs) for stage in stages} == stages
    assert all("-0.85/" in log for log in logs if any(f"/{stage}/" in log for stage in stages))
    assert logs >= {"results/logs/smoke/tables.log", "results/logs/smoke/track.log"}
    assert not any("/teacher/" in log for log in logs)


def test_preparation_is_reported_once(project):
    report = project / "results/logs/smoke/check.txt"
    before = report.read_text()
    assert before.startswith("experiment smoke: ")
    done = run(project, sys.executable, "-m", "obert", "prepare", "--config", "configs/smoke.yaml")
    assert done.returncode == 0, done.stderr
    assert "checked before" in done.stdout
    assert report.read_text() == before


def test_what_preparation_finds_stops_before_any_job(project):
    path = project / "configs/greedy.yaml"
    text = (project / "configs/smoke.yaml").read_text().replace("name: smoke", "name: greedy")
    path.write_text(text.replace("source: tests/data/movie_reviews", "source: tests/data/nowhere"))
    done = run(project, "snakemake", "--cores", "2", "--configfile", "configs/greedy.yaml")
    assert done.returncode != 0
    assert "there is no folder 'tests/data/nowhere'" in done.stdout + done.stderr
    assert not (project / "results/runs/greedy").exists()
    assert "Traceback" not in done.stdout + done.stderr


def test_an_engine_whose_environment_cannot_be_made_is_skipped(project):
    """Without a package index; on another platform the reason is another."""
    found = read_record(project / "results/runs/smoke/benchmark/movie_reviews/smoke_finetune/dense/seed0/metrics.json")
    assert "pytorch_throughput" in found.metrics
    assert "in an environment of its own: it could not be made (" in found.details["skipped"]["deepsparse"]


def edited(project: Path, file: str) -> set[str]:
    """What a dry run names after a statement was added to a file; the file is put back."""
    path = project / "obert" / file
    return with_text(project, path, path.read_text() + "\nEDITED = True\n")


def with_text(project: Path, path: Path, text: str) -> set[str]:
    """What a dry run names while a file has another text; the file is put back."""
    before, times = path.read_text(), (path.stat().st_atime, path.stat().st_mtime)
    assert text != before
    try:
        path.write_text(text)
        return planned(project)
    finally:
        path.write_text(before)
        os.utime(path, times)


def test_editing_a_table_reruns_tables_only(project):
    assert edited(project, "tables/leaderboard.py") == {"results/logs/smoke/tables.log"}


def test_a_corrected_published_number_reruns_tables_only(project):
    path = project / "configs/published.yaml"
    text = path.read_text() + "# corrected\n"
    assert with_text(project, path, text) == {"results/logs/smoke/tables.log"}


def test_another_tracking_server_gets_the_finished_runs(project):
    path = project / "configs/smoke.yaml"
    text = path.read_text().replace("sqlite:///results/tracking/smoke/", "sqlite:///results/tracking/another/")
    assert with_text(project, path, text) == {"results/logs/smoke/track.log"}


def test_nothing_to_do_the_second_time_though_a_comment_was_edited(project):
    path = project / "obert/training/trainer.py"
    path.write_text(path.read_text() + "\n# a remark\n")
    assert planned(project) == set()


def test_editing_a_method_leaves_the_others_alone(project):
    logs = edited(project, "pruning/obert.py")
    trained = {log for log in logs if "/downstream/" in log}
    assert len(trained) == 2  # gradual; fewer layers
    assert all("/obert-0.8/" in log for log in trained)
    assert not any("magnitude" in log or "last_rows" in log or "/teacher/" in log for log in logs)


def test_a_sweep_ends_in_a_recipe_and_runs_again_when_its_file_changes(project):
    recipe = project / "results/sweeps/smoke/smoke_one_shot_swept.yaml"
    assert recipe.read_text().startswith("extends: smoke_one_shot\n")
    figure = pd.read_csv(project / "results/tables/smoke/figure5.csv")
    assert set(figure["value"]) == {1e-3, 1e-7}
    path = project / "configs/sweeps/smoke.yaml"
    text, times = path.read_text(), (path.stat().st_atime, path.stat().st_mtime)
    try:
        path.write_text(text + "held_out: 0.3\n")
        assert planned(project) == {"results/logs/sweeps/smoke.log", "results/logs/smoke/tables.log"}
    finally:
        path.write_text(text)
        os.utime(path, times)


def test_editing_the_trainer_reruns_training(project):
    logs = edited(project, "training/trainer.py")
    for stage in ("teacher", "upstream", "downstream"):
        assert sum(f"/{stage}/" in log for log in logs) == RUNS[stage]


def test_a_stage_in_one_file_has_its_rule(project):
    """The stage of docs/howto/add_stage.md: Snakemake plans its runs behind those that they are made from."""
    page = (Path(__file__).parents[1] / "docs/howto/add_stage.md").read_text(encoding="utf-8")
    code = page.partition("```{code-block} python")[2].partition("```")[0].partition("\n\n")[2]
    stage, config = project / "obert/stages/weight_norm.py", project / "configs/smoke.yaml"
    text = config.read_text()
    try:
        stage.write_text(code)
        config.write_text(text + "stages: {weight_norm: [{tasks: [city_qa]}]}\n")
        logs = planned(project)
    finally:
        stage.unlink()
        config.write_text(text)
    runs = {log for log in logs if "/weight_norm/" in log}
    assert {log.split("/")[4] for log in runs} == {"city_qa"} and len(runs) == 1
    assert logs - runs == {"results/logs/smoke/tables.log", "results/logs/smoke/track.log"}


def test_mistake_in_the_configuration_stops_before_any_job(project):
    path = project / "configs/wrong.yaml"
    path.write_text((project / "configs/smoke.yaml").read_text().replace("seeds:", "seedz:"))
    done = run(project, "snakemake", "--cores", "2", "--configfile", "configs/wrong.yaml")
    assert done.returncode != 0
    assert "unknown key 'seedz' in configs/wrong.yaml" in done.stdout + done.stderr
    assert "Did you mean 'seeds'?" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("stage", "chosen"),
    [
        ("downstream", {"task": "movie_reviews", "recipe": "smoke_gradual", "method": "obert"}),
        pytest.param("upstream", {"recipe": "smoke_upstream", "method": "obert"}, marks=pytest.mark.slow),
    ],
)
def test_killed_and_run_again_equals_uninterrupted(project, monkeypatch, stage, chosen):
    """kill -9 in the middle of a gradual run, then the same command: the same weights, bit for bit."""
    monkeypatch.chdir(project)
    plan = Plan.load(Path(__file__).parents[1] / "configs/smoke.yaml")  # without the stranger's method
    planned_run = plan.find(stage, **chosen)
    record, checkpoints = planned_run.folder / "metrics.json", planned_run.checkpoints
    expected = read_record(record)
    record.unlink()
    command = [
        sys.executable,
        "-m",
        "obert",
        stage,
        "--config",
        "configs/smoke.yaml",
        *planned_run.key.arguments.split(),
    ]
    environment = os.environ | {"PYTHONPATH": str(project)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(checkpoints.glob("checkpoint-*/complete.json")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not record.exists(), "the run ended before it could be killed"
    assert list(checkpoints.glob("checkpoint-*/complete.json"))
    done = run(project, *command)
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stdout
    again = read_record(record)
    assert again.model["weights_sha256"] == expected.model["weights_sha256"]
    assert again.metrics == expected.metrics
