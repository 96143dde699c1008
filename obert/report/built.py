"""A table or figure that has been built from the results: what every file of it is written from."""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from matplotlib.figure import Figure

from obert.statistics.formatting import DASH
from obert.tables import Note, Results, Table
from obert.tables._figures import fix_layout, save

TEXT_COLUMNS = ("task", "metric", "terms")  # of a display, where the content has other names for them


@dataclass(frozen=True)
class BuiltTable:
    """A table or figure with its content.

    Attributes:
        name: of its files.
        content: numbers as numbers.
        shown: the same as strings for a reader.
        warnings: of the whole experiment.
        notes: of this table.
        figure: None for a table.
    """

    name: str
    table: Table
    content: pd.DataFrame
    shown: pd.DataFrame
    warnings: tuple[Note, ...]
    notes: tuple[Note, ...]
    figure: Figure | None

    @property
    def title(self) -> str:
        return self.table.title

    @property
    def short_title(self) -> str:
        """The title where its section already says that it is of a paper, and published beside measured."""
        return self.title.replace(" of the oBERT paper", "").removesuffix(", published and measured")

    @property
    def caption(self) -> str:
        return self.table.caption

    @cached_property
    def svg(self) -> bytes:
        """The figure as SVG, drawn once for its file and for the pages."""
        return save(self.figure, "svg")

    @property
    def columns(self) -> list:
        """The columns of the display that say anything: one of dashes alone is left out, unless it splits the table."""
        used = (*self.table.split_by, *self.table.headed_by)
        if self.shown.empty:
            return list(self.shown.columns)
        return [column for column in self.shown.columns if column in used or (self.shown[column] != DASH).any()]

    def is_text(self, column: object) -> bool:
        """Whether a column of the display holds words, not numbers."""
        known = column in self.content and not pd.api.types.is_numeric_dtype(self.content[column])
        return known or column_label(column, " ") in TEXT_COLUMNS


def build_table(name: str, table: Table, results: Results) -> BuiltTable:
    """Build a table. Without any records, a note says so."""
    content = table.build(results)
    notes = table.notes(results)
    if not results.records:
        notes = (Note(f"Experiment '{results.experiment}' has no records yet."), *notes)
    figure = table.draw(content)
    if figure is not None:
        fix_layout(figure)
    return BuiltTable(name, table, content, table.display(content), results.warnings, notes, figure)


def column_label(column: object, separator: str) -> str:
    """A column's name; group and name in one where it belongs to a group."""
    return separator.join(part for part in column if part) if isinstance(column, tuple) else str(column)
