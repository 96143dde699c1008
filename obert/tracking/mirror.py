"""Records as MLflow's runs."""

import csv
import math
from collections.abc import Container
from pathlib import Path
from typing import Any

from obert.foundation.errors import UserError
from obert.foundation.files import content_hash
from obert.foundation.locks import locked
from obert.records.record import CURVES, FILE_NAME, Record, RecordMissing, read_with_bytes
from obert.tracking.models import delete_models, log_model
from obert.tracking.naming import PATH_TAG, SCORE, SPARSITY, names, run_name, tags
from obert.tracking.snapshot import BESIDE, Snapshot, snapshot
from obert.tracking.store import BATCH, HASH_TAG, LOCK, SKIPPED_TAG, connection, experiment_id, find_runs, ping
from obert.tracking.unfinished import IDENTITY_TAG, identity, is_alive, is_unfinished

VERSION_TAG, VERSION = "mirror_version", "3"  # of what a mirrored run holds: those of another are made anew
SMALL_BATCH = 100  # MLflow takes that many parameters in one request,
MAX_NAME, MAX_VALUE = 250, 6000  # of these lengths at most


def mirror_run(folder: Path, uri: str, config: str | None = None) -> bool:
    """Bring a run's record with its curves, predictions and exported model to MLflow.

    There is one MLflow run for a key, however often this is called, and by however many processes at once: the one that
    was logged while the run was made, if there is one that the record does not contradict. A later attempt, which is
    running or may go on, is left alone. What is mirrored is one record and its own files, though a rerun may replace
    them meanwhile.

    Args:
        folder: the run's folder, which holds the record's file.
        config: the experiment's file, which the description's command names.

    Returns:
        False if MLflow had this very record already, or if the process that has made it is still about to mirror it.

    Raises:
        RecordMissing: there is no record: the run has not been made, or is being made again.
        UserError: the record is damaged, or the store cannot be used.
    """
    with locked(folder / LOCK), snapshot(folder) as taken, connection(uri) as client:
        digest = content_hash(taken.content)
        experiment = experiment_id(client, taken.record.experiment, uri)
        old = find_runs(client, experiment, f"tags.{PATH_TAG} = '{taken.record.key.path}'")
        complete = [run for run in old if _digest(run) == digest][:1]
        unfinished, alive = [run for run in old if is_unfinished(run)], is_alive(folder)
        same = [run for run in unfinished if run.data.tags[IDENTITY_TAG] == identity(taken.record)]
        if same and alive and not complete:
            return False
        later = [run for run in unfinished if alive or run.info.start_time > _milliseconds(taken.record)[1]]
        kept = {run.info.run_id for run in complete + later}
        if not complete:
            begun = [run for run in same if run.info.run_id not in kept]
            kept.add(_write(client, experiment, taken, config, begun))
        for run in old:
            if run.info.run_id not in kept:
                delete_models(client, experiment, run.info.run_id)
                client.delete_run(run.info.run_id)
        return not complete


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
        except RecordMissing:  # since it was found: who makes the run again mirrors it too
            continue
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


def _write(client: Any, experiment: str, taken: Snapshot, config: str | None, unfinished: list) -> str:
    """Write one run, the very one that was logged while it was made if it holds nothing else than the record.

    The record's hash comes last: a run without it is incomplete, and is replaced the next time.

    Args:
        unfinished: runs that may be that one.

    Returns:
        Its identifier.
    """
    from mlflow.entities import RunTag

    record = taken.record
    begun = beginning(record, config)
    start, end = _milliseconds(record)
    metrics = {_place(m): m for m in _final_metrics(record, end) + _curve_metrics(taken.folder / CURVES, start, end)}
    logged = {each.info.run_id: _logged(client, each, begun["params"], metrics) for each in unfinished}
    run = next((each for each, found in logged.items() if found is not None), None)
    if run is None:
        run = client.create_run(experiment, start, begun["tags"], begun["name"]).info.run_id
    else:
        client.log_batch(run, tags=[RunTag(name, value) for name, value in begun["tags"].items()])
    log_params(client, run, begun["params"])
    missing = [metric for place, metric in metrics.items() if place not in logged.get(run, ())]
    for chunk in _chunks(missing, BATCH):
        client.log_batch(run, metrics=chunk)
    client.log_text(run, taken.content.decode(), FILE_NAME)
    for name in BESIDE:
        if (taken.folder / name).is_file():
            client.log_artifact(run, str(taken.folder / name))
    if record.key.stage == "export":
        log_model(client, experiment, run, taken, names(record.key))
    client.set_terminated(run, end_time=end)
    client.set_tag(run, HASH_TAG, content_hash(taken.content))
    return run


def _place(metric: Any) -> tuple[str, int, str]:
    return metric.key, metric.step, repr(float(metric.value))  # of a NaN too, which is not equal to itself


def _logged(client: Any, run: Any, params: dict[str, str], metrics: Container) -> set | None:
    """The metrics that a run has, None if it has anything that its record has not: MLflow takes nothing back.

    On a GPU the steps that a run made a second time, after a checkpoint, may differ.
    """
    identifier = run.info.run_id
    found = [_place(m) for name in run.data.metrics for m in client.get_metric_history(identifier, name)]
    fits = (
        len(set(found)) == len(found)
        and all(place in metrics for place in found)
        and run.data.params.items() <= params.items()
        and not client.list_artifacts(identifier)
    )
    return set(found) if fits else None


def beginning(record: Record, config: str | None) -> dict[str, Any]:
    """What a run has in MLflow from its start: `experiment`, `name`, `tags`, `params` and `start_time` (milliseconds).

    Args:
        record: of which there may be no more than is known then.
    """
    params, skipped = _params(record)
    return {
        "experiment": record.experiment,
        "name": run_name(record.key),
        "tags": _tags(record, config) | ({SKIPPED_TAG: ", ".join(skipped)[:8000]} if skipped else {}),
        "params": params,
        "start_time": _milliseconds(record)[0],
    }


def _milliseconds(record: Record) -> tuple[int, int]:
    """When a run started and when it ended."""
    start = int(record.started_at.timestamp() * 1000)
    return start, start + int(record.wall_time_seconds * 1000)


def log_params(client: Any, run: str, params: dict[str, str]) -> None:
    """Log parameters, however many. Those that are there already must be the same."""
    from mlflow.entities import Param

    for chunk in _chunks([Param(name, value) for name, value in params.items()], SMALL_BATCH):
        client.log_batch(run, params=chunk)


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


def scores(record: Record) -> dict[str, float]:
    """What the task measures, and its main one as `score`."""
    values = {name: score.value for name, score in record.metrics.items()}
    return values | ({"score": values[record.primary_metric]} if record.primary_metric else {})


def _final_metrics(record: Record, time: int) -> list:
    from mlflow.entities import Metric

    values: dict[str, float] = {}  # first what the UI shows first, also where it keeps the order
    if record.primary_metric:
        values[SCORE] = record.metrics[record.primary_metric].value
    if record.sparsity is not None:
        values |= dict.fromkeys((SPARSITY, "measured_sparsity"), record.sparsity.measured)
    values |= scores(record) | record.costs
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
