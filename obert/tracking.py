"""MLflow: a mirror of the records, and a source of them. With `tracking_models`, the only importer of mlflow."""

import logging
import math
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from obert.errors import UserError, unknown_name
from obert.locks import locked
from obert.provenance import file_hash
from obert.records import FILE_NAME, Record, read_record
from obert.tracking_models import delete_models, log_model

CURVES, PREDICTIONS, TRIALS = "curves.csv", "predictions.jsonl", "trials.csv"
ARTIFACTS = (FILE_NAME, CURVES, PREDICTIONS)
PATH_TAG, HASH_TAG, SKIPPED_TAG = "run_key", "record_sha256", "skipped_params"
VERSION_TAG, VERSION = "mirror_version", "2"  # of what a mirrored run holds: those of another are made anew
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # which the UI otherwise guesses
SQLITE = "sqlite:///"
BATCH = 1000  # MLflow takes that many metrics in one request
DOWNLOADS = 8  # at a time
SMALL_BATCH = 100  # and that many parameters or tags
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


def _database(uri: str) -> Path | None:
    """The database file of an SQLite URI, None for any other."""
    return Path(uri.removeprefix(SQLITE).split("?")[0]) if uri.startswith(SQLITE) else None


@contextmanager
def _connection(uri: str):
    """A client of the store at `uri`. MLflow's own errors become UserErrors that name it."""
    _check(uri)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for name in QUIET:  # after the import, which sets levels of its own
        logging.getLogger(name).setLevel(logging.WARNING)
    address = uri
    if _database(uri) is not None and "?" not in uri:
        address = f"{uri}?timeout={LOCK_SECONDS}"
    try:
        yield MlflowClient(address)
    except MlflowException as error:
        raise UserError(
            f"tracking store {uri} failed: {str(error).splitlines()[0][:300]}. Is the server running and the URI "
            "right? Results are safe in the records; `obert track` mirrors them again."
        ) from None


def initialize(uri: str) -> None:
    """Make a store ready: create an SQLite database's folder and bring its schema up to date.

    To be called once, by one process, before parallel writers: MLflow's first connection to an empty database runs
    its schema migration, and several at once make each other fail.

    Raises:
        UserError: a file store, or a server that does not answer.
    """
    _check(uri)
    database = _database(uri)
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
    with _connection(uri) as client:
        client.search_experiments(max_results=1)


def mirror(record: Record, folder: Path, uri: str) -> bool:
    """Bring one record with its curves, predictions and exported model to MLflow.

    There is one MLflow run for a key, however often this is called, and by however many processes at once.

    Args:
        folder: the run's folder, which holds the record's file.

    Returns:
        False if MLflow had this very record already.

    Raises:
        UserError: the store cannot be used.
    """
    with locked(folder / FILE_NAME), _connection(uri) as client:
        experiment = _experiment_id(client, record.experiment, uri)
        digest = file_hash(folder / FILE_NAME)
        old = _runs(client, experiment, f"tags.{PATH_TAG} = '{record.key.path}'")
        complete = [run for run in old if _digest(run) == digest][:1]
        for run in old:
            if run not in complete:
                delete_models(client, experiment, run.info.run_id)
                client.delete_run(run.info.run_id)
        if complete:
            return False
        _write(client, experiment, record, folder, digest)
        return True


def mirror_sweep(folder: Path, uri: str) -> bool:
    """Bring a sweep to MLflow: a parent run with its files, and a nested run for each trial.

    Args:
        folder: the sweep's, which is named after it and holds its trials.

    Returns:
        False if MLflow had these very trials already.

    Raises:
        UserError: the store cannot be used.
    """
    sweep = folder.name
    path = f"sweeps/{sweep}"
    with locked(folder / TRIALS), _connection(uri) as client:
        trials, digest = pd.read_csv(folder / TRIALS), file_hash(folder / TRIALS)
        identifier = _experiment_id(client, trials["experiment"][0], uri)
        old = _runs(client, identifier, f"tags.sweep = '{sweep}'")
        if digest in [run.data.tags.get(HASH_TAG) for run in old]:
            return False
        for run in old:
            client.delete_run(run.info.run_id)
        tags = {PATH_TAG: path, "stage": "sweep", "sweep": sweep}
        parent = client.create_run(identifier, run_name=path, tags=tags).info.run_id
        for _, runs in trials.groupby("trial"):
            _write_trial(client, identifier, parent, sweep, runs)
        for file in sorted(folder.glob("*.*")):
            if file.suffix in (".csv", ".yaml", ".png", ".svg"):
                client.log_artifact(parent, str(file))
        client.set_terminated(parent)
        client.set_tag(parent, HASH_TAG, digest)
        return True


