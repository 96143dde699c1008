"""Tables, figures and leaderboards, one file each, made from records alone. Nothing here imports training code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import pandas as pd
from matplotlib.figure import Figure

from obert.statistics.formatting import format_number
from obert.tables._results import Note, Results

if TYPE_CHECKING:
    from obert.experiment.plan import Plan


class Table(ABC):
    """A table or figure. Columns may be a MultiIndex of (group, column).

    Attributes:
        section: the report's section that it belongs to.
        paper: whose table it is, as the experiment's `papers` names it; None for one of no paper.
        split_by: columns of the display by which a page splits it into several tables.
        headed_by: columns of the display that a page turns into headings of consecutive rows.
    """

    title: ClassVar[str]
    caption: ClassVar[str]
    section: ClassVar[str] = "Further tables and figures"
    paper: ClassVar[str | None] = None
    split_by: ClassVar[tuple[str, ...]] = ()
    headed_by: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def concerns(cls, plan: Plan) -> bool:
        """Whether it is made for an experiment that asks for all tables; one that is asked for by name always is."""
        return cls.paper is None or cls.paper in plan.experiment.papers

    @abstractmethod
    def build(self, results: Results) -> pd.DataFrame:
        """The content, numbers as numbers (NaN where there is none): what the CSV file holds."""

    def is_measured(self, content: pd.DataFrame) -> bool:
        """Whether the content has anything of this experiment, not published numbers alone."""
        return not content.empty

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        """The content as strings for a reader."""
        return content.map(lambda value: format_number(value) if isinstance(value, float) else str(value))

    def variants(self, content: pd.DataFrame) -> list[str] | None:
        """`<task>/<recipe>/<method>-<sparsity>` of each row, where rows are models: what the report tells to rerun."""
        return None

    def notes(self, results: Results) -> tuple[Note, ...]:
        """Notes below the table."""
        return ()

    def draw(self, content: pd.DataFrame) -> Figure | None:
        """The figure, or None for a table."""
        return None
