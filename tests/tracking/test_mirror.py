"""Records in MLflow: one run for a key, complete, whatever happens meanwhile."""

import multiprocessing
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import pytest
from mlflow import MlflowClient
from tables.examples import record, write_run

from obert.foundation.errors import UserError
from obert.foundation.files import file_hash
from obert.foundation.registry import PACKAGE
from obert.records.record import Score, write_record
from obert.tracking import mirror
from obert.tracking.fetch import fetch
from obert.tracking.mirror import MAX_NAME, MAX_VALUE, VERSION_TAG, mirror_run, synchronize
from obert.tracking.naming import PATH_TAG
from obert.tracking.store import HASH_TAG, SKIPPED_TAG, initialize


def _runs(uri, experiment="example"):
    client = MlflowClient(uri)
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def test_a_record_becomes_a_run_with_params_tags_curves_and_files(uri, tmp_path):
    made = record("downstream", 88.5, seed=1, method="obert", sparsity=0.9)
    folder = write_run(tmp_path / "runs", made, scores={"a": 100.0, "b": 0.0}, steps=1500)
    (folder / "teacher_logits.jsonl").write_text("{}\n")
    assert mirror_run(folder, uri)
    (run,) = _runs(uri)
    assert run.info.run_name == "obert 90 % · Movie reviews · gradual · seed 1"
    assert run.info.start_time == int(made.started_at.timestamp() * 1000)
    assert run.info.end_time - run.info.start_time == int(made.wall_time_seconds * 1000)
    assert run.data.metrics["accuracy"] == 88.5
    assert run.data.params["recipe.training.epochs"] == "10.0"
    expected = {"method": "obert", "sparsity": "0.9", "seed": "1", "stage": "downstream", "status": "completed"}
    assert expected.items() <= run.data.tags.items()
    client = MlflowClient(uri)
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 1500
    assert {a.path for a in client.list_artifacts(run.info.run_id)} == {
        "metrics.json",
        "curves.csv",
        "predictions.jsonl",
        "teacher_logits.jsonl",
    }
    assert (tmp_path / "tracking" / "artifacts").is_dir()


def test_mirroring_is_idempotent_and_replaces_what_changed(uri, tmp_path):
    made = record("teacher", 90.0)
    folder = write_run(tmp_path / "runs", made)
    assert [mirror_run(folder, uri), mirror_run(folder, uri)] == [True, False]
    changed = made.model_copy(update={"wall_time_seconds": 7.0})
    write_record(folder, changed)
    assert mirror_run(folder, uri)
    (run,) = _runs(uri)
    assert run.data.metrics["wall_time_seconds"] == 7.0


def test_the_mirror_of_another_version_is_replaced(uri, tmp_path):
    made = record("teacher", 90.0)
    mirror_run(write_run(tmp_path / "runs", made), uri)
    (old,) = _runs(uri)
    MlflowClient(uri).delete_tag(old.info.run_id, VERSION_TAG)
    assert [synchronize(tmp_path / "runs", uri) for _ in range(2)] == [1, 0]
    (run,) = _runs(uri)
    assert run.info.run_id != old.info.run_id


def test_an_interrupted_mirror_is_replaced(uri, tmp_path):
    made = record("teacher", 90.0)
    folder = write_run(tmp_path / "runs", made)
    client = MlflowClient(uri)
    client.create_run(
        client.create_experiment("example", (tmp_path / "artifacts").as_uri()),
        tags={PATH_TAG: str(made.key.path)},
    )
    assert fetch(uri, "example", tmp_path / "fetched") and not (tmp_path / "fetched").exists()
    assert mirror_run(folder, uri)
    assert len(_runs(uri)) == 1


