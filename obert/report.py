"""Tables as CSV, Markdown and HTML, and one self-contained report page."""

import base64
import html
from dataclasses import dataclass

import pandas as pd
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from tabulate import tabulate

from obert.assets import ASSETS, PREFIX
from obert.records import Record
from obert.tables import Base, Note, Results
from obert.tables._figures import save


@dataclass(frozen=True)
class Built:
    """A table or figure with everything its files need."""

    name: str
    title: str
    caption: str
    content: pd.DataFrame
    shown: pd.DataFrame
    notes: tuple[Note, ...]
    figure: Figure | None

    def files(self) -> dict[str, bytes]:
        """The files' contents by suffix: csv, md and html, and png and svg for a figure."""
        images = {} if self.figure is None else {kind: save(self.figure, kind) for kind in ("png", "svg")}
        texts = {"csv": csv_text(self.content), "md": self.markdown(), "html": self.page()}
        return {suffix: text.encode() for suffix, text in texts.items()} | images

    def markdown(self) -> str:
        """Title, table or image, caption and notes."""
        rows = [[str(cell).replace("|", "\\|") for cell in row] for row in self.shown.itertuples(index=False)]
        headers = [_flat(column, " ").replace("|", "\\|") for column in self.shown.columns]
        table = tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=self._alignment(rows))
        body = table if self.figure is None else f"![{self.title}]({self.name}.svg)"
        parts = [f"# {self.title}", body, self.caption]
        for note in self.notes:
            parts.append(note.text)
            if note.lines:
                parts.append("\n".join(["```", *note.lines, "```"]))
        return "\n\n".join(parts) + "\n"

    def _alignment(self, rows: list[list[str]]) -> list[str] | None:
        if not rows:
            return None
        return ["left" if self._is_text(column) else "right" for column in self.shown.columns]

    def _is_text(self, column: object) -> bool:
        return column in self.content or _flat(column, " ") in ("task", "metric", "terms")

    def html(self) -> Markup:
        """The table, or the figure as an inline image."""
        if self.figure is not None:
            image = base64.b64encode(save(self.figure, "svg")).decode()
            return Markup(f'<img alt="{html.escape(self.title)}" src="data:image/svg+xml;base64,{image}">')
        table = self.shown.to_html(index=False, border=0, escape=True, justify="center")
        return Markup(f'<div class="scroll">{table}</div>')

    def page(self) -> str:
        """The table or figure as a page of its own."""
        return _render("single", built=self, title=self.title)


def build(name: str, table: Base, results: Results) -> Built:
    """Build a table. Without any records, a note says so."""
    content = table.build(results)
    figure = table.draw(content)
    notes = tuple(Note(text) for text in results.warnings) + table.notes(results)
    if not results.records:
        notes = (Note(f"Experiment '{results.experiment}' has no records yet."), *notes)
    shown = table.display(content)
    return Built(name, table.title, table.caption, content, shown, notes, figure)


def csv_text(content: pd.DataFrame) -> str:
    """The content as CSV: one header line, groups and columns joined by a colon, an empty cell for NaN."""
    flat = content.copy()
    flat.columns = [_flat(column, ": ") for column in content.columns]
    return flat.to_csv(index=False, lineterminator="\n", float_format="%.10g")


def _flat(column: object, separator: str) -> str:
    return separator.join(part for part in column if part) if isinstance(column, tuple) else str(column)


def report(results: Results, tables: list[Built]) -> str:
    """The whole report as one page that asks no other server for anything."""
    return _render(
        "report",
        title=f"{results.experiment}: compression benchmark",
        results=results,
        tables=tables,
        environment=_environment(results.records),
        data=_data(results.stage("teacher") + results.stage("downstream")),
        rows=_commands(results),
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


def _commands(results: Results) -> list[tuple[str, list[str]]]:
    """Rows of the leaderboard with the commands that rerun their runs, training and pruning first."""
    rows: dict[str, list[str]] = {}
    for key in results.planned:
        sparsity = "dense" if key.sparsity is None else f"{100 * key.sparsity:g} %, {key.method}"
        rows.setdefault(f"{key.task}, {sparsity}, {key.recipe}", []).append(results.command(key))
    return list(rows.items())


def _render(template: str, **values: object) -> str:
    environment = Environment(
        loader=DictLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    return environment.get_template(template).render(style=Markup(STYLE), **values) + "\n"


STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 110rem; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child, table.facts td { text-align: left; }
thead th { background: var(--soft); } tbody tr:hover { background: var(--soft); }
table.facts td { white-space: normal; vertical-align: top; }
img { max-width: 100%; height: auto; background: white; }
pre { overflow-x: auto; background: var(--soft); padding: .6rem; font-size: .8rem; margin: .3rem 0; }
.caption { font-size: .9rem; max-width: 60rem; }
summary { cursor: pointer; margin: .3rem 0; }
"""

TEMPLATES = {
    "page": """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<h1>{{ title }}</h1>
{% block body %}{% endblock %}
</body>
</html>""",
    "sections": """{% macro section(built) %}
{{ built.html() }}
<p class="caption">{{ built.caption }}</p>
{% for note in built.notes %}
{% if note.lines %}
<details><summary>{{ note.text }}</summary><pre>{{ note.lines | join("\n") }}</pre></details>
{% else %}
<p class="caption">{{ note.text }}</p>
{% endif %}
{% endfor %}
{% endmacro %}""",
    "single": """{% extends "page" %}
{% from "sections" import section %}
{% block body %}
{{ section(built) }}
{% endblock %}""",
    "report": """{% extends "page" %}
{% from "sections" import section %}
{% block body %}
<p>{{ results.description }}</p>
<p>{{ results.records | length }} records of {{ results.planned | length }} planned runs.</p>
{% for built in tables %}
<h2 id="{{ built.name }}">{{ built.title }}</h2>
{{ section(built) }}
{% endfor %}
<h2 id="environment">Environment of the runs</h2>
<div class="scroll"><table class="facts"><tbody>
{% for name, value in environment %}
<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}
</tbody></table></div>
<h2 id="data">Model and data</h2>
<div class="scroll"><table class="facts">
<thead><tr><th>what</th><th>source</th><th>size</th><th>licence</th></tr></thead>
<tbody>
{% for row in data %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
<h2 id="rerun">How to rerun a row</h2>
<p>All that is missing or outdated: <code>snakemake --cores N --configfile {{ results.config }}</code>. One row:</p>
{% for name, commands in rows %}
<details><summary>{{ name }}</summary><pre>{{ commands | join("\n") }}</pre></details>
{% endfor %}
{% endblock %}""",
}
