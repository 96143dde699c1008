"""Tables, figures and leaderboards, one file each, made from records alone. Nothing here imports training code."""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from matplotlib.figure import Figure

from obert.experiment.keys import RunKey
from obert.foundation.errors import UserError
from obert.records.record import CURVES, PREDICTIONS, Record
from obert.statistics.estimates import format_number
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
        sweeps: trials of the experiment's sweeps, by name, one row a run of a trial; empty where not run yet.
        specifications: what the configuration asks of the planned runs that have no record.
    """

    experiment: str
    description: str
    config: str
    records: tuple[Record, ...]
    planned: tuple[RunKey, ...]
    published: Published
    folder: Path
    warnings: tuple[Note, ...] = ()
    sweeps: dict[str, pd.DataFrame] = field(default_factory=dict)
    specifications: dict[RunKey, dict[str, Any]] = field(default_factory=dict)
    _scores: dict[RunKey, pd.Series | None] = field(default_factory=dict, compare=False, repr=False)
    _examples: dict[tuple[str, ...], pd.Index] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def by_key(self) -> dict[RunKey, Record]:
        return {record.key: record for record in self.records}

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Tasks in the order of the configuration."""
        return tuple(dict.fromkeys(key.task for key in self.planned))

    @property
    def missing(self) -> tuple[RunKey, ...]:
        """Planned runs that have no record."""
        return tuple(key for key in self.planned if key not in self.by_key)

    def stage(self, stage: str, **chosen: object) -> list[Record]:
        """The records of a stage, in the order of the plan, whose keys have the given task, recipe and so on."""
        found = (self.by_key[key] for key in self.planned if key.stage == stage and key in self.by_key)
        return [r for r in found if all(getattr(r.key, name) == value for name, value in chosen.items())]

    def dense(self, task: str) -> Record | None:
        """The task's own dense teacher."""
        return next(iter(self.stage("teacher", task=task)), None)

    def command(self, key: RunKey) -> str:
        """The command line that makes a run."""
        return f"python -m obert {key.stage} --config {self.config} {key.arguments}"

    def curves(self, key: RunKey) -> pd.DataFrame | None:
        """The training curves of a run (CURVE_COLUMNS, one row an optimiser step), None if it was not trained.

        Raises:
            UserError: the file is damaged.
        """
        path = self.folder / key.path / CURVES
        if not path.is_file():
            return None
        try:
            curves = pd.read_csv(path)
        except ValueError as error:  # pandas' parser errors are ValueErrors
            raise UserError(f"{path} is damaged: {error}. Run {self.command(key)} again.") from None
        absent = [name for name in CURVE_COLUMNS if name not in curves.columns]
        if absent:
            raise UserError(f"{path} lacks columns {', '.join(absent)}. Run {self.command(key)} again.")
        return curves

    def scores(self, key: RunKey) -> pd.Series | None:
        """The primary metric of each example (id -> percent), None where a run kept no predictions.

        Raises:
            UserError: the file is damaged.
        """
        if key not in self._scores:
            self._scores[key] = self._read_scores(key)
        return self._scores[key]

    def _read_scores(self, key: RunKey) -> pd.Series | None:
        path = self.folder / key.path / PREDICTIONS
        if not path.is_file():
            return None
        scores = {}
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    prediction = json.loads(line)
                    scores[str(prediction["id"])] = float(prediction["score"])
                except (ValueError, KeyError, TypeError) as error:
                    raise UserError(
                        f"{path}, line {number} is damaged ({error!r}). Run {self.command(key)} again."
                    ) from None
        names = tuple(scores)
        if names not in self._examples:  # one index for all runs: to compare two of them costs nothing then
            self._examples[names] = pd.Index(names)
        return pd.Series(list(scores.values()), self._examples[names], dtype=float)


class Table(ABC):
    """A table or figure. Columns may be a MultiIndex of (group, column).

    Attributes:
        section: the report's section that it belongs to.
        split_by: columns of the display by which a page splits it into several tables.
        headed_by: columns of the display that a page turns into headings of consecutive rows.
    """

    title: ClassVar[str]
    caption: ClassVar[str]
    section: ClassVar[str] = "Further tables and figures"
    split_by: ClassVar[tuple[str, ...]] = ()
    headed_by: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def build(self, results: Results) -> pd.DataFrame:
        """The content, numbers as numbers (NaN where there is none): what the CSV file holds."""

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        """The content as strings for a reader."""
        return content.map(lambda value: format_number(value) if isinstance(value, float) else str(value))

    def variants(self, content: pd.DataFrame) -> list[str] | None:
        """`<task>/<recipe>/<method>-<sparsity>` of each row, where rows are models: what the report tells to rerun."""
        return None

    def notes(self, results: Results) -> tuple[Note, ...]:
        """What is to be said below."""
        return ()

    def draw(self, content: pd.DataFrame) -> Figure | None:
        """The figure, or None for a table."""
        return None
