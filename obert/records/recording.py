"""A run in progress: what it is made from, what it costs, and the record that ends it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from obert.foundation.files import content_hash
from obert.foundation.memory import peak_memory_mb
from obert.records.provenance import environment
from obert.records.record import FILE_NAME, Record, now, read_with_bytes, write_record

if TYPE_CHECKING:
    from obert.experiment.plan import PlannedRun


class Recording:
    """One run from its start to its record.

    Whatever says what is run is noted at the start (code, commit, recipe): a run of hours must not be attributed to
    what is edited meanwhile.

    Attributes:
        planned: the run.
        sources: the records it is made from, by role.

    Raises:
        UserError: a run that it is made from has not been made, or its record is damaged.
    """

    def __init__(self, planned: PlannedRun):
        self.planned = planned
        self._started_at, self._clock = now(), time.perf_counter()
        self._environment = environment()
        self._code_hash = planned.code_hash
        read = {role: read_with_bytes(source.folder / FILE_NAME) for role, source in planned.sources.items()}
        self.sources = {role: record for role, (record, _) in read.items()}
        self._inputs = {str(source.key.path): content_hash(read[role][1]) for role, source in planned.sources.items()}

    @property
    def identity(self) -> str:
        """What a checkpoint must be of to be resumed from: specification and code."""
        return f"{self.planned.specification_hash}-{self._code_hash}"

    def finish(self, *, threads: int, files: tuple[str, ...], **measured: Any) -> Record:
        """Write the run's record. `measured` are further fields of `Record`."""
        planned = self.planned
        record = Record(
            experiment=planned.experiment.name,
            key=planned.key,
            family=planned.family,
            spec=planned.specification,
            spec_hash=planned.specification_hash,
            code_hash=self._code_hash,
            environment=self._environment,
            threads=threads,
            seeds=planned.seeds,
            inputs=self._inputs,
            files=files,
            started_at=self._started_at,
            wall_time_seconds=time.perf_counter() - self._clock,
            peak_memory_mb=peak_memory_mb(),
            **measured,
        )
        write_record(planned.folder, record)
        return record
