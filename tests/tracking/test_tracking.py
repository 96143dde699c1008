import json
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor

import pytest
from mlflow import MlflowClient
from tables.examples import record, trials, write_run

from obert.foundation.errors import UserError
from obert.foundation.files import write_text
from obert.records.record import Score, write_record
from obert.report.text import to_csv
from obert.tracking import fetch, mirror, store, sweeps
from obert.tracking import mirror as tracking


def _runs(uri, experiment="example"):
    client = MlflowClient(uri)
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def _mirror(arguments):
    tracking.mirror(*arguments)


def test_a_record_becomes_a_run_with_params_tags_curves_and_files(uri, tmp_path):
    made = record("downstream", 88.5, seed=1, method="obert", sparsity=0.9)
    folder = write_run(tmp_path / "runs", made, scores={"a": 100.0, "b": 0.0}, steps=1500)
    assert tracking.mirror(made, folder, uri)
    (run,) = _runs(uri)
    assert run.info.run_name == str(made.key.path)
    assert run.info.start_time == int(made.started_at.timestamp() * 1000)
    assert run.info.end_time - run.info.start_time == int(made.wall_time_seconds * 1000)
    assert run.data.metrics["accuracy"] == 88.5
    assert run.data.params["recipe.training.epochs"] == "10.0"
    expected = {"method": "obert", "sparsity": "0.9", "seed": "1", "stage": "downstream", "status": "completed"}
    assert expected.items() <= run.data.tags.items()
    client = MlflowClient(uri)
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 1500
    assert {a.path for a in client.list_artifacts(run.info.run_id)} == set(tracking.ARTIFACTS)
    assert (tmp_path / "tracking" / "artifacts").is_dir()


def test_mirroring_is_idempotent_and_replaces_what_changed(uri, tmp_path):
    made = record("teacher", 90.0)
    folder = write_run(tmp_path / "runs", made)
    assert [tracking.mirror(made, folder, uri), tracking.mirror(made, folder, uri)] == [True, False]
    changed = made.model_copy(update={"wall_time_seconds": 7.0})
    write_record(folder, changed)
    assert tracking.mirror(changed, folder, uri)
    (run,) = _runs(uri)
    assert run.data.metrics["wall_time_seconds"] == 7.0


def test_the_mirror_of_another_version_is_replaced(uri, tmp_path):
    made = record("teacher", 90.0)
    tracking.mirror(made, write_run(tmp_path / "runs", made), uri)
    (old,) = _runs(uri)
    MlflowClient(uri).delete_tag(old.info.run_id, tracking.VERSION_TAG)
    assert [tracking.synchronize(tmp_path / "runs", uri) for _ in range(2)] == [1, 0]
    (run,) = _runs(uri)
    assert run.info.run_id != old.info.run_id


def test_an_interrupted_mirror_is_replaced(uri, tmp_path):
    made = record("teacher", 90.0)
    folder = write_run(tmp_path / "runs", made)
    client = MlflowClient(uri)
    client.create_run(
        client.create_experiment("example", (tmp_path / "artifacts").as_uri()),
        tags={store.PATH_TAG: str(made.key.path)},
    )
    assert fetch.fetch(uri, "example", tmp_path / "fetched") and not (tmp_path / "fetched").exists()
    assert tracking.mirror(made, folder, uri)
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
        tracking.mirror(made, write_run(tmp_path / "runs", made), uri)
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


def test_the_searches_of_the_readme_find_what_they_say(uri, tmp_path, root):
    section = (root / "README.md").read_text().split("Searches that work:")[1]
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
        tracking.mirror(made, write_run(tmp_path / "runs", made), uri)
    client = MlflowClient(uri)
    identifier = client.get_experiment_by_name("example").experiment_id
    found = [{run.info.run_name for run in client.search_runs([identifier], query)} for query in queries]
    assert found == [
        {"downstream/city_qa/gradual/magnitude-0.9/seed0", "downstream/city_qa/gradual/obert-0.9/seed0"},
        {"downstream/city_qa/gradual/obert-0.9/seed0"},
        {"benchmark/movie_reviews/gradual/obert-0.9/seed0"},
    ]


def test_too_long_parameters_are_named_not_cut(uri, tmp_path):
    made = record("teacher", 90.0)
    made = made.model_copy(update={"spec": {**made.spec, "long": "x" * 7000}})
    tracking.mirror(made, write_run(tmp_path / "runs", made), uri)
    (run,) = _runs(uri)
    assert run.data.tags[mirror.SKIPPED_TAG] == "long"
    assert "long" not in run.data.params


