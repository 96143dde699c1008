"""Tables, figures and leaderboards, one file each, made from records alone. Nothing here imports training code."""

from abc import ABC, abstractmethod
from typing import ClassVar

import pandas as pd
from matplotlib.figure import Figure

from obert.statistics.formatting import format_number
from obert.tables._results import Note, Results


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
        """Notes below the table."""
        return ()

    def draw(self, content: pd.DataFrame) -> Figure | None:
        """The figure, or None for a table."""
        return None
