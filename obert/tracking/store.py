"""Connections to an MLflow server or database."""

import logging
import os
import sys
import tempfile
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from obert.foundation.errors import UserError
from obert.foundation.files import emptied
from obert.foundation.locks import locked
from obert.foundation.passwords import mask_logs
from obert.tracking.database import Content, put_in_place, wait_while_it_is_made
from obert.tracking.failures import explained
from obert.tracking.naming import VIEW_TAG, view

TRIALS = "trials.csv"
TRIAL = "trial.txt"  # what the artifact store is tried with
HASH_TAG, SKIPPED_TAG = "record_sha256", "skipped_params"
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # which the UI otherwise guesses
SQLITE = "sqlite:///"
LOCK = ".mirror.lock"  # beside what is mirrored, by one process at a time
BATCH = 1000  # MLflow takes that many metrics in one request
QUIET = ("alembic", "mlflow")
# A request to a server that is down is tried once more, not for minutes. Writers of SQLite wait for one another.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
LOCK_SECONDS = 120


def _check(uri: str) -> None:
    """Raise UserError for what MLflow cannot use."""
    if not uri.startswith((SQLITE, "http://", "https://")) and "://" not in uri.removeprefix("file:"):
        raise UserError(
            f"tracking_uri '{uri}': MLflow's file store is no longer maintained and refuses to start; "
            f"use a database such as {SQLITE}results/tracking/mlflow.db or a server such as http://127.0.0.1:5000"
        )
    if uri.startswith("file:"):
        _check(uri.removeprefix("file://"))


def database_file(uri: str) -> Path | None:
    """The database file of an SQLite URI, None for any other."""
    return Path(uri.removeprefix(SQLITE).split("?")[0]) if uri.startswith(SQLITE) else None


@contextmanager
def connection(uri: str):
    """A client of the store at `uri`. Whatever MLflow, its drivers or the network raise becomes a UserError that names
    it: a store is where anything may be wrong."""
    _check(uri)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    address = uri
    if database_file(uri) is not None and "?" not in uri:
        address = f"{uri}?timeout={LOCK_SECONDS}"
    try:
        from mlflow import MlflowClient

        for name in QUIET:  # after the import, which sets levels of its own
            logging.getLogger(name).setLevel(logging.WARNING)
            mask_logs(name)
        yield MlflowClient(address)
    except UserError:
        raise
    except Exception as error:
        raise explained(f"tracking store {uri}", error, uri) from error


def initialize(uri: str) -> None:
    """Make a store ready: create an SQLite database's folder and bring its schema up to date.

    To be called before parallel writers: MLflow's first connection to an empty database runs its schema migration, and
    several at once make each other fail. Here they wait for one another. A migration that is killed cannot be taken up
    again, so a new database is made whole or not at all, and one that another program left half-made and empty is made
    anew.

    Raises:
        UserError: a file store, a server that does not answer, or a database that this MLflow cannot use.
    """
    _check(uri)
    database = database_file(uri)
    if database is None:
        ping(uri)
        return
    with locked(database.with_name(f".{database.name}.lock")):
        content = wait_while_it_is_made(database)
        if content is None:
            _make(database)
        elif content.complete:
            ping(uri)
        elif content.kept:
            _upgrade(database, uri, content)
        elif content.known:
            _make(database)
            print(f"tracking database {database} was left half-made, without any run: made anew", file=sys.stderr)
        else:
            raise _unusable(database, uri, "a newer MLflow made it")


def _make(database: Path) -> None:
    # A folder of its own, as SQLite keeps a journal beside the file.
    with emptied(database.with_name(f".{database.name}.partial")) as folder:
        made = folder / database.name
        ping(f"{SQLITE}{made}")
        put_in_place(made, database)


def _upgrade(database: Path, uri: str, content: Content) -> None:
    """Let MLflow bring a database up to date, which it does at the first connection if it lacks a table."""
    if not content.known:
        raise _unusable(database, uri, "a newer MLflow made it")
    try:
        ping(uri)
    except UserError as error:
        raise _unusable(database, uri, f"an older MLflow made it, or its making was cut off ({error})") from None


def _unusable(database: Path, uri: str, reason: str) -> UserError:
    return UserError(
        f"tracking database {database} cannot be used: {reason}. Move it away (mv {database} {database}.old): the same "
        "command makes a new one, and `python -m obert track` fills it from the records. To keep it, let the MLflow "
        f"that is to use it run `mlflow db upgrade {uri}` on a copy"
    )


def ping(uri: str) -> None:
    """Ask a store for something; the schema of a database is brought up to date by that. Raises UserError."""
    with connection(uri) as client:
        client.search_experiments(max_results=1)


def try_artifacts(uri: str, experiment: str) -> None:
    """Write a file to where an experiment's files are kept, and read it again.

    Where files are kept is another place than the database: a driver, a password or the room there may be missing.

    Raises:
        UserError: it cannot be written, or is not the same when it is read.
    """
    written = uuid.uuid4().hex
    with connection(uri) as client:
        run = client.create_run(experiment_id(client, experiment, uri), run_name=TRIAL).info
        where = f"tracking store {uri}, experiment {experiment}, whose files are kept at {run.artifact_uri}:"
        try:
            client.log_text(run.run_id, written, TRIAL)
            with tempfile.TemporaryDirectory() as folder:
                read = Path(client.download_artifacts(run.run_id, TRIAL, folder)).read_text(encoding="utf-8")
        except Exception as error:
            raise explained(where, error, uri) from error
        finally:
            client.delete_run(run.run_id)
        if read != written:
            raise UserError(f"{where} a file that was written was read as another")


def experiment_id(client: Any, name: str, uri: str) -> str:
    """The identifier of an experiment, which is made or restored if need be."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        database = database_file(uri)
        location = None if database is None else (database.parent / "artifacts" / name).resolve().as_uri()
        try:
            return client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS | _view())
        except MlflowException:  # a parallel writer was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    if VIEW_TAG not in found.tags:  # made by an older version
        for tag, value in _view().items():
            client.set_experiment_tag(found.experiment_id, tag, value)
    return found.experiment_id


def _view() -> dict[str, str]:
    return {VIEW_TAG: view(int(time.time() * 1000))}


def find_runs(client: Any, experiment: str, condition: str = "") -> list:
    """All runs of an experiment that are not deleted, page by page."""
    runs, token = [], None
    while True:
        page = client.search_runs([experiment], condition, max_results=BATCH, page_token=token)
        runs.extend(page)
        token = page.token
        if not token:
            return runs