def _write_trial(client: Any, experiment: str, parent: str, sweep: str, runs: pd.DataFrame) -> None:
    """A nested run: what was tried, the objective, and the score of each run of the trial."""
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    first = runs.iloc[0]
    state = str(first["state"])
    tags = {MLFLOW_PARENT_RUN_ID: parent, "stage": "trial", "sweep": sweep, "state": state, "base": str(first["base"])}
    run = client.create_run(experiment, run_name=f"trial {first['trial']}", tags=tags).info.run_id
    start, end = runs.columns.get_loc("objective") + 1, runs.columns.get_loc("task")
    for name in runs.columns[start:end]:
        client.log_param(run, name, first[name])
    if not math.isnan(first["objective"]):
        client.log_metric(run, "objective", float(first["objective"]))
    for _, row in runs.dropna(subset="score").fillna({"sparsity": 0}).iterrows():
        client.log_metric(run, f"{row['task']}/{row['metric']}/{row['sparsity']:g}/seed{row['seed']:g}", row["score"])
    client.set_terminated(run, {"complete": "FINISHED", "stopped early": "KILLED"}.get(state, "FAILED"))


def synchronize(records_folder: Path, uri: str) -> int:
    """Mirror every record below a folder that MLflow does not have yet. Returns how many.

    Raises:
        UserError: a damaged record, or a store that cannot be used.
    """
    count = 0
    known: dict[str, dict[str, list[str]]] = {}
    for file in sorted(records_folder.rglob(FILE_NAME)):
        record = read_record(file)
        if record.experiment not in known:
            with _connection(uri) as client:
                known[record.experiment] = _hashes(client, _experiment_id(client, record.experiment, uri))
        if known[record.experiment].get(str(record.key.path)) != [file_hash(file)]:
            count += mirror(record, file.parent, uri)
    return count


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


def _experiment_id(client: Any, name: str, uri: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        database = _database(uri)
        location = None if database is None else (database.parent / "artifacts" / name).resolve().as_uri()
        try:
            return client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS)
        except MlflowException:  # a parallel writer was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


def _runs(client: Any, experiment: str, condition: str = "") -> list:
    """All runs of an experiment that are not deleted, page by page."""
    runs, token = [], None
    while True:
        page = client.search_runs([experiment], condition, max_results=BATCH, page_token=token)
        runs.extend(page)
        token = page.token
        if not token:
            return runs


def _hashes(client: Any, experiment: str) -> dict[str, list[str]]:
    """The hashes of what is there of each path: one where all is well."""
    hashes: dict[str, list[str]] = {}
    for run in _runs(client, experiment):
        hashes.setdefault(run.data.tags.get(PATH_TAG, ""), []).append(_digest(run))
    return hashes


def _digest(run: Any) -> str:
    """The hash of the record that a run mirrors, empty if it was interrupted or made by another version."""
    return run.data.tags.get(HASH_TAG, "") if run.data.tags.get(VERSION_TAG) == VERSION else ""


