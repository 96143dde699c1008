"""A run in progress: what it starts from, what it costs, and the record that ends it."""

import time
from typing import Any

from obert.experiment.folders import run_folder
from obert.experiment.keys import RunKey
from obert.experiment.plan import source_key, source_keys, specification, specification_hash
from obert.experiment.recipes import recipe_for
from obert.experiment.schema import Experiment, Model
from obert.experiment.seeds import PURPOSES, derive_seed
from obert.foundation.files import file_hash
from obert.foundation.memory import peak_memory_mb
from obert.records.provenance import environment
from obert.records.record import FILE_NAME, Record, now, read_record, write_record

MODEL = "model"  # folder of a trained model beside its record


class Run:
    """One run from its start to its record.

    Attributes:
        folder: where the run's files go; it exists.
        spec: the resolved specification.
        seeds: seed by purpose.
    """

    def __init__(self, experiment: Experiment, key: RunKey, code_hash: str):
        self.experiment = experiment
        self.key = key
        self.code_hash = code_hash
        self.spec = specification(experiment, key)
        self.folder = run_folder(experiment, key)
        self.seeds = {p: derive_seed(experiment.base_seed, key.task, key.seed, p) for p in PURPOSES}
        self._inputs: dict[str, str] = {}
        self._started_at = now()
        self._clock = time.perf_counter()

    def source(self, key: RunKey | None = None) -> Record:
        """The record this run starts from (by default the one `plan.source_key` names), noted as an input.

        Raises:
            UserError: that run has not been made, or its record is damaged.
        """
        key = key or source_key(self.experiment, self.key)
        path = run_folder(self.experiment, key) / FILE_NAME
        record = read_record(path)
        self._inputs[str(key.path)] = file_hash(path)
        return record

    def sources(self) -> tuple[RunKey, ...]:
        """The runs that this one is made from (`plan.source_keys`), noted as inputs. Raises as `source`."""
        keys = source_keys(self.experiment, self.key)
        for key in keys:
            self.source(key)
        return keys

    def start(self, upstream: list[RunKey]) -> Model:
        """What training starts from: an upstream run's model if there is one, or the experiment's."""
        return (
            Model(source=str(run_folder(self.experiment, upstream[0]) / MODEL)) if upstream else self.experiment.model
        )

    def finish(self, *, threads: int, files: tuple[str, ...], **measured: Any) -> Record:
        """Write the run's record. `measured` are further fields of `Record`."""
        record = Record(
            experiment=self.experiment.name,
            key=self.key,
            family=recipe_for(self.experiment, self.key.recipe, self.key.task).family,
            spec=self.spec,
            spec_hash=specification_hash(self.spec),
            code_hash=self.code_hash,
            environment=environment(),
            threads=threads,
            seeds=self.seeds,
            inputs=self._inputs,
            files=files,
            started_at=self._started_at,
            wall_time_seconds=time.perf_counter() - self._clock,
            peak_memory_mb=peak_memory_mb(),
            **measured,
        )
        write_record(self.folder, record)
        return record