def test_parameters_say_what_a_run_is_and_nothing_that_is_not_set(uri, tmp_path):
    spec = {
        "key": {"method": None},
        "method": {},
        "recipe": {"schedule": None, "pattern": {"encoder.*": "1x4", "encoder.layer.0.*": "2:4"}, "layers": [0, 1]},
        "threads": 1,
    }
    dense = record("teacher", 90.0, spec=spec)
    pruned = record("downstream", 80.0, method="magnitude", sparsity=0.9, seed=3, spec=spec)
    for made in (dense, pruned):
        mirror_run(write_run(tmp_path / "runs", made), uri)
    same = {
        "task": "movie_reviews",
        "recipe.pattern": "{'encoder.*': '1x4', 'encoder.layer.0.*': '2:4'}",
        "recipe.layers": "[0, 1]",
        "threads": "1",
    }
    names = {
        "teacher": {"recipe": "dense", "method": "dense", "sparsity": "0", "seed": "0"},
        "downstream": {"recipe": "gradual", "method": "magnitude", "sparsity": "0.9", "seed": "3"},
    }
    for run in _runs(uri):
        stage = run.data.tags["stage"]
        assert run.data.params == same | names[stage] | {"stage": stage}
        assert names[stage].items() <= run.data.tags.items()
        assert run.data.metrics["score"] == run.data.metrics["accuracy"]
        assert run.data.tags["mlflow.source.git.commit"] == "f" * 40


def test_the_documented_searches_find_what_they_say(uri, tmp_path, root):
    section = (root / "docs/howto/mlflow.md").read_text().split("Some searches:")[1]
    queries = section.split("```")[1].strip().splitlines()
    runs = [
        record("downstream", score, task=task, method=method, sparsity=sparsity)
        for task, score in (("movie_reviews", 60.0), ("city_qa", 80.0))
        for method in ("magnitude", "obert")
        for sparsity in (0.8, 0.9)
    ]
    runs += [
        record(
            "benchmark", method="obert", sparsity=sparsity, metrics={"onnxruntime_speedup": Score(value=up, count=9)}
        )
        for sparsity, up in ((0.8, 1.05), (0.9, 2.5))
    ]
    for made in runs:
        mirror_run(write_run(tmp_path / "runs", made), uri)
    client = MlflowClient(uri)
    identifier = client.get_experiment_by_name("example").experiment_id
    found = [{run.data.tags[PATH_TAG] for run in client.search_runs([identifier], query)} for query in queries]
    assert found == [
        {"downstream/city_qa/gradual/magnitude-0.9/seed0", "downstream/city_qa/gradual/obert-0.9/seed0"},
        {"downstream/city_qa/gradual/obert-0.9/seed0"},
        {"benchmark/movie_reviews/gradual/obert-0.9/seed0"},
    ]


def test_too_long_parameters_are_named_not_cut(uri, tmp_path):
    long_name, too_long_name = "n" * MAX_NAME, "n" * (MAX_NAME + 1)
    spec = {"long": "x" * MAX_VALUE, "too_long": "x" * (MAX_VALUE + 1), long_name: "1", too_long_name: "1"}
    mirror_run(write_run(tmp_path / "runs", record("teacher", 90.0, spec=spec)), uri)
    (run,) = _runs(uri)
    assert run.data.tags[SKIPPED_TAG] == f"too_long, {too_long_name}"
    assert (run.data.params["long"], run.data.params[long_name]) == ("x" * MAX_VALUE, "1")
    assert not {"too_long", too_long_name} & set(run.data.params)


def test_the_curves_are_mirrored_to_the_last_digit_and_without_what_is_not_there(uri, tmp_path):
    folder = write_run(tmp_path / "runs", record("teacher", 90.0))
    value = 0.1 + 0.2
    (folder / "curves.csv").write_text(f"step,loss,learning_rate,sparsity\n1,{value!r},1e-05,\n2,nan,1e-06,0.5\n")
    mirror_run(folder, uri)
    client = MlflowClient(uri)
    history = {
        name: {metric.step: metric.value for metric in client.get_metric_history(_runs(uri)[0].info.run_id, name)}
        for name in ("loss", "learning_rate", "sparsity")
    }
    assert history == {"loss": {1: value}, "learning_rate": {1: 1e-05, 2: 1e-06}, "sparsity": {2: 0.5}}


def test_synchronize_mirrors_what_is_missing(uri, tmp_path):
    runs = [record("downstream", 80.0 + seed, seed=seed, method="obert", sparsity=0.9) for seed in range(3)]
    folders = [write_run(tmp_path / "runs", made) for made in runs]
    mirror_run(folders[0], uri)
    assert synchronize(tmp_path / "runs", uri) == 2
    assert synchronize(tmp_path / "runs", uri) == 0
    assert len(_runs(uri)) == 3