def _write(client: Any, experiment: str, record: Record, folder: Path, digest: str) -> None:
    """One new run. The record's hash comes last: a run without it is incomplete, and is replaced the next time."""
    from mlflow.entities import Param

    start = int(record.started_at.timestamp() * 1000)
    end = start + int(record.wall_time_seconds * 1000)
    path = str(record.key.path)
    params, skipped = _params(record)
    tags = _tags(record) | ({SKIPPED_TAG: ", ".join(skipped)[:8000]} if skipped else {})
    run = client.create_run(experiment, start_time=start, run_name=path, tags=tags).info.run_id
    for chunk in _chunks([Param(name, value) for name, value in params.items()], SMALL_BATCH):
        client.log_batch(run, params=chunk)
    for chunk in _chunks(_final_metrics(record, end) + _curve_metrics(folder / CURVES, start, end), BATCH):
        client.log_batch(run, metrics=chunk)
    for name in ARTIFACTS:
        if (folder / name).is_file():
            client.log_artifact(run, str(folder / name))
    if record.key.stage == "export":
        log_model(client, experiment, run, record, folder, _names(record))
    client.set_terminated(run, end_time=end)
    client.set_tag(run, HASH_TAG, digest)


def _chunks(items: list, size: int) -> list[list]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _params(record: Record) -> tuple[dict[str, str], list[str]]:
    """The flattened specification, and the names of what is too long for MLflow (the artifact has it in full).

    What is not set is left out: a `None` would make a column of numbers one of words.
    """
    from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, MAX_PARAM_VAL_LENGTH

    spec = {name: part for name, part in record.spec.items() if name != "key"}
    flat = _names(record) | {name: str(value) for name, value in _flatten(spec).items() if value is not None}
    too_long = [k for k, v in flat.items() if len(v) > MAX_PARAM_VAL_LENGTH or len(k) > MAX_ENTITY_KEY_LENGTH]
    return {name: value for name, value in flat.items() if name not in too_long}, too_long


def _flatten(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in content.items():
        if isinstance(value, dict) and all(map(str.isidentifier, value)):  # not patterns by the weights' names
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _names(record: Record) -> dict[str, str]:
    """What a run is, the same in parameters, for the compare view, and in tags, for the search."""
    key = record.key
    return {
        "stage": key.stage,
        "task": key.task,
        "recipe": key.recipe,
        "method": key.method or "dense",
        "sparsity": "0" if key.sparsity is None else f"{key.sparsity:g}",
        "seed": str(key.seed),
    }


def _tags(record: Record) -> dict[str, str]:
    from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE

    commit = record.environment.get("git_commit")
    tags = {
        PATH_TAG: record.key.path,
        VERSION_TAG: VERSION,
        "family": record.family,
        "primary_metric": record.primary_metric,
        "git_commit": commit,
        "git_dirty": record.environment.get("git_dirty"),
        "status": record.status,
        "spec_hash": record.spec_hash,
        MLFLOW_SOURCE_NAME: f"obert {record.key.stage}",
        MLFLOW_SOURCE_TYPE: "LOCAL",
        MLFLOW_GIT_COMMIT: commit,
    }
    return _names(record) | {name: str(value) for name, value in tags.items() if value not in (None, "")}


def _final_metrics(record: Record, time: int) -> list:
    from mlflow.entities import Metric

    values = {name: score.value for name, score in record.metrics.items()}
    if record.primary_metric:
        values["score"] = values[record.primary_metric]
    values |= record.costs
    values |= {"wall_time_seconds": record.wall_time_seconds, "peak_memory_mb": record.peak_memory_mb}
    if record.sparsity is not None:
        values["measured_sparsity"] = record.sparsity.measured
    return [Metric(name, float(value), time, 0) for name, value in values.items()]


def _curve_metrics(file: Path, start: int, end: int) -> list:
    """The curves as step-wise metrics, spread evenly over the run's time (steps are not timed one by one)."""
    from mlflow.entities import Metric

    if not file.is_file():
        return []
    curves = pd.read_csv(file)
    times = [start + (end - start) * (i + 1) // len(curves) for i in range(len(curves))]
    return [
        Metric(name, float(value), time, int(step))
        for name in ("loss", "learning_rate", "sparsity")
        for value, time, step in zip(curves[name], times, curves["step"], strict=True)
        if not math.isnan(value)
    ]
