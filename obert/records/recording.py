"""A run in progress: what it is made from, what it costs, and the record that ends it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from obert.foundation.files import check_place, content_hash, drop_leftovers
from obert.foundation.memory import peak_memory_mb
from obert.records.listening import listener
from obert.records.provenance import environment
from obert.records.record import FILE_NAME, Record, as_json, now, parse_record, read_with_bytes, write_record

if TYPE_CHECKING:
    from obert.experiment.plan import PlannedRun


class Recording:
    """One run from its start to its record.

    Whatever says what is run is noted at the start (code, commit, recipe): a run of hours must not be attributed to
    what is edited meanwhile.

    Attributes:
        planned: the run.
        sources: the records it is made from, by role.
        identity: what a checkpoint must be of to be resumed from: specification and code.
        listener: is told how the run gets on.

    Raises:
        UserError: a run that it is made from has not been made, its record is damaged, or nothing can be written where
            the results are to be.
    """

    def __init__(self, planned: PlannedRun):
        self.planned = planned
        drop_leftovers(planned.folder)
        self._started_at, self._clock = now(), time.perf_counter()
        self._environment = environment()
        self._code_hash = planned.code_hash
        read = {role: read_with_bytes(source.folder / FILE_NAME) for role, source in planned.sources.items()}
        self.sources = {role: record for role, (record, _) in read.items()}
        self._inputs = {str(source.key.path): content_hash(read[role][1]) for role, source in planned.sources.items()}
        self.identity = f"{planned.specification_hash}-{self._code_hash}"
        self.listener = listener()
        # Now, not when the work is done, is the time to learn of what cannot be put into a record.
        for folder in (planned.folder, planned.checkpoints):
            check_place(folder / FILE_NAME, f"results of {planned.key.path}")
        rehearsed = self._record(threads=planned.experiment.threads, files=())
        parse_record(as_json(rehearsed), f"the record of {planned.key.path}")
        self.listener.started(rehearsed)

    def replace(self) -> None:
        """Remove the record of a run before, to be called before the first file beside it is replaced.

        A record that is there is then always that of the files beside it.
        """
        (self.planned.folder / FILE_NAME).unlink(missing_ok=True)

    def finish(self, *, threads: int, files: tuple[str, ...], **measured: Any) -> Record:
        """Write the run's record. `measured` are further fields of `Record`."""
        record = self._record(threads=threads, files=files, **measured)
        write_record(self.planned.folder, record)
        return record

    def _record(self, **measured: Any) -> Record:
        planned = self.planned
        return Record(
            experiment=planned.experiment.name,
            key=planned.key,
            family=planned.family,
            spec=planned.specification,
            spec_hash=planned.specification_hash,
            code_hash=self._code_hash,
            environment=self._environment,
            seeds=planned.seeds,
            inputs=self._inputs,
            started_at=self._started_at,
            wall_time_seconds=time.perf_counter() - self._clock,
            peak_memory_mb=peak_memory_mb(),
            **measured,
        )
