"""The hyper-parameters by which the recipes of an experiment differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from obert.experiment.scaling import DECIDED
from obert.stages import stage
from obert.statistics.formatting import DASH
from obert.tables import Note, Results, Table

OF_ROW = ("stage", "recipe")
METHOD = "methods"


class HyperParameters(Table):
    """A row a recipe, a column for each value that is not the same in all of them."""

    title = "Hyper-parameters"
    caption = (
        "The values by which the recipes of this experiment differ, by their keys, with defaults and with what the "
        "experiment changes in them. Several values are those of several tasks or sparsities, in the order of the "
        "configuration. What `scaling` decides by the sparsity is left out. A dash: the recipe has no such value."
    )

    paper = "how_to_prune"
    split_by = ("stage",)

    def build(self, results: Results) -> pd.DataFrame:
        rows = _rows(results)
        names = [name for name in _names(rows) if len({row.get(name, "") for row in rows.values()}) > 1]
        content = [(*of_row, *(row.get(name, "") for name in names)) for of_row, row in rows.items()]
        return pd.DataFrame(content, columns=[*OF_ROW, *names])

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        return content.map(lambda value: value or DASH)

    def notes(self, results: Results) -> tuple[Note, ...]:
        rows = _rows(results)
        if not rows:
            return (Note("No recipe is known yet."),)
        first = next(iter(rows.values()))
        alike = [
            f"{name} {first[name]}"
            for name in _names(rows)
            if first.get(name) and all(row.get(name) == first[name] for row in rows.values())
        ]
        return (Note(f"The same in all rows: {'; '.join(alike)}."),) if alike and len(rows) > 1 else ()


def _rows(results: Results) -> dict[tuple[str, str], dict[str, str]]:
    """Values in words by their keys, for each recipe."""
    found: dict[tuple[str, str], dict[str, dict[str, None]]] = {}
    for key in results.planned:
        specification = results.specification(key)
        if stage(key.stage).trains and specification.get("recipe"):
            row = found.setdefault((key.stage, key.recipe), {})
            for name, value in _values(key.method, specification):
                row.setdefault(name, {})[_text(value)] = None
    return {of_row: {name: " / ".join(texts) for name, texts in row.items()} for of_row, row in found.items()}


def _names(rows: Mapping[tuple[str, str], Mapping[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows.values() for name in row))


def _values(method: str | None, specification: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The values of a run's recipe, and of its method, by their keys with dots."""
    recipe = {name: value for name, value in specification["recipe"].items() if name not in OF_ROW}
    scaled = recipe.get("scaling") is not None
    for name, value in _flat(recipe):
        if value is not None and not (scaled and name.startswith(DECIDED)):
            yield name, value
    for name, value in _flat(specification.get("method") or {}):
        if value is not None:
            yield f"{METHOD}.{method}.{name}", value


def _flat(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
