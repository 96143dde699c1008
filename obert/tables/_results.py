"""What tables are made from: the records of an experiment, in the order of its plan."""

import io
import json
import shlex
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from obert.experiment.keys import RunKey
from obert.foundation import registry
from obert.foundation.errors import UserError
from obert.records.record import CURVES, PREDICTIONS, Record
from obert.stages import stage
from obert.tables._published import Published

CURVE_COLUMNS = ("step", "epoch", "loss", "learning_rate", "sparsity")


@dataclass(frozen=True)
class Note:
    """A sentence below a table, with lines (commands) that belong to it."""

    text: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Results:
    """What tables are made from.

    Attributes:
        experiment: its name; `description` is its text.
        config: its file, as commands name it.
        records: the experiment's records.
        planned: the keys of all its runs, in the order of the configuration.
        published: published numbers.
        folder: where the runs' folders are, or were downloaded to.
        warnings: what a reader must know of the records.
        origins: of each planned run that works on the model of another run, that other run.
        sweeps: trials of the experiment's sweeps, by name, one row a run of a trial; empty where not run yet.
        specifications: what the configuration asks of the planned runs that have no record.
        other_encoders: tasks whose runs start from another encoder than the experiment's own.
    """

    experiment: str
    description: str
    config: str
    records: tuple[Record, ...]
    planned: tuple[RunKey, ...]
    published: Published
    folder: Path
    warnings: tuple[Note, ...] = ()
    origins: dict[RunKey, RunKey] = field(default_factory=dict)
    sweeps: dict[str, pd.DataFrame] = field(default_factory=dict)
    specifications: dict[RunKey, dict[str, Any]] = field(default_factory=dict)
    other_encoders: frozenset[str] = frozenset()
    _terms: dict[RunKey, pd.DataFrame | None] = field(default_factory=dict, compare=False, repr=False)
    _answers: dict[tuple[str, bool], list[Hashable]] = field(default_factory=dict, compare=False, repr=False)
    _examples: dict[tuple[str, ...], pd.Index] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def by_key(self) -> dict[RunKey, Record]:
        return {record.key: record for record in self.records}

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Tasks in the order of the configuration."""
        return tuple(dict.fromkeys(key.task for key in self.planned))

    @cached_property
    def main_tasks(self) -> tuple[str, ...]:
        """The tasks whose runs start from the experiment's own encoder, in the order of the configuration."""
        return tuple(task for task in self.tasks if task not in self.other_encoders)

    @property
    def missing(self) -> tuple[RunKey, ...]:
        """Planned runs that have no record."""
        return tuple(key for key in self.planned if key not in self.by_key)

    @cached_property
    def _in_order(self) -> tuple[Record, ...]:
        """The records, in the order of the plan."""
        return tuple(self.by_key[key] for key in self.planned if key in self.by_key)

    @cached_property
    def _stages(self) -> tuple[str, ...]:
        """The stages of the records."""
        return tuple(dict.fromkeys(record.key.stage for record in self._in_order))

    def of_stage(self, *names: str, **chosen: object) -> list[Record]:
        """The records of some stages whose keys have the given task, recipe and so on, in the order of the plan."""
        found = (record for record in self._in_order if record.key.stage in names)
        return [r for r in found if all(getattr(r.key, name) == value for name, value in chosen.items())]

    def of_kind(self, **attributes: bool) -> list[Record]:
        """The records of all stages with the given attributes (see `Stage`), in the order of the plan."""
        return self.of_stage(*(name for name in self._stages if _is_of_kind(name, attributes)))

    def history(self, key: RunKey) -> Iterator[RunKey]:
        """A run, the run whose model it works on, the run that this one works on, and so on."""
        current: RunKey | None = key
        while current is not None:
            yield current
            current = self.origins.get(current)

    def specification(self, key: RunKey) -> dict[str, Any]:
        """What a run was made with or, without a record, what the configuration asks for; empty if unknown."""
        record = self.by_key.get(key)
        return record.spec if record else self.specifications.get(key, {})

    def dense(self, task: str) -> Record | None:
        """The dense teacher of a task."""
        return next(iter(self.of_stage("teacher", task=task)), None)

    def command(self, key: RunKey) -> str:
        """The command line that makes a run."""
        return f"python -m obert {key.stage} --config {shlex.quote(self.config)} {key.arguments}"

    def curves(self, key: RunKey) -> pd.DataFrame | None:
        """The training curves of a run (CURVE_COLUMNS, one row an optimiser step), None if it was not trained.

        Raises:
            UserError: the file is damaged.
        """
        path = self.folder / key.path / CURVES
        if not path.is_file():
            return None
        try:
            content = path.read_bytes()
            if not content.endswith(b"\n"):
                raise ValueError("it is cut off")
            curves = pd.read_csv(io.BytesIO(content))
            curves.astype(float)  # what is no number is no curve; NaN is, of training that has diverged
        except ValueError as error:  # pandas' parser errors are ValueErrors
            raise UserError(f"{path} is damaged: {error}. Run {self.command(key)} again.") from None
        absent = [name for name in CURVE_COLUMNS if name not in curves.columns]
        if absent:
            raise UserError(f"{path} lacks columns {', '.join(absent)}. Run {self.command(key)} again.")
        return curves

    def terms(self, key: RunKey) -> pd.DataFrame | None:
        """What the primary metric is made of, a row an example by its id, None where a run kept no predictions.

        One column is the examples' own scores in percent, whose mean the metric is; of several, `metric` makes it.

        Raises:
            UserError: the file is damaged.
        """
        if key not in self._terms:
            self._terms[key] = self._read_terms(key)
        return self._terms[key]

    def metric(self, key: RunKey) -> Callable[[np.ndarray], np.ndarray]:
        """The primary metric of a run's task, from means of `terms` [..., terms]."""
        kind = self.by_key[key].spec["task"].get("kind") or key.task
        return registry.load("tasks", kind, self.config).from_terms

    def _read_terms(self, key: RunKey) -> pd.DataFrame | None:
        if not (self.folder / key.path / PREDICTIONS).is_file():
            return None
        terms: dict[str, list[float]] = {}

        def keep(prediction: dict[str, Any]) -> None:
            found = prediction["terms"] if "terms" in prediction else [prediction["score"]]
            if found != [None]:  # an example that the primary metric does not count
                terms[str(prediction["id"])] = [float(term) for term in found]

        self.each_line(key, PREDICTIONS, keep)
        names = tuple(terms)
        if names not in self._examples:  # one index for all runs: to compare two of them costs nothing then
            self._examples[names] = pd.Index(names)
        return pd.DataFrame(list(terms.values()), self._examples[names], dtype=float)

    def right_answers(self, keys: Sequence[RunKey], counted: bool) -> list[Hashable]:
        """The right answers on a task, from the first of some of its runs that kept them; read once.

        Args:
            counted: of the examples that the primary metric counts, or of the others.

        Raises:
            UserError: a file is damaged.
        """
        task = keys[0].task
        if (task, counted) not in self._answers:
            self._answers[task, counted] = self._read_answers(keys, counted)
        return self._answers[task, counted]

    def _read_answers(self, keys: Sequence[RunKey], counted: bool) -> list[Hashable]:
        for key in keys:
            rows = [row for row in self.predictions(key) if (row.get("score", 0) is not None) is counted]
            if rows and all("label" in row for row in rows):
                return [row["label"] for row in rows]
        return []

    def predictions(self, key: RunKey) -> list[dict[str, Any]]:
        """What a run predicted, a mapping an example with its one answer as `prediction`; none where it kept none.

        Raises:
            UserError: the file is damaged.
        """
        found: list[dict[str, Any]] = []

        def keep(prediction: dict[str, Any]) -> None:
            hash((prediction["prediction"], prediction.get("label")))  # both are counted
            found.append(prediction)

        self.each_line(key, PREDICTIONS, keep)
        return found

    def each_line(self, key: RunKey, name: str, take: Callable[[dict[str, Any]], None]) -> None:
        """Give `take` each line of a JSON-lines file of a run, if the run left it.

        Raises:
            UserError: a line is damaged: it is no JSON, or `take` finds in it what must not be.
        """
        path = self.folder / key.path / name
        if not path.is_file():
            return
        number = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    take(json.loads(line))
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                    raise UserError(
                        f"{path}, line {number} is damaged ({error!r}). Run {self.command(key)} again."
                    ) from None
        if number == 0:
            raise UserError(f"{path} is empty. Run {self.command(key)} again.")


def _is_of_kind(name: str, attributes: dict[str, bool]) -> bool:
    made_by = stage(name)
    return all(getattr(made_by, name) == value for name, value in attributes.items())
