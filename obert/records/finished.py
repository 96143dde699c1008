"""Whether a run has been made already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from obert.foundation.files import file_hash
from obert.records.record import FILE_NAME, Record, read_record

if TYPE_CHECKING:
    from obert.experiment.plan import PlannedRun


def finished(run: PlannedRun) -> Record | None:
    """The record of a run that was made from the same specification, code and models before; None without one.

    Raises:
        UserError: it is damaged.
    """
    path = run.folder / FILE_NAME
    if not path.is_file():
        return None
    record = read_record(path)
    made = [source.folder / FILE_NAME for source in run.made_from]
    if not all(path.is_file() for path in made):
        return None
    sources = {str(s.key.path): file_hash(path) for s, path in zip(run.made_from, made, strict=True)}
    made_from = (run.specification_hash, run.code_hash, sources)
    return record if (record.spec_hash, record.code_hash, record.inputs) == made_from else None
