"""Whether a run has been made already, and would not be made again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from obert.foundation.errors import UserError
from obert.foundation.files import file_hash
from obert.records.record import FILE_NAME, Record, read_record

if TYPE_CHECKING:
    from obert.experiment.plan import PlannedRun


class Made(Protocol):
    """What a run was made from, as its record has it."""

    spec_hash: str
    code_hash: str
    inputs: Mapping[str, str]


def is_as_planned(run: PlannedRun, made: Made, record_hash: Callable[[PlannedRun], str | None]) -> bool:
    """Whether a run was made from its specification, code and models as they are now.

    Args:
        made: its record, or what is kept of it.
        record_hash: sha256 of the record of a run that it is made from; None where there is none that counts.
    """
    inputs = {str(source.key.path): record_hash(source) for source in run.made_from}
    return (made.spec_hash, made.code_hash, made.inputs) == (run.specification_hash, run.code_hash, inputs)


def finished(run: PlannedRun) -> Record | None:
    """The record of a run that was made from the same specification, code and models before; None without one.

    Raises:
        UserError: it is damaged.
    """
    path = run.folder / FILE_NAME
    if not path.is_file():
        return None
    record = read_record(path)
    return record if is_as_planned(run, record, _record_hash) else None


def _record_hash(run: PlannedRun) -> str | None:
    path = run.folder / FILE_NAME
    return file_hash(path) if path.is_file() else None


def pending(runs: Iterable[PlannedRun]) -> list[PlannedRun]:
    """Those of some runs that are still to be made: whatever is not finished, or made from what is not. A record that
    is damaged is none."""
    known: dict[PlannedRun, bool] = {}

    def is_done(run: PlannedRun) -> bool:
        if run not in known:
            known[run] = all(map(is_done, run.made_from)) and _is_finished(run)
        return known[run]

    return [run for run in runs if not is_done(run)]


def _is_finished(run: PlannedRun) -> bool:
    try:
        return finished(run) is not None
    except UserError:
        return False
