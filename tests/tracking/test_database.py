"""The making of a tracking database: once, whole, by one process at a time, and again where it was cut off."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tables.examples import record, write_run

from obert.foundation.errors import UserError
from obert.tracking import database as databases
from obert.tracking.mirror import synchronize
from obert.tracking.store import initialize, ping

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
# As MLflow alone makes one, table by table.
BY_MLFLOW = "import sys; from mlflow import MlflowClient; MlflowClient(sys.argv[1]).search_experiments()"
BY_US = """
import sys, time
from pathlib import Path
from obert.tracking.store import initialize, experiment_id, connection
Path(sys.argv[2]).touch()
while len(list(Path(sys.argv[2]).parent.glob("ready*"))) < 2:
    time.sleep(0.01)
initialize(sys.argv[1])
with connection(sys.argv[1]) as client:
    client.create_run(experiment_id(client, sys.argv[3], sys.argv[1]))
"""


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )


def tables_of(path):
    with closing(sqlite3.connect(path)) as connection:
        return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def cut_off(path, uri, tables):
    """Let MLflow make a database and kill it when there are so many tables."""
    process = start(BY_MLFLOW, uri)
    while not path.is_file() or len(tables_of(path)) < tables:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.fixture
def new(tmp_path):
    (tmp_path / "tracking").mkdir()
    return tmp_path / "tracking" / "mlflow.db"


@pytest.mark.slow
def test_two_experiments_that_start_at_once_share_one_new_database(new, tmp_path):
    uri = f"sqlite:///{new}"
    processes = [start(BY_US, uri, tmp_path / f"ready{name}", name) for name in "ab"]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]
    client = MlflowClient(uri)
    for name in "ab":
        assert len(client.search_runs([client.get_experiment_by_name(name).experiment_id])) == 1
    assert not list(new.parent.glob(".mlflow.db.*/"))


def test_a_database_whose_making_was_killed_is_made_anew(new, monkeypatch, capfd):
    monkeypatch.setattr(databases, "STILL_SECONDS", 0.5)
    uri = f"sqlite:///{new}"
    cut_off(new, uri, tables=6)
    assert not databases.read_content(new).complete
    initialize(uri)
    assert databases.read_content(new) == databases.Content(complete=True, known=True, kept=False)
    assert "left half-made, without any run: made anew" in capfd.readouterr().err
    ping(uri)


@pytest.mark.slow
def test_the_making_by_another_program_is_waited_for(new):
    uri = f"sqlite:///{new}"
    other = start(BY_MLFLOW, uri)
    while not new.is_file() or not tables_of(new):
        assert other.poll() is None
        time.sleep(0.002)
    initialize(uri)
    _, errors = other.communicate(timeout=300)
    assert other.returncode == 0, errors[-2000:]
    assert databases.read_content(new).complete


def change(path, *statements):
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def with_a_run(uri, tmp_path):
    write_run(tmp_path / "runs", record("teacher", 90.0))
    synchronize(tmp_path / "runs", uri)
    return Path(uri.removeprefix("sqlite:///"))


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE alembic_version SET version_num = 'ffffffffffff'", "a newer MLflow made it"),
        ("UPDATE alembic_version SET version_num = '451aebb31d03'", "an older MLflow made it, or its making was cut"),
    ],
)
def test_runs_are_not_thrown_away_with_a_schema_that_does_not_fit(uri, tmp_path, statement, reason):
    path = with_a_run(uri, tmp_path)
    change(path, statement)
    before = path.read_bytes()
    # A copy under another name: MLflow keeps connections by their address.
    moved = shutil.copy(path, tmp_path / "other.db")
    with pytest.raises(UserError, match=rf"other\.db cannot be used: {reason}.*mv .*`python -m obert track`"):
        initialize(f"sqlite:///{moved}")
    assert path.read_bytes() == before
    with closing(sqlite3.connect(moved)) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)


def test_another_programs_database_is_left_as_it_is(new):
    change(new, "CREATE TABLE recipes (name TEXT)")
    before = new.read_bytes()
    with pytest.raises(UserError, match="is another program's: it has the tables recipes"):
        initialize(f"sqlite:///{new}")
    assert new.read_bytes() == before


def test_what_is_no_database_is_told(new):
    new.write_text("not a database, but long enough to be read as the head of one" * 10)
    with pytest.raises(UserError, match=r"mlflow\.db cannot be read: file is not a database\. Move it away"):
        initialize(f"sqlite:///{new}")


def test_an_empty_file_is_no_obstacle_and_neither_is_an_old_journal(new):
    new.touch()
    new.with_name("mlflow.db-journal").write_bytes(b"of a database that is gone")
    initialize(f"sqlite:///{new}")
    assert databases.read_content(new).complete
    assert not new.with_name("mlflow.db-journal").exists()
