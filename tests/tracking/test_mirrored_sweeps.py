"""Sweeps in MLflow."""

import pytest
from mlflow import MlflowClient
from tables.examples import trials

from obert.foundation.files import write_text
from obert.report.rendering import csv_text
from obert.tracking.fetch import fetch
from obert.tracking.store import TRIALS
from obert.tracking.sweeps import mirror_sweep


def _runs(uri, experiment="example"):
    client = MlflowClient(uri)
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def test_a_sweep_is_a_run_with_its_trials_nested(uri, tmp_path):
    folder = tmp_path / "sweeps" / "ablation"
    write_text(folder / TRIALS, csv_text(trials(failing=(3,))))
    write_text(folder / "journal.log", "not for MLflow")
    assert [mirror_sweep(folder, uri), mirror_sweep(folder, uri)] == [True, False]
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
    assert [file.path for file in MlflowClient(uri).list_artifacts(parent.info.run_id)] == [TRIALS]
    fetched = fetch(uri, "example", tmp_path / "fetched")
    assert (fetched / "sweeps/ablation" / TRIALS).read_bytes() == (folder / TRIALS).read_bytes()


def test_a_sweep_that_went_on_replaces_what_was_there(uri, tmp_path):
    folder = tmp_path / "sweeps" / "ablation"
    for table in (trials()[:8], trials()):
        write_text(folder / TRIALS, csv_text(table))
        assert mirror_sweep(folder, uri)
        assert len(_runs(uri)) == 1 + table["trial"].nunique()
