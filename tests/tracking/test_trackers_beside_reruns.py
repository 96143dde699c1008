"""Trackers beside processes that make runs again: none is refused, and MLflow never has figures of two attempts in one
run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from tables.examples import record, write_run

from obert.foundation.files import content_hash, file_hash
from obert.records.record import FILE_NAME, parse_record
from obert.tracking.store import HASH_TAG

TESTS = Path(__file__).parents[1]
ROUNDS = 4
# Makes each of its runs again and again, as stages do, and mirrors it. All files of an attempt have its number in them.
RERUNNER = """
import sys
from pathlib import Path
from tables.examples import record, write_run
from obert.tracking.mirror import mirror_run

runs, uri, seed, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
for attempt in range(1, rounds + 1):
    made = record("teacher", float(attempt), seed=seed, wall_time_seconds=float(attempt))
    (runs / made.key.path / "metrics.json").unlink(missing_ok=True)
    folder = write_run(runs, made, scores={"a": float(attempt)}, steps=10 * attempt)
    mirror_run(folder, uri)
(runs.parent / f"done{seed}").touch()
"""
TRACKER = """
import sys
from pathlib import Path
from obert.tracking.mirror import synchronize

runs, uri, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
while len(list(runs.parent.glob("done*"))) < count:
    synchronize(runs, uri)
"""


def start(program, *arguments):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS), *sys.path])}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def everything(uri):
    """Every run that has ever been complete, the deleted ones too."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("example").experiment_id
    found = client.search_runs([experiment], run_view_type=ViewType.ALL, max_results=1000)
    return [run for run in found if HASH_TAG in run.data.tags]


def assert_whole(run, uri, folder):
    """All that a run holds is of the attempt that its record is of."""
    client = MlflowClient(uri)
    if run.info.lifecycle_stage == "deleted":
        client.restore_run(run.info.run_id)
    for file in client.list_artifacts(run.info.run_id):
        client.download_artifacts(run.info.run_id, file.path, str(folder))
    content = (folder / FILE_NAME).read_bytes()
    assert run.data.tags[HASH_TAG] == content_hash(content)
    attempt = parse_record(content, "it").wall_time_seconds
    assert run.data.metrics["accuracy"] == run.data.metrics["wall_time_seconds"] == attempt
    assert json.loads((folder / "predictions.jsonl").read_text())["score"] == attempt
    steps = list(range(1, int(10 * attempt) + 1))
    assert list(pd.read_csv(folder / "curves.csv")["step"]) == steps
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")] == steps


def trackers_beside_reruns(uri, tmp_path, reruns, rounds):
    runs = tmp_path / "runs"
    for seed in range(reruns):
        write_run(runs, record("teacher", 0.0, seed=seed, wall_time_seconds=0.0), scores={"a": 0.0}, steps=1)
    processes = [start(RERUNNER, runs, uri, seed, rounds) for seed in range(reruns)]
    processes += [start(TRACKER, runs, uri, reruns) for _ in range(2)]
    for process in processes:
        _, said = process.communicate(timeout=500)
        assert process.returncode == 0, said[-2000:]
    found = everything(uri)
    active = [run for run in found if run.info.lifecycle_stage == "active"]
    assert {run.data.tags[HASH_TAG] for run in active} == {file_hash(file) for file in runs.rglob(FILE_NAME)}
    assert len(active) == reruns
    assert len(found) >= reruns * rounds
    for run in found:
        (tmp_path / run.info.run_id).mkdir()
        assert_whole(run, uri, tmp_path / run.info.run_id)
    assert not list(runs.rglob(".mirror.*/*"))


def test_two_trackers_beside_a_rerun(uri, tmp_path):
    trackers_beside_reruns(uri, tmp_path, reruns=1, rounds=ROUNDS)


@pytest.mark.slow
def test_two_trackers_beside_four_reruns_on_postgresql(server, tmp_path):
    trackers_beside_reruns(server, tmp_path, reruns=4, rounds=3 * ROUNDS)