def test_synchronize_mirrors_what_is_missing(uri, tmp_path):
    runs = [record("downstream", 80.0 + seed, seed=seed, method="obert", sparsity=0.9) for seed in range(3)]
    folders = [write_run(tmp_path / "runs", made) for made in runs]
    tracking.mirror(runs[0], folders[0], uri)
    assert tracking.synchronize(tmp_path / "runs", uri) == 2
    assert tracking.synchronize(tmp_path / "runs", uri) == 0
    assert len(_runs(uri)) == 3


def test_parallel_writers_after_one_initialization(uri, tmp_path):
    runs = [record("downstream", 80.0 + seed, seed=seed, method="obert", sparsity=0.9) for seed in range(6)]
    jobs = [(made, write_run(tmp_path / "runs", made, steps=50), uri) for made in runs]
    with ProcessPoolExecutor(6, multiprocessing.get_context("fork")) as pool:
        list(pool.map(_mirror, jobs))
    assert len(_runs(uri)) == 6


def test_a_sweep_is_a_run_with_its_trials_nested(uri, tmp_path):
    folder = tmp_path / "sweeps" / "ablation"
    write_text(folder / store.TRIALS, to_csv(trials(failing=(3,))))
    write_text(folder / "journal.log", "not for MLflow")
    assert [sweeps.mirror_sweep(folder, uri), sweeps.mirror_sweep(folder, uri)] == [True, False]
    runs = {run.info.run_name: run for run in _runs(uri)}
    parent = runs.pop("sweeps/ablation")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert set(runs) == {f"trial {number}" for number in range(8)}
    expected = {
        "objective": 75.0,
        "movie_reviews/accuracy/0.5/seed100": 85.0,
        "movie_reviews/accuracy/0.7/seed100": 65.0,
    }
    assert runs["trial 0"].data.metrics == pytest.approx(expected)
    assert runs["trial 0"].data.params["methods.obert.dampening"] == "0.001"
    assert (runs["trial 3"].data.tags["state"], runs["trial 3"].info.status) == ("failed", "FAILED")
    assert not runs["trial 3"].data.metrics
    assert [file.path for file in MlflowClient(uri).list_artifacts(parent.info.run_id)] == [store.TRIALS]
    fetched = fetch.fetch(uri, "example", tmp_path / "fetched")
    assert (fetched / "sweeps/ablation" / store.TRIALS).read_bytes() == (folder / store.TRIALS).read_bytes()


def test_a_sweep_that_went_on_replaces_what_was_there(uri, tmp_path):
    folder = tmp_path / "sweeps" / "ablation"
    for table in (trials()[:8], trials()):
        write_text(folder / store.TRIALS, to_csv(table))
        assert sweeps.mirror_sweep(folder, uri)
        assert len(_runs(uri)) == 1 + table["trial"].nunique()


def test_fetch_gives_back_the_very_bytes(uri, tmp_path):
    made = record("downstream", 88.5, method="obert", sparsity=0.9)
    folder = write_run(tmp_path / "runs", made, scores={"a": 100.0}, steps=3)
    tracking.mirror(made, folder, uri)
    shutil.move(folder, tmp_path / "moved")
    fetched = fetch.fetch(uri, "example", tmp_path / "fetched") / made.key.path
    for name in tracking.ARTIFACTS:
        assert (fetched / name).read_bytes() == (tmp_path / "moved" / name).read_bytes()
    assert json.loads((fetched / "metrics.json").read_text())["experiment"] == "example"


def test_mistakes_are_named(uri, tmp_path):
    made = record("teacher", 90.0)
    tracking.mirror(made, write_run(tmp_path / "runs", made), uri)
    with pytest.raises(UserError, match=r"unknown experiment 'exampel'.*'example'"):
        fetch.fetch(uri, "exampel", tmp_path / "fetched")
    with pytest.raises(UserError, match="does not exist"):
        fetch.fetch(f"sqlite:///{tmp_path}/none.db", "example", tmp_path / "fetched")
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("uri", ["file:results/mlruns", "file:///results/mlruns", "results/mlruns"])
def test_the_file_store_is_refused(uri):
    with pytest.raises(UserError, match="file store"):
        store.initialize(uri)


@pytest.mark.filterwarnings("ignore:A test tried to use socket")
def test_a_server_that_is_down_is_named(tmp_path):
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9.*failed"):
        fetch.fetch("http://127.0.0.1:9", "example", tmp_path)
