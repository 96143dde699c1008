"""Records as MLflow's runs."""

import csv
import math
from pathlib import Path
from typing import Any

from obert.foundation.errors import UserError
from obert.foundation.files import content_hash
from obert.foundation.locks import locked
from obert.records.record import CURVES, FILE_NAME, PREDICTIONS, TEACHER_LOGITS, Record, read_with_bytes
from obert.tracking.models import delete_models, log_model
from obert.tracking.naming import PATH_TAG, SCORE, SPARSITY, names, run_name, tags
from obert.tracking.store import BATCH, HASH_TAG, LOCK, SKIPPED_TAG, connection, experiment_id, find_runs, ping

VERSION_TAG, VERSION = "mirror_version", "3"  # of what a mirrored run holds: those of another are made anew
SMALL_BATCH = 100  # MLflow takes that many parameters in one request,
MAX_NAME, MAX_VALUE = 250, 6000  # of these lengths at most


def mirror_run(folder: Path, uri: str, config: str | None = None) -> bool:
    """Bring a run's record with its curves, predictions and exported model to MLflow.

    There is one MLflow run for a key, however often this is called, and by however many processes at once. The record
    is read once, so that what is mirrored is what its hash says, though a rerun may replace the file meanwhile.

    Args:
        folder: the run's folder, which holds the record's file.
        config: the experiment's file, which the description's command names.

    Returns:
        False if MLflow had this very record already.

    Raises:
        UserError: the record is missing or damaged, or the store cannot be used.
    """
    with locked(folder / LOCK), connection(uri) as client:
        record, content = read_with_bytes(folder / FILE_NAME)
        digest = content_hash(content)
        experiment = experiment_id(client, record.experiment, uri)
        old = find_runs(client, experiment, f"tags.{PATH_TAG} = '{record.key.path}'")
        complete = [run for run in old if _digest(run) == digest][:1]
        for run in old:
            if run not in complete:
                delete_models(client, experiment, run.info.run_id)
                client.delete_run(run.info.run_id)
        if complete:
            return False
        _write(client, experiment, record, content, folder, config)
        return True


def synchronize(records_folder: Path, uri: str, config: str | None = None) -> int:
    """Mirror every record below a folder that MLflow does not have yet. Returns how many.

    Args:
        config: as for `mirror_run`.

    Raises:
        UserError: a store that cannot be used; or, when all others are mirrored, the records that could not be.
    """
    count, problems = 0, []
    known: dict[str, dict[str, list[str]]] = {}
    for file in sorted(records_folder.rglob(FILE_NAME)):
        try:
            record, content = read_with_bytes(file)
            if record.experiment not in known:
                with connection(uri) as client:
                    known[record.experiment] = _hashes(client, experiment_id(client, record.experiment, uri))
            if known[record.experiment].get(str(record.key.path)) != [content_hash(content)]:
                count += mirror_run(file.parent, uri, config)
        except (UserError, OSError) as error:
            problems.append(f"{file}: {error}")
            ping(uri)  # or every record would wait for a store that no longer answers
    if problems:
        raise UserError(f"{len(problems)} records are not mirrored, {count} are now. {'; '.join(problems[:5])}")
    return count


def _hashes(client: Any, experiment: str) -> dict[str, list[str]]:
    """The hashes of what is there of each path: one where all is well."""
    hashes: dict[str, list[str]] = {}
    for run in find_runs(client, experiment):
        hashes.setdefault(run.data.tags.get(PATH_TAG, ""), []).append(_digest(run))
    return hashes


def _digest(run: Any) -> str:
    """The hash of the record that a run mirrors, empty if it was interrupted or made by another version."""
    return run.data.tags.get(HASH_TAG, "") if run.data.tags.get(VERSION_TAG) == VERSION else ""


def _write(client: Any, experiment: str, record: Record, content: bytes, folder: Path, config: str | None) -> None:
    """One new run. The record's hash comes last: a run without it is incomplete, and is replaced the next time."""
    from mlflow.entities import Param

    start = int(record.started_at.timestamp() * 1000)
    end = start + int(record.wall_time_seconds * 1000)
    params, skipped = _params(record)
    given = _tags(record, config) | ({SKIPPED_TAG: ", ".join(skipped)[:8000]} if skipped else {})
    run = client.create_run(experiment, start_time=start, run_name=run_name(record.key), tags=given).info.run_id
    for chunk in _chunks([Param(name, value) for name, value in params.items()], SMALL_BATCH):
        client.log_batch(run, params=chunk)
    for chunk in _chunks(_final_metrics(record, end) + _curve_metrics(folder / CURVES, start, end), BATCH):
        client.log_batch(run, metrics=chunk)
    client.log_text(run, content.decode(), FILE_NAME)
    for name in (CURVES, PREDICTIONS, TEACHER_LOGITS):
        if (folder / name).is_file():
            client.log_artifact(run, str(folder / name))
    if record.key.stage == "export":
        log_model(client, experiment, run, record, folder, names(record.key))
    client.set_terminated(run, end_time=end)
    client.set_tag(run, HASH_TAG, content_hash(content))


def _chunks(items: list, size: int) -> list[list]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _params(record: Record) -> tuple[dict[str, str], list[str]]:
    """The flattened specification, and the names of what is too long for MLflow (the artifact has it in full).

    What is not set is left out: a `None` would make a column of numbers one of words.
    """
    spec = {name: part for name, part in record.spec.items() if name != "key"}
    flat = names(record.key) | {name: str(value) for name, value in _flatten(spec).items() if value is not None}
    too_long = [k for k, v in flat.items() if len(v) > MAX_VALUE or len(k) > MAX_NAME]
    return {name: value for name, value in flat.items() if name not in too_long}, too_long


def _flatten(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in content.items():
        if isinstance(value, dict) and all(map(str.isidentifier, value)):  # not patterns by the weights' names
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _tags(record: Record, config: str | None) -> dict[str, str]:
    """Those of the run's start, and what its record adds."""
    known = tags(
        record.key,
        family=record.family,
        spec_hash=record.spec_hash,
        environment=record.environment,
        config=config,
    )
    primary = {"primary_metric": record.primary_metric} if record.primary_metric else {}
    return known | primary | {VERSION_TAG: VERSION, "status": record.status}


def _final_metrics(record: Record, time: int) -> list:
    from mlflow.entities import Metric

    scores = {name: score.value for name, score in record.metrics.items()}
    values: dict[str, float] = {}  # first what the UI shows first, also where it keeps the order
    if record.primary_metric:
        values |= dict.fromkeys((SCORE, "score"), scores[record.primary_metric])
    if record.sparsity is not None:
        values |= dict.fromkeys((SPARSITY, "measured_sparsity"), record.sparsity.measured)
    values |= scores | record.costs
    values |= {"wall_time_seconds": record.wall_time_seconds, "peak_memory_mb": record.peak_memory_mb}
    return [Metric(name, float(value), time, 0) for name, value in values.items()]


def _curve_metrics(file: Path, start: int, end: int) -> list:
    """The curves as step-wise metrics, spread evenly over the run's time (steps are not timed one by one)."""
    from mlflow.entities import Metric

    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    times = [start + (end - start) * (i + 1) // len(rows) for i in range(len(rows))]
    return [
        Metric(name, value, time, int(row["step"]))
        for name in ("loss", "learning_rate", "sparsity")
        for row, time in zip(rows, times, strict=True)
        if not math.isnan(value := float(row[name] or "nan"))
    ]
