"""The look of the pages: plain HTML that fits any window and asks no other server for anything."""

from dataclasses import dataclass

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup


@dataclass(frozen=True)
class Block:
    """Rows under one heading, each with what the report tells to rerun it (or nothing) and its cells."""

    heading: str
    rows: list[tuple[str, list[str]]]


@dataclass(frozen=True)
class Part:
    """One table of a page.

    Attributes:
        header: rows of (text, columns that it spans).
        is_text: of each column.
    """

    title: str
    header: list[list[tuple[str, int]]]
    is_text: list[bool]
    blocks: list[Block]


def render(template: str, **values: object) -> str:
    """A page from a template, "single" or "report"."""
    environment = Environment(
        loader=DictLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    return environment.get_template(template).render(style=Markup(STYLE), **values) + "\n"


STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; --link: light-dark(#0550ae, #79b8ff); }
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 88rem; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.35rem; margin: 3rem 0 0; padding-bottom: .2rem; border-bottom: 2px solid var(--line); }
h3 { font-size: 1.1rem; margin: 2rem 0 .5rem; } h4 { font-size: .95rem; margin: 1.2rem 0 .3rem; }
p, nav, summary { max-width: 60rem; overflow-wrap: anywhere; }
a { color: var(--link); text-underline-offset: .15em; }
nav { margin: 1rem 0; font-size: .95rem; } nav p { margin: .3rem 0; } nav a { margin-right: .8rem; }
.note { font-size: .88rem; margin: .5rem 0; }
.warnings { border-left: .3rem solid #d08700; padding: .1rem .8rem; margin: 1rem 0; background: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 0; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th.text, td.text, .facts td { text-align: left; }
thead th { background: linear-gradient(var(--soft), var(--soft)), Canvas; }
thead th[colspan] { text-align: left; border-left: 1px solid var(--line); }
tbody th { position: sticky; left: 0; background: Canvas; font-weight: 600; border-right: 1px solid var(--line); }
tr.heading td { text-align: left; padding-top: .8rem; font-weight: 600; }
tr.heading span { position: sticky; left: .6rem; display: inline-block; white-space: normal;
  max-width: min(60rem, 100vw - 3rem); }
tbody tr:hover td { background: var(--soft); }
.facts td { white-space: normal; vertical-align: top; overflow-wrap: anywhere; min-width: 6rem; }
img { display: block; width: var(--width); max-width: 100%; height: auto; background: white; border-radius: .3rem; }
pre { overflow-x: auto; background: var(--soft); padding: .6rem; font-size: .8rem; margin: .3rem 0; }
code { overflow-wrap: anywhere; }
summary { cursor: pointer; margin: .4rem 0; }
:target { outline: 2px solid var(--link); outline-offset: .3rem; }
@media (max-width: 40rem) {
  body { padding: .8rem; }
  th, td { padding: .25rem .45rem; }
  img { width: calc(.8 * var(--width)); min-width: min(100%, var(--width)); max-width: none; }
}
"""
TEMPLATES = {
    "page": """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<h1>{{ title }}</h1>
{% block body %}{% endblock %}
</body>
</html>""",
    "macros": """{% macro notes(found) %}
{% for note in found %}
{% if note.lines %}
<details class="note"><summary>{{ note.text }}</summary><pre>{{ note.lines | join("\n") }}</pre></details>
{% else %}
<p class="note">{{ note.text }}</p>
{% endif %}
{% endfor %}
{% endmacro %}
{% macro table(part, linked) %}
<div class="scroll"><table>
<thead>
{% for row in part.header %}
<tr>
{% for text, span in row %}
<th{% if span > 1 %} colspan="{{ span }}"{% elif loop.first or part.is_text[loop.index0] %} class="text"{% endif %}>
{{- text }}</th>
{% endfor %}
</tr>
{% endfor %}
</thead>
<tbody>
{% for block in part.blocks %}
{% if block.heading %}
<tr class="heading"><td colspan="{{ part.is_text | length }}"><span>{{ block.heading }}</span></td></tr>
{% endif %}
{% for anchor, cells in block.rows %}
<tr>
{% for cell in cells %}
{% if loop.first %}
<th scope="row" class="text">
{%- if linked and anchor %}<a href="#{{ anchor | urlencode }}">{{ cell }}</a>{% else %}{{ cell }}{% endif %}</th>
{% else %}
<td{% if part.is_text[loop.index0] %} class="text"{% endif %}>{{ cell }}</td>
{% endif %}
{% endfor %}
</tr>
{% endfor %}
{% endfor %}
</tbody></table></div>
{% endmacro %}
{% macro section(built, linked) %}
{% if built.image %}
{% set source, width = built.image %}
<div class="scroll"><img alt="{{ built.title }}" src="{{ source }}" style="--width: {{ width }}px"></div>
{% else %}
{% for part in built.parts %}
{% if part.title %}
<h4>{{ part.title }}</h4>
{% endif %}
{{ table(part, linked) }}
{% endfor %}
{% endif %}
<p class="note">{{ built.caption }}</p>
{{ notes(built.notes) }}
{% endmacro %}""",
    "single": """{% extends "page" %}
{% from "macros" import section, notes %}
{% block body %}
{{ section(built, false) }}
{{ notes(built.warnings) }}
{% endblock %}""",
    "report": """{% extends "page" %}
{% from "macros" import section, notes %}
{% block body %}
<p>{{ results.description }}</p>
<p>{{ results.records | length }} records of {{ results.planned | length }} planned runs.</p>
{% if results.warnings %}
<div class="warnings">{{ notes(results.warnings) }}</div>
{% endif %}
<nav aria-label="Contents">
{% for name, tables in sections.items() %}
<p>{{ name }}: {% for built in tables %}<a href="#{{ built.name }}">{{ built.title }}</a> {% endfor %}</p>
{% endfor %}
<p>About the runs: <a href="#environment">Environment</a> <a href="#data">Model and data</a>
<a href="#rerun">How to rerun a row</a>{% if empty %} <a href="#empty">Not measured</a>{% endif %}</p>
</nav>
{% for name, tables in sections.items() %}
<h2>{{ name }}</h2>
{% for built in tables %}
<h3 id="{{ built.name }}">{{ built.title }}</h3>
{{ section(built, true) }}
{% endfor %}
{% endfor %}
<h2>About the runs</h2>
<h3 id="environment">Environment</h3>
<div class="scroll"><table class="facts"><tbody>
{% for name, value in environment %}
<tr><th class="text" scope="row">{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}
</tbody></table></div>
<h3 id="data">Model and data</h3>
<div class="scroll"><table class="facts">
<thead><tr>
{% for name in ("what", "source", "size", "licence") %}
<th class="text">{{ name }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in data %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
<h3 id="rerun">How to rerun a row</h3>
<p>All that is missing or outdated: <code>snakemake --cores N --configfile {{ results.config }}</code>. One row of a
leaderboard, with what is exported and timed of it, in this order:</p>
{% for task, models in reruns.items() %}
<details><summary>{{ task }}: {{ models | length }} models</summary>
{% for anchor, name, commands in models %}
<div id="{{ anchor }}"><h4>{{ name }}</h4><pre>{{ commands | join("\n") }}</pre></div>
{% endfor %}
</details>
{% endfor %}
{% if empty %}
<h3 id="empty">Not measured</h3>
<p>These tables and figures have nothing to show in this experiment.</p>
{% for built in empty %}
<h4>{{ built.title }}</h4>
{{ notes(built.notes) }}
{% endfor %}
{% endif %}
{% endblock %}""",
}
