"""The whole report as one page: tables and figures by section, what they were made with, and how to rerun a row."""

import re
from collections.abc import Mapping

from obert.data.wheels import ASSETS, PREFIX
from obert.experiment.keys import RunKey
from obert.records.record import Record
from obert.report.built import BuiltTable
from obert.report.html import render
from obert.tables import Results
from obert.tables._measured import DENSE, scale_text

PAGE_BYTES = 5_000_000  # of all tables and figures in the report: a browser opens that at once


def report_page(results: Results, tables: list[BuiltTable], sizes: Mapping[str, int] | None = None) -> str:
    """The report: what was measured first, then what stands beside a paper's numbers.

    A table without anything measured has one line at the end.

    Args:
        sizes: bytes of the tables' own pages, by name. The largest are linked, so that the rest is within PAGE_BYTES;
            by default all are in the report.
    """
    measured = [built for built in tables if built.table.is_measured(built.content)]
    sections: dict[str, list[BuiltTable]] = {}
    for built in sorted(measured, key=lambda one: one.table.paper is not None):
        sections.setdefault(built.table.section, []).append(built)
    return render(
        "report.html.j2",
        title=f"{results.experiment}: compression benchmark",
        results=results,
        sections=sections,
        linked=_linked({name: size for name, size in (sizes or {}).items() if name in {one.name for one in measured}}),
        scale=scale_text(results),
        summary=_summary(results.of_kind(on_task=True)),
        empty=[(built, _what_is_missing(built)) for built in tables if built not in measured],
        environment=_environment(results.records),
        data=_data(results.of_stage("teacher", "downstream")),
        reruns=_reruns(results),
    )


def _summary(records: list[Record]) -> list[tuple[str, str]]:
    """What the runs on tasks differ in: (what, values)."""
    keys = [record.key for record in records]
    sparsities = sorted({key.sparsity for key in keys if key.sparsity})
    found = {
        "tasks": dict.fromkeys(key.task for key in keys),
        "methods": dict.fromkeys(key.method for key in keys if key.method),
        "recipes": dict.fromkeys(key.recipe for key in keys),
        "sparsities": [f"{100 * sparsity:g} %" for sparsity in sparsities],
        "seeds": sorted({str(key.seed) for key in keys}),
    }
    return [(what, ", ".join(values)) for what, values in found.items() if values]


def _what_is_missing(built: BuiltTable) -> str:
    """The last of a table's notes, which says what it lacks, without what leads to commands: they are on its page."""
    return re.sub(r"\s*[^.]*:$", "", built.notes[-1].text) if built.notes else ""


def _linked(sizes: Mapping[str, int]) -> set[str]:
    """The largest of some pages, as few as leave the others within PAGE_BYTES together."""
    left, linked = sum(sizes.values()), set()
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if left <= PAGE_BYTES:
            break
        linked.add(name)
        left -= sizes[name]
    return linked


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
