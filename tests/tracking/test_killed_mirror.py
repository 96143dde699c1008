"""`obert track` is killed anywhere: what MLflow then shows of runs is whole, and the same command does the rest."""

import shutil

import pytest
from killing import calls, chosen, killed_before_call
from mlflow import MlflowClient
from tables.examples import record, write_run

from obert.foundation.errors import UserError
from obert.records.record import read_records
from obert.tracking.fetch import fetch
from obert.tracking.mirror import synchronize


@pytest.fixture
def runs(tmp_path):
    """Two records with curves and predictions."""
    for made in (record("teacher", 80.0), record("downstream", 75.0, method="obert", sparsity=0.9)):
        write_run(tmp_path / "runs", made, {"a": 100.0, "b": 50.0}, steps=5)
    return tmp_path / "runs"


def mirrored(uri, folder):
    """The records that tables would be made from."""
    try:
        return read_records(fetch(uri, "example", folder))
    except UserError as error:
        assert "unknown experiment" in str(error)  # not made yet
        return []


def kill_and_go_on(runs, uri, tmp_path, count):
    expected = read_records(runs)
    copy = shutil.copytree(tmp_path / "tracking", tmp_path / "copy")
    number = calls(lambda: synchronize(runs, f"sqlite:///{copy}/mlflow.db"), "obert.tracking")
    assert number > count
    for moment in chosen(count, number):
        killed_before_call(lambda: synchronize(runs, uri), "obert.tracking", moment)
        assert [one for one in mirrored(uri, tmp_path / f"at{moment}") if one not in expected] == []
    synchronize(runs, uri)
    assert mirrored(uri, tmp_path / "end") == expected
    assert synchronize(runs, uri) == 0
    client = MlflowClient(uri)
    assert len(client.search_runs([client.get_experiment_by_name("example").experiment_id])) == len(expected)


def test_a_mirror_that_is_killed_at_some_calls_is_completed(runs, uri, tmp_path):
    kill_and_go_on(runs, uri, tmp_path, 4)


@pytest.mark.slow
def test_a_mirror_that_is_killed_anywhere_is_completed(runs, uri, tmp_path):
    kill_and_go_on(runs, uri, tmp_path, 30)
