"""Tables and figures as HTML that fits any window and loads nothing from anywhere else. The look is in `templates/`."""

import base64
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from obert.report.built import BuiltTable
from obert.statistics.formatting import DASH

TEMPLATES = Path(__file__).parent / "templates"
PIXELS = 96  # an inch on a page


@dataclass(frozen=True)
class Block:
    """Rows under one heading. Each is the anchor of its commands in the report (or nothing), and its cells."""

    heading: str
    rows: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class Part:
    """One of the HTML tables that a table is split into.

    Attributes:
        header: rows of (text, columns that it spans).
        is_text: of each column.
    """

    title: str
    header: list[list[tuple[str, int]]]
    is_text: list[bool]
    blocks: list[Block]


@cache
def _environment() -> Environment:
    """The templates, each compiled once."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.globals |= {"style": Markup((TEMPLATES / "style.css").read_text("utf-8"))}
    environment.filters |= {"image": _image, "parts": _parts}
    return environment


def render(template: str, **values: object) -> str:
    """A page from a file of `templates/`. Values are escaped; one that a template lacks is an error."""
    return _environment().get_template(template).render(**values) + "\n"


def table_page(built: BuiltTable) -> str:
    """A table or figure as a page of its own."""
    return render("table.html.j2", title=built.title, built=built)


def _image(built: BuiltTable) -> tuple[str, int]:
    """A figure as a data URI, and its natural width in pixels."""
    width = round(PIXELS * built.figure.get_size_inches()[0])
    return f"data:image/svg+xml;base64,{base64.b64encode(built.svg).decode()}", width


def _parts(built: BuiltTable) -> list[Part]:
    """A table as its HTML tables. Columns without any value in a group of the paper's are left out."""
    frame, table = built.shown.reset_index(drop=True), built.table
    anchors = table.variants(built.content) or [""] * len(frame)
    columns = [c for c in frame.columns if c not in (*table.split_by, *table.headed_by)]
    if isinstance(frame.columns, pd.MultiIndex):
        columns = [c for c in columns if (frame[c] != DASH).any()]
    cells = [list(map(str, row)) for row in frame[columns].to_numpy(object)]
    found = []
    for title, part in _consecutive(frame, table.split_by):
        blocks = [
            Block(heading, [(anchors[i], cells[i]) for i in rows.index])
            for heading, rows in _consecutive(part, table.headed_by)
        ]
        found.append(Part(title, _header(columns), [built.is_text(c) for c in columns], blocks))
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


def _header(columns: list) -> list[list[tuple[str, int]]]:
    """Header rows of (text, columns that it spans)."""
    if not columns or not isinstance(columns[0], tuple):
        return [[(str(column), 1) for column in columns]]
    groups: list[tuple[str, int]] = []
    for group, _ in columns:
        if groups and groups[-1][0] == group:
            groups[-1] = (group, groups[-1][1] + 1)
        else:
            groups.append((group, 1))
    return [groups, [(column, 1) for _, column in columns]]
