"""An artifact store that cannot be used is found before any work, and costs no record its mirror later."""

import sys

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from tables.examples import record, write_run

from obert.commands import prepare, track
from obert.experiment.plan import Plan
from obert.foundation.errors import UserError
from obert.tracking.mirror import synchronize
from obert.tracking.store import ping, try_artifacts


@pytest.fixture
def without_driver(uri, monkeypatch):
    """A store whose files are to go to S3, without the package that can."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    MlflowClient(uri).create_experiment("smoke", artifact_location="s3://bucket/smoke")
    return uri


def plan_with(uri, root):
    return Plan.of(Plan.load(root / "configs/smoke.yaml").experiment.model_copy(update={"tracking_uri": uri}))


def test_a_store_that_works_passes_and_shows_no_run(uri):
    try_artifacts(uri, "example")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("example").experiment_id
    assert client.search_runs([experiment]) == []
    assert len(client.search_runs([experiment], run_view_type=ViewType.DELETED_ONLY)) == 1


def test_a_store_without_its_driver_is_told_by_name(without_driver):
    with pytest.raises(UserError, match=r"kept at s3://bucket/smoke/.* needs a Python package .*boto3"):
        try_artifacts(without_driver, "smoke")


def test_a_store_that_gives_back_another_file_is_told(uri, monkeypatch, tmp_path):
    (tmp_path / "other").write_text("other")
    monkeypatch.setattr(MlflowClient, "download_artifacts", lambda *_: str(tmp_path / "other"))
    with pytest.raises(UserError, match="was read as another"):
        try_artifacts(uri, "example")


def test_preparation_finds_it_before_anything_else(root, without_driver, monkeypatch):
    monkeypatch.setattr("obert.commands.assets.needed", lambda plan: pytest.fail("assets were fetched"))
    with pytest.raises(UserError, match="boto3"):
        prepare.run(plan_with(without_driver, root))


def test_tracking_finds_it_before_the_first_record(root, without_driver, tmp_path, monkeypatch):
    monkeypatch.setattr("obert.experiment.folders.RESULTS", tmp_path)
    monkeypatch.setattr("obert.commands.track.synchronize", lambda *_: pytest.fail("records were mirrored"))
    with pytest.raises(UserError, match="boto3"):
        track.run(plan_with(without_driver, root))


def test_a_record_that_cannot_be_mirrored_leaves_the_others_alone(uri, tmp_path):
    folders = [
        write_run(tmp_path / "runs", record("downstream", 80.0 + seed, seed=seed, method="obert", sparsity=0.9))
        for seed in range(3)
    ]
    (folders[0] / "metrics.json").write_text("{")
    with pytest.raises(UserError, match=r"1 records are not mirrored, 2 are now.*seed0/metrics\.json"):
        synchronize(tmp_path / "runs", uri)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("example").experiment_id
    assert len(client.search_runs([experiment])) == 2


@pytest.mark.parametrize("error", [OSError("disk"), KeyError("credentials"), ImportError("a driver")])
def test_whatever_a_driver_raises_names_the_store(uri, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(MlflowClient, "search_experiments", fail)
    with pytest.raises(UserError, match=f"tracking store {uri}"):
        ping(uri)


def test_scores_that_are_not_numbers_are_mirrored(uri, tmp_path):
    made = record("teacher", float("nan"))
    write_run(tmp_path / "runs", made)
    assert synchronize(tmp_path / "runs", uri) == 1
    assert synchronize(tmp_path / "runs", uri) == 0
