"""Tables as CSV, Markdown and HTML, and one self-contained report page."""

import base64
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from matplotlib.figure import Figure
from tabulate import tabulate

from obert.data.wheels import ASSETS, PREFIX
from obert.experiment.keys import RunKey
from obert.records.record import Record
from obert.report.page import Block, Part, render
from obert.statistics.formatting import DASH
from obert.tables import Note, Results, Table
from obert.tables._figures import fix_layout, save
from obert.tables._measured import DENSE

PIXELS = 96  # an inch on a page


@dataclass(frozen=True)
class Built:
    """A table or figure with everything its files need."""

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
    def caption(self) -> str:
        return self.table.caption

    def files(self) -> dict[str, bytes]:
        """The files' contents by suffix: csv, md and html, and png and svg for a figure."""
        images = {} if self.figure is None else {"png": save(self.figure, "png"), "svg": self._svg}
        texts = {"csv": csv_text(self.content), "md": self.markdown(), "html": self.page()}
        return {suffix: text.encode() for suffix, text in texts.items()} | images

    def markdown(self) -> str:
        """Title, table or image, caption and notes."""
        rows = [[str(cell).replace("|", "\\|") for cell in row] for row in self.shown.itertuples(index=False)]
        headers = [_flat(column, " ").replace("|", "\\|") for column in self.shown.columns]
        alignment = ["left" if self._is_text(column) else "right" for column in self.shown.columns] if rows else None
        table = tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=alignment)
        body = table if self.figure is None else f"![{self.title}]({self.name}.svg)"
        parts = [f"# {self.title}", body, self.caption]
        for note in (*self.warnings, *self.notes):
            parts.append(note.text)
            if note.lines:
                parts.append("\n".join(["```", *note.lines, "```"]))
        return "\n\n".join(parts) + "\n"

    def _is_text(self, column: object) -> bool:
        known = column in self.content and not pd.api.types.is_numeric_dtype(self.content[column])
        return known or _flat(column, " ") in ("task", "metric", "terms")

    @cached_property
    def _svg(self) -> bytes:
        return save(self.figure, "svg")

    @property
    def image(self) -> tuple[str, int] | None:
        """A figure as a data URI, and its natural width in pixels."""
        if self.figure is None:
            return None
        width = round(PIXELS * self.figure.get_size_inches()[0])
        return f"data:image/svg+xml;base64,{base64.b64encode(self._svg).decode()}", width

    @property
    def parts(self) -> list[Part]:
        """A page's tables: columns without any value in a group of the paper's are left out."""
        frame, table = self.shown.reset_index(drop=True), self.table
        anchors = table.variants(self.content) or [""] * len(frame)
        columns = [c for c in frame.columns if c not in (*table.split_by, *table.headed_by)]
        if isinstance(frame.columns, pd.MultiIndex):
            columns = [c for c in columns if (frame[c] != DASH).any()]
        found = []
        for title, part in _consecutive(frame, table.split_by):
            blocks = [
                Block(heading, [(anchors[i], [str(frame.loc[i, c]) for c in columns]) for i in rows.index])
                for heading, rows in _consecutive(part, table.headed_by)
            ]
            found.append(Part(title, _header(columns), [self._is_text(c) for c in columns], blocks))
        return found

    def page(self) -> str:
        """The table or figure as a page of its own."""
        return render("single", title=self.title, built=self)


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


def build(name: str, table: Table, results: Results) -> Built:
    """Build a table. Without any records, a note says so."""
    content = table.build(results)
    notes = table.notes(results)
    if not results.records:
        notes = (Note(f"Experiment '{results.experiment}' has no records yet."), *notes)
    figure = table.draw(content)
    if figure is not None:
        fix_layout(figure)
    return Built(name, table, content, table.display(content), results.warnings, notes, figure)


def csv_text(content: pd.DataFrame) -> str:
    """The content as CSV: one header line, groups and columns joined by a colon, an empty cell for NaN."""
    flat = content.copy()
    flat.columns = [_flat(column, ": ") for column in content.columns]
    return flat.to_csv(index=False, lineterminator="\n", float_format="%.10g")


def _flat(column: object, separator: str) -> str:
    return separator.join(part for part in column if part) if isinstance(column, tuple) else str(column)


def report(results: Results, tables: list[Built]) -> str:
    """The whole report as one page that asks no other server for anything; what is empty is only named at its end."""
    sections: dict[str, list[Built]] = {}
    for built in tables:
        if not built.content.empty:
            sections.setdefault(built.table.section, []).append(built)
    return render(
        "report",
        title=f"{results.experiment}: compression benchmark",
        results=results,
        sections=sections,
        empty=[built for built in tables if built.content.empty],
        environment=_environment(results.records),
        data=_data(results.stage("teacher") + results.stage("downstream")),
        reruns=_reruns(results),
    )


def _distinct(values: list[object]) -> str:
    """All different values of a fact, normally one."""
    known = sorted({str(value) for value in values if value not in (None, "", [])})
    return "; ".join(known) or "not recorded"


def _environment(records: tuple[Record, ...]) -> list[tuple[str, str]]:
    def fact(name: str) -> str:
        return _distinct([r.environment.get(name) for r in records])

    flags = _distinct([", ".join(r.environment.get("isa_flags", [])) for r in records])
    packages: dict[str, list] = {}
    for record in records:
        for package, version in record.environment.get("packages", {}).items():
            packages.setdefault(package, []).append(version)
    dirty = any(r.environment.get("git_dirty") for r in records)
    return [
        ("CPU", fact("cpu")),
        ("instruction sets", flags),
        ("cores", fact("cores")),
        ("memory (GiB)", fact("memory_gb")),
        ("GPU", fact("gpu") if any(r.environment.get("gpu") for r in records) else "none"),
        ("threads of a run", _distinct([r.threads for r in records])),
        ("Python", fact("python")),
        ("packages", ", ".join(f"{name} {_distinct(found)}" for name, found in sorted(packages.items())) or "none"),
        ("commit", fact("git_commit") + (" (some runs with uncommitted changes)" if dirty else "")),
    ]


def _licence(source: str) -> str:
    asset = ASSETS.get(source.removeprefix(PREFIX)) if source.startswith(PREFIX) else None
    return f"{asset.licence} ({asset.requirement})" if asset else "see the source"


def _data(records: list[Record]) -> list[tuple[str, str, str, str]]:
    """(what, source, size, licence) of the model and of each task's data, without repetition."""
    rows: dict[tuple, None] = {}
    for model in (record.model for record in records):
        size = f"{model['layers']} layers, {model['parameters']:,} parameters"
        rows["model", model["source"], size, _licence(model["source"])] = None
    for record in records:
        size = ", ".join(f"{count:,} {split}" for split, count in sorted(record.data["splits"].items()))
        rows[record.key.task, record.data["source"], f"{size} examples", _licence(record.data["source"])] = None
    return list(rows)


def _reruns(results: Results) -> dict[str, list[tuple[str, str, list[str]]]]:
    """By task: each model's anchor and name, and the commands that make its runs, training and pruning first."""
    found: dict[str, dict[str, tuple[str, list[str]]]] = {}
    for key in results.planned:
        _, commands = found.setdefault(key.task, {}).setdefault(key.variant, (_name(key), []))
        commands.append(results.command(key))
    return {
        task: [(f"{task}/{variant}", name, commands) for variant, (name, commands) in models.items()]
        for task, models in found.items()
    }


def _name(key: RunKey) -> str:
    return f"{key.recipe}, {DENSE}" if key.method is None else f"{key.recipe}, {100 * key.sparsity:g} %, {key.method}"
