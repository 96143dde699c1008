"""Records from MLflow: the very bytes, or a mistake that is named."""

import json
import shutil

import pytest
from tables.examples import record, write_run

from obert.foundation.errors import UserError
from obert.tracking.fetch import fetch
from obert.tracking.mirror import mirror_run
from obert.tracking.store import initialize


def test_fetch_gives_back_the_very_bytes(uri, tmp_path):
    made = record("downstream", 88.5, method="obert", sparsity=0.9)
    folder = write_run(tmp_path / "runs", made, scores={"a": 100.0}, steps=3)
    mirror_run(folder, uri)
    shutil.move(folder, tmp_path / "moved")
    fetched = fetch(uri, "example", tmp_path / "fetched") / made.key.path
    for name in ("metrics.json", "curves.csv", "predictions.jsonl"):
        assert (fetched / name).read_bytes() == (tmp_path / "moved" / name).read_bytes()
    assert json.loads((fetched / "metrics.json").read_text())["experiment"] == "example"


def test_mistakes_are_named(uri, tmp_path):
    made = record("teacher", 90.0)
    mirror_run(write_run(tmp_path / "runs", made), uri)
    with pytest.raises(UserError, match=r"unknown experiment 'exampel'.*'example'"):
        fetch(uri, "exampel", tmp_path / "fetched")
    with pytest.raises(UserError, match="does not exist"):
        fetch(f"sqlite:///{tmp_path}/none.db", "example", tmp_path / "fetched")
    assert not (tmp_path / "none.db").exists()


@pytest.mark.filterwarnings("ignore:A test tried to use socket")
def test_a_server_that_is_down_is_named(tmp_path):
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9.*failed"):
        fetch("http://127.0.0.1:9", "example", tmp_path)


@pytest.mark.parametrize("uri", ["file:results/mlruns", "file:///results/mlruns", "results/mlruns"])
def test_the_file_store_is_refused(uri):
    with pytest.raises(UserError, match="file store"):
        initialize(uri)
