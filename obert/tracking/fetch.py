"""An experiment's records, downloaded from a tracking server."""

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from obert.foundation.errors import UserError, unknown_name
from obert.foundation.files import file_hash
from obert.records.record import FILE_NAME
from obert.tracking.naming import PATH_TAG
from obert.tracking.store import HASH_TAG, TRIALS, connection, database_file, find_runs

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
    database = database_file(uri)
    if database is not None and not database.is_file():
        raise UserError(f"tracking database {database} does not exist (--from-mlflow {uri})")
    with connection(uri) as client:
        found = client.get_experiment_by_name(experiment)
        if found is None or found.lifecycle_stage == "deleted":
            names = [e.name for e in client.search_experiments() if e.name != "Default"]
            raise unknown_name("experiment", experiment, names, uri)
        # A mirror that was interrupted has no hash.
        complete = [run for run in find_runs(client, found.experiment_id) if HASH_TAG in run.data.tags]
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            list(pool.map(lambda run: _download(run, client.tracking_uri, folder), complete))
    return folder


def _download(run: Any, uri: str, folder: Path) -> None:
    """A run's files, by the address that the run says: one request less than by its identifier."""
    from mlflow.artifacts import download_artifacts

    path = run.data.tags[PATH_TAG]
    target = folder / path
    if not target.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{uri}, run {run.info.run_id}: tag {PATH_TAG} '{path}' is no run key")
    with tempfile.TemporaryDirectory() as temporary:  # where they come in a folder of the artifacts' own
        found = download_artifacts(artifact_uri=run.info.artifact_uri, dst_path=temporary, tracking_uri=uri)
        shutil.copytree(found, target, dirs_exist_ok=True)
    content = target / (FILE_NAME if (target / FILE_NAME).is_file() else TRIALS)
    if not content.is_file() or file_hash(content) != run.data.tags[HASH_TAG]:
        raise UserError(
            f"{uri}, run {run.info.run_id}: {content.name} of '{path}' is not the one that was mirrored. Where MLflow "
            "keeps files may have lost it, or a proxy's page came in its place. `python -m obert track` mirrors again "
            "what is deleted in MLflow"
        )
