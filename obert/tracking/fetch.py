"""An experiment's records, downloaded from a tracking server."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from obert.foundation.errors import UserError, unknown_name
from obert.tracking.store import HASH_TAG, PATH_TAG, _connection, _database, _runs

DOWNLOADS = 8  # at a time


def fetch(uri: str, experiment: str, folder: Path) -> Path:
    """Download an experiment's records, curves and predictions, laid out as the runs' own folder is.

    Args:
        experiment: its name in MLflow.
        folder: an empty folder that receives `<key.path>/metrics.json` and so on.

    Returns:
        `folder`.

    Raises:
        UserError: no such database, server or experiment; the experiments there are named.
    """
    database = _database(uri)
    if database is not None and not database.is_file():
        raise UserError(f"tracking database {database} does not exist (--from-mlflow {uri})")
    with _connection(uri) as client:
        found = client.get_experiment_by_name(experiment)
        if found is None or found.lifecycle_stage == "deleted":
            names = [e.name for e in client.search_experiments() if e.name != "Default"]
            raise unknown_name("experiment", experiment, names, uri)
        # A mirror that was interrupted has no hash.
        complete = [run for run in _runs(client, found.experiment_id) if HASH_TAG in run.data.tags]
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            list(pool.map(lambda run: _download(run, client.tracking_uri, folder), complete))
    return folder


def _download(run: Any, uri: str, folder: Path) -> None:
    """A run's files, by the address that the run says: one request less than by its identifier."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    path = run.data.tags[PATH_TAG]
    target = folder / path
    if not target.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{uri}, run {run.info.run_id}: tag {PATH_TAG} '{path}' is no run key")
    target.mkdir(parents=True, exist_ok=True)
    get_artifact_repository(run.info.artifact_uri, tracking_uri=uri).download_artifacts("", str(target))