def test_parallel_writers_after_one_initialization(uri, tmp_path):
    runs = [record("downstream", 80.0 + seed, seed=seed, method="obert", sparsity=0.9) for seed in range(6)]
    folders = [write_run(tmp_path / "runs", made, steps=50) for made in runs]
    with ProcessPoolExecutor(6, multiprocessing.get_context("fork")) as pool:
        list(pool.map(mirror_run, folders, [uri] * 6))
    assert len(_runs(uri)) == 6


def _rerun(folder, uri, worker):
    for attempt in range(4):
        write_record(folder, record("teacher", 90.0, wall_time_seconds=1.0 + worker + 10 * attempt))
        mirror_run(folder, uri)


def test_reruns_that_replace_the_record_meanwhile_leave_one_run(uri, tmp_path):
    """The record's file is another one after each: a lock on it would let in several processes at once."""
    folder = write_run(tmp_path / "runs", record("teacher", 90.0))
    with ProcessPoolExecutor(3, multiprocessing.get_context("fork")) as pool:
        list(pool.map(_rerun, [folder] * 3, [uri] * 3, range(3)))
    (run,) = _runs(uri)
    assert run.data.tags[HASH_TAG] == file_hash(folder / "metrics.json")


def test_what_is_mirrored_is_what_its_hash_says_though_the_record_is_replaced(uri, tmp_path, monkeypatch):
    folder = write_run(tmp_path / "runs", record("teacher", 90.0))
    before = file_hash(folder / "metrics.json")
    find_runs = mirror.find_runs

    def replace_meanwhile(*arguments):
        write_record(folder, record("teacher", 70.0))
        return find_runs(*arguments)

    monkeypatch.setattr(mirror, "find_runs", replace_meanwhile)
    mirror_run(folder, uri)
    (run,) = _runs(uri)
    assert (run.data.tags[HASH_TAG], run.data.metrics["accuracy"]) == (before, 90.0)
    assert (
        file_hash(fetch(uri, "example", tmp_path / "fetched") / "teacher/movie_reviews/dense/dense/seed0/metrics.json")
        == before
    )
    assert synchronize(tmp_path / "runs", uri) == 1
    assert _runs(uri)[0].data.metrics["accuracy"] == 70.0


def test_a_record_that_is_missing_is_an_error_and_is_not_made(uri, tmp_path):
    with pytest.raises(UserError, match=r"metrics\.json is missing"):
        mirror_run(tmp_path / "runs" / "none", uri)
    assert not list(tmp_path.rglob("metrics.json"))


def test_neither_mlflow_nor_pandas_is_imported_before_it_is_needed():
    imports = "import sys, obert.tracking.mirror, obert.tracking.fetch"
    program = f"{imports}; print({{'mlflow', 'pandas', 'torch'}} & set(sys.modules))"
    environment = {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


INITIALIZE = "import sys; from obert.tracking.store import initialize; initialize(sys.argv[1])"


def test_a_database_whose_making_is_killed_is_made_again(tmp_path):
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    killed = subprocess.Popen([sys.executable, "-c", INITIALIZE, uri], cwd=PACKAGE.parent)
    deadline = time.monotonic() + 120
    while not any(file.stat().st_size > 300_000 for file in tmp_path.rglob("mlflow.db")):  # amid the migration
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    killed.kill()
    killed.wait()
    initialize(uri)
    assert MlflowClient(uri).search_experiments()


def test_two_that_make_a_database_at_once_wait_for_one_another(tmp_path):
    command = [sys.executable, "-c", INITIALIZE, f"sqlite:///{tmp_path}/new/mlflow.db"]
    both = [subprocess.Popen(command, cwd=PACKAGE.parent) for _ in range(2)]
    assert [process.wait(240) for process in both] == [0, 0]
    assert {file.name for file in tmp_path.glob("new/*")} == {"mlflow.db", ".mlflow.db.lock"}
