"""Records: one self-contained `metrics.json` a run. They are the truth; MLflow, tables and figures derive from them."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from obert.experiment.keys import RunKey
from obert.foundation.errors import UserError
from obert.foundation.files import plain, write_text
from obert.masks.counts import Sparsity, _Part

FILE_NAME = "metrics.json"
MODEL, CURVES, PREDICTIONS = "model", "curves.csv", "predictions.jsonl"  # what may lie beside it
TEACHER_LOGITS = "teacher_logits.jsonl"  # the same, of a task's teacher
DECIDED = "decided"  # in the details: options of the task that the trained model decided
COMPONENTS = "components"  # in the details of an export: what the parts of the model cost


class RecordMissing(UserError):
    """There is no record: its run has not been made, or is being made again."""


class Score(_Part):
    """A measured value and the number of samples it is over. Accuracy, exact match and F1 are in percent."""

    value: float
    count: int


class Record(_Part):
    """What is known of one finished run.

    `inputs` maps the records a run was made from to their sha256. `files` are what lies beside the record.
    `costs` holds counts and seconds: optimiser steps, gradient evaluations, pruning seconds and so on.
    """

    schema_version: Literal[1] = 1
    experiment: str
    key: RunKey
    family: str = ""
    spec: dict[str, Any]
    spec_hash: str
    code_hash: str
    environment: dict[str, Any]
    threads: int
    seeds: dict[str, int] = {}
    data: dict[str, Any] = {}
    model: dict[str, Any] = {}
    inputs: dict[str, str] = {}
    sparsity: Sparsity | None = None
    metrics: dict[str, Score] = {}
    primary_metric: str = ""
    costs: dict[str, float] = {}
    details: dict[str, Any] = {}
    files: tuple[str, ...] = ()
    started_at: datetime
    wall_time_seconds: float
    peak_memory_mb: float
    status: Literal["completed"] = "completed"


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


def as_json(record: Record) -> str:
    """A record as the text of its file. No value in it makes this fail."""
    return record.model_dump_json(indent=1, fallback=plain) + "\n"


def write_record(folder: Path, record: Record) -> Path:
    """Write a record, last of all a run's files, so that its presence means that the run is complete."""
    path = folder / FILE_NAME
    write_text(path, as_json(record))
    return path


def parse_record(text: str | bytes, origin: str) -> Record:
    """A record from its JSON. Raises UserError that names `origin` if it is damaged."""
    try:
        return Record.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(
            f"{origin} is not a valid record: {where}: {first['msg']}. Delete it and run the same command again."
        ) from None


def read_record(path: Path) -> Record:
    """The record in a file.

    Raises:
        RecordMissing: it is not there.
        UserError: it is damaged, with what to do.
    """
    return read_with_bytes(path)[0]


def read_with_bytes(path: Path) -> tuple[Record, bytes]:
    """The record in a file, and the bytes that it was read from: a rerun may replace the file at any time.

    Raises:
        RecordMissing: it is not there.
        UserError: it is damaged, with what to do.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RecordMissing(f"record {path} is missing: run the stage that makes it first") from None
    except OSError as error:
        raise UserError(f"record {path} cannot be read: {error.strerror}") from None
    return parse_record(content, str(path)), content


def read_records(folder: Path) -> list[Record]:
    """Every record below a folder, in the order of their keys.

    Raises:
        UserError: one is damaged, or two have one key but different specifications.
    """
    records = [read_record(path) for path in sorted(folder.rglob(FILE_NAME))]
    return check_consistent(records)


def check_consistent(records: list[Record]) -> list[Record]:
    """`records` in the order of their keys. Raises UserError where one key has two specifications."""
    seen: dict[tuple, str] = {}
    for record in records:
        identity = (record.experiment, record.key)
        if seen.setdefault(identity, record.spec_hash) != record.spec_hash:
            raise UserError(
                f"two records of {record.experiment}/{record.key.path} have different specifications "
                f"({seen[identity][:12]} and {record.spec_hash[:12]}): they must not be averaged. "
                "Rename one experiment, or delete the outdated runs."
            )
    return sorted(records, key=lambda r: (r.experiment, json.dumps(r.model_dump(mode="json")["key"], sort_keys=True)))
