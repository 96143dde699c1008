"""A real MLflow server on PostgreSQL, and writers in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from tables.examples import record, write_run

from obert.commands import tables, track
from obert.experiment.folders import runs_folder
from obert.experiment.plan import Plan
from obert.experiment.schema import Downstream, Experiment, Model
from obert.foundation.files import file_hash
from obert.records.record import FILE_NAME, read_records
from obert.tracking import store
from obert.tracking.fetch import fetch
from obert.tracking.mirror import synchronize
from obert.tracking.naming import PATH_TAG

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONFIG = "configs/example.yaml"
ARTIFACTS = (FILE_NAME, "curves.csv", "predictions.jsonl")
WRITERS = 8
STEPS = 1100  # three curves of them are more than a request takes
# Waits for the others, mirrors its share as stages do, then everything as `obert track` does.
WRITER = """
import sys, time
from pathlib import Path
from obert.records.record import FILE_NAME
from obert.tracking.mirror import mirror_run, synchronize

runs, uri, worker, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
(runs.parent / f"ready{worker}").touch()
while len(list(runs.parent.glob("ready*"))) < count:
    time.sleep(0.01)
for file in sorted(runs.rglob(FILE_NAME))[worker::count]:
    mirror_run(file.parent, uri)
synchronize(runs, uri)
"""


@pytest.fixture
def experiment(root, tmp_path, monkeypatch, server):
    """Two methods, four seeds, their records written, none of them mirrored."""
    monkeypatch.setattr("obert.experiment.folders.RESULTS", tmp_path / "results")
    made = Experiment(
        name="example",
        description="An example.",
        model=Model(source="example"),
        tasks={"movie_reviews": {}},
        seeds=(0, 1, 2, 3),
        teacher="finetune",
        downstream=(Downstream(recipes=("gradual",), methods=("magnitude", "obert"), sparsities=(0.8, 0.9)),),
        tracking_uri=server,
    )
    for position, run in enumerate(Plan.of(made)):
        key = run.key
        scores = {name: 100.0 * ((position + i) % 3 > 0) for i, name in enumerate("abcdef")}
        chosen = {"recipe": key.recipe, "seed": key.seed, "method": key.method, "sparsity": key.sparsity}
        fields = {**chosen, "spec": run.specification, "spec_hash": run.specification_hash}
        write_run(runs_folder(made), record(key.stage, sum(scores.values()) / 6, **fields), scores, steps=STEPS)
    return made


def wait_for(condition, seconds=180):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def start(experiment, worker=0, count=1):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    arguments = [str(runs_folder(experiment)), experiment.tracking_uri, str(worker), str(count)]
    return subprocess.Popen([sys.executable, "-c", WRITER, *arguments], env=environment, stderr=subprocess.PIPE)


def everything(uri):
    """Every run by its key, once."""
    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name("example").experiment_id], max_results=1000)
    runs = {run.data.tags[PATH_TAG]: run for run in found}
    assert len(runs) == len(found)
    return runs


def tables_of(experiment, uri=None):
    return {path.name: path.read_bytes() for path in tables.run(Plan.of(experiment), CONFIG, uri).parent.iterdir()}


def assert_all_is_there(experiment, tmp_path):
    """Each run, parameter, step, tag and file, in the database once; the tables are those of the records."""
    plan = Plan.of(experiment)
    client, runs = MlflowClient(experiment.tracking_uri), everything(experiment.tracking_uri)
    assert set(runs) == {str(planned.key.path) for planned in plan}
    fetched = fetch(experiment.tracking_uri, "example", tmp_path / "all")
    for planned in plan:
        key, folder = planned.key, planned.folder
        run = runs[str(key.path)]
        assert run.info.status == "FINISHED"
        assert run.data.tags["seed"] == run.data.params["seed"] == str(key.seed)
        assert run.data.params["recipe.training.epochs"] == str(planned.recipe.training.epochs)
        assert run.data.tags[store.HASH_TAG] == file_hash(folder / FILE_NAME)
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == set(ARTIFACTS)
        for name in ARTIFACTS:
            assert (fetched / key.path / name).read_bytes() == (folder / name).read_bytes()
        curves = pd.read_csv(folder / "curves.csv", dtype=str).astype(float)
        for name in ("loss", "learning_rate", "sparsity"):
            history = client.get_metric_history(run.info.run_id, name)
            assert {metric.step: metric.value for metric in history} == dict(
                zip(curves["step"], curves[name], strict=True)
            )
            assert len(history) == STEPS
    written = tables_of(experiment)
    assert tables_of(experiment, experiment.tracking_uri) == written
    assert b"magnitude" in written["leaderboard.csv"]


def test_eight_parallel_writers_lose_nothing_and_do_nothing_twice(experiment, postgresql, tmp_path):
    processes = [start(experiment, worker, WRITERS) for worker in range(WRITERS)]
    for process in processes:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors.decode()[-2000:]
    assert_all_is_there(experiment, tmp_path)
    import psycopg

    with psycopg.connect(postgresql.replace("+psycopg", "")) as database:

        def count(table):
            return database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]

        runs = everything(experiment.tracking_uri).values()
        assert count("runs") == len(runs) == 17  # none was made in vain, deleted ones would be there too
        assert count("params") == sum(len(run.data.params) for run in runs)
        assert count("tags") == sum(len(run.data.tags) for run in runs)
        finals = sum(len(run.data.metrics) - 3 for run in runs)
        assert count("metrics") == 3 * STEPS * len(runs) + finals
    assert synchronize(runs_folder(experiment), experiment.tracking_uri) == 0


def half_made(uri):
    """The runs that have some of their steps, and are not complete."""
    client = MlflowClient(uri)
    found = client.get_experiment_by_name("example")
    runs = client.search_runs([found.experiment_id]) if found else []
    return {run.data.tags[PATH_TAG] for run in runs if run.data.metrics and not is_complete(run)}


def is_complete(run):
    return store.HASH_TAG in run.data.tags


def stop_in_the_middle(writer, uri):
    """Kill a writer while it writes a run. Returns the run's key."""

    def stopped():
        if not half_made(uri):
            return False
        writer.send_signal(signal.SIGSTOP)
        if half_made(uri):
            return True
        writer.send_signal(signal.SIGCONT)  # it was just completed
        return False

    wait_for(stopped)
    writer.kill()
    writer.communicate()
    (path,) = half_made(uri)
    return path


def test_a_killed_writer_leaves_nothing_half_made_that_counts(experiment, tmp_path):
    uri = experiment.tracking_uri
    lost = stop_in_the_middle(start(experiment), uri)
    complete = {path for path, run in everything(uri).items() if is_complete(run)}
    fetched = fetch(uri, "example", tmp_path / "fetched")
    assert {str(made.key.path) for made in read_records(fetched)} == complete
    assert lost not in complete
    track.run(Plan.of(experiment))
    assert_all_is_there(experiment, tmp_path)
