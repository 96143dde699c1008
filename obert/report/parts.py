"""A table as a page shows it: split into parts, with headings over its rows, without columns that say nothing."""

from dataclasses import dataclass

import pandas as pd

from obert.report.built import BuiltTable
from obert.statistics.formatting import DASH


@dataclass(frozen=True)
class Block:
    """Rows under one heading. Each is the anchor of its commands in the report (or nothing), and its cells."""

    heading: str
    rows: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class Part:
    """One of the tables that a table is split into.

    Attributes:
        groups: of each column, what stands above its name; empty for a column of no group.
        names: of the columns.
        is_text: of each column.
    """

    title: str
    groups: list[str]
    names: list[str]
    is_text: list[bool]
    blocks: list[Block]

    @property
    def header(self) -> list[list[tuple[str, int]]]:
        """Header rows of (text, columns that it spans), one row where no column belongs to a group."""
        names = [(name, 1) for name in self.names]
        if not any(self.groups):
            return [names]
        spans: list[tuple[str, int]] = []
        for group in self.groups:
            if spans and spans[-1][0] == group:
                spans[-1] = (group, spans[-1][1] + 1)
            else:
                spans.append((group, 1))
        return [spans, names]


def parts(built: BuiltTable) -> list[Part]:
    """The tables that a table is split into by its `split_by`, with the headings of its `headed_by`."""
    frame, table = built.shown.reset_index(drop=True), built.table
    anchors = table.variants(built.content) or [""] * len(frame)
    columns = [c for c in built.columns if c not in (*table.split_by, *table.headed_by)]
    pairs = [column if isinstance(column, tuple) else ("", str(column)) for column in columns]
    cells = [list(map(str, row)) for row in frame[columns].to_numpy(object)]
    found = []
    for title, part in _consecutive(frame, table.split_by):
        blocks = [
            Block(heading, [(anchors[i], cells[i]) for i in rows.index])
            for heading, rows in _consecutive(part, table.headed_by)
        ]
        groups, names = [group for group, _ in pairs], [name for _, name in pairs]
        found.append(Part(title, groups, names, [built.is_text(c) for c in columns], blocks))
    return found


def _consecutive(frame: pd.DataFrame, columns: tuple[str, ...]) -> list[tuple[str, pd.DataFrame]]:
    """Runs of rows that share some columns, with the shared values as a heading."""
    if not columns or frame.empty:
        return [("", frame)]
    shared = frame[list(columns)]
    runs = (shared != shared.shift()).any(axis=1).cumsum()
    return [(_heading(rows[list(columns)].iloc[0]), rows) for _, rows in frame.groupby(runs, sort=False)]


def _heading(values: pd.Series) -> str:
    """E.g. "sparsity 50.0 %, one_shot, equal terms"."""
    named = (f"{name[:-2]} {value} %" if name.endswith(" %") else str(value) for name, value in values.items())
    return ", ".join(text for text, value in zip(named, values, strict=True) if value != DASH)
