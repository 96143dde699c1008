"""Runs that differ in their scope alone: which weights were pruned, and which runs are a fair comparison."""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from typing import Any

import pandas as pd

from obert.experiment.keys import RunKey
from obert.masks.counts import Sparsity
from obert.stages import stage
from obert.statistics.estimates import Summary
from obert.statistics.formatting import format_number
from obert.tables import Results
from obert.tables._measured import Group, groups, recipe_of
from obert.tables._ranking import differences

PARTS = ("encoder", "embeddings", "head")
ENCODER, ALL = "encoder", "all"
SPARSITIES = {"encoder_sparsity": "encoder %", "whole_model_sparsity": "whole model %"}  # columns, and on a page
NEEDED = (
    "Nothing to compare. Needed: runs of one method that share everything but the recipe's scope and the sparsity, "
    "some of them with zeros in the encoder alone."
)
TOLERANCE = 0.005  # of the weights that two sparsities are fractions of
DENSE_PARTS = {"encoder": True, "embeddings": False, "head": False}


def scope_values(recipe: dict[str, Any]) -> dict[str, Any]:
    """What a recipe says of each part; without a scope it prunes the encoder."""
    return DENSE_PARTS | (recipe.get("scope") or {})


def scope_name(recipe: dict[str, Any]) -> str:
    """E.g. "encoder", "+ embeddings", "+ head at 50 %", "all, one cut", "embeddings" (without the encoder)."""
    values = scope_values(recipe)
    pruned = [part for part in PARTS if values[part] is not False]
    said = {part: f"{part} at {100 * values[part]:g} %" for part in pruned if isinstance(values[part], float)}
    if pruned == list(PARTS):
        name = ", ".join((ALL, *said.values()))
    else:
        named = [said.get(part, part) for part in pruned]
        name = named[0] if len(named) == 1 else "+ " + named[1] if pruned[0] == ENCODER else " and ".join(named)
        if len(named) > 1 and ENCODER in said:
            name += f", {said[ENCODER]}"
    return f"{name}, one cut" if sum(value is True for value in values.values()) > 1 else name


def scope_words(recipe: dict[str, Any]) -> str:
    """What sparsity is of, e.g. "encoder", "encoder and head", "whole model"."""
    pruned = [part for part, value in scope_values(recipe).items() if value is not False]
    return "whole model" if len(pruned) == len(PARTS) else " and ".join(pruned)


def pruning_recipe(results: Results, key: RunKey) -> dict[str, Any]:
    """The recipe that a model's zeros are from: that of the run in its history that pruned."""
    pruning = next((run for run in results.history(key) if stage(run.stage).prunes and run.method), key)
    return results.specification(pruning).get("recipe") or {}


def setting_of(group: Group) -> str:
    """What runs have in common that differ in scope and sparsity alone.

    Of a schedule that scales with the sparsity it is the rule, not the numbers that the rule gives.
    """
    spec = group.records[0].spec
    recipe = {name: value for name, value in recipe_of(group.records[0]).items() if name != "scope"}
    if recipe.get("scaling"):
        recipe.pop("schedule", None)
        training = {name: value for name, value in recipe["training"].items() if name != "epochs"}
        rate = {name: value for name, value in training["learning_rate"].items() if name != "rewind_epochs"}
        recipe["training"] = training | {"learning_rate": rate}
    return json.dumps([spec.get("model"), spec.get("method"), group.key.method, recipe], sort_keys=True)


def mean_of(group: Group, value: Callable[[Sparsity], float | None]) -> float:
    """Mean over seeds of something of their zeros; NaN where no record knows it."""
    return Summary.of(value(record.sparsity) for record in group.records if record.sparsity is not None).mean


def encoder_sparsity(group: Group) -> float:
    """Fraction of the encoder's weights that are zero."""
    return mean_of(group, lambda sparsity: sparsity.encoder)


def whole_sparsity(group: Group) -> float:
    """Fraction of all weights that are zero."""
    return mean_of(group, lambda sparsity: sparsity.whole_model)


def is_wide(group: Group) -> bool:
    """Whether more or other weights than the encoder's were pruned."""
    return any(_is_wide(record.sparsity) for record in group.records if record.sparsity is not None)


def _is_wide(sparsity: Sparsity) -> bool:
    """Sizes tell, since parts may have the same sparsity; a record of before does not have the encoder's."""
    if "encoder" in sparsity.parts:
        return sum(layer.size for layer in sparsity.layers.values()) != sparsity.parts["encoder"].size
    return sparsity.encoder not in (None, sparsity.measured)


@dataclass(frozen=True)
class Family:
    """A task's runs of one setting: those that prune the encoder alone, and the others by the name of their scope."""

    references: tuple[Group, ...]
    others: dict[str, tuple[Group, ...]]


def nearest(candidates: Iterable[Group], group: Group, measure: Callable[[Group], float]) -> Group | None:
    """Of some groups the closest to another one by a measure, None where none is within TOLERANCE."""
    distances = [(abs(measure(other) - measure(group)), other) for other in candidates]
    close = [pair for pair in distances if pair[0] <= TOLERANCE]
    return min(close, key=lambda pair: pair[0])[1] if close else None


def families(results: Results, task: str) -> Iterator[Family]:
    """What can be compared on a task: settings in which more than one scope was run, in the order of the plan.

    Of two recipes that are the same but for their names, the first counts.
    """
    found: dict[str, dict[str, dict[float, Group]]] = {}
    for group in groups(results, task):
        if stage(group.key.stage).prunes and group.key.method is not None:
            by_scope = found.setdefault(setting_of(group), {})
            by_scope.setdefault(scope_name(recipe_of(group.records[0])), {}).setdefault(group.sparsity, group)
    for by_scope in found.values():
        references = by_scope.pop(ENCODER, {})
        if references and by_scope:
            others = {name: tuple(of_scope.values()) for name, of_scope in by_scope.items()}
            yield Family(tuple(references[sparsity] for sparsity in sorted(references)), others)


def change(results: Results, group: Group, reference: Group) -> tuple[float, float, float]:
    """How much higher a group scores than a reference, with the 95 % interval over the seeds that both have."""
    if not group.score.n or not reference.score.n:
        return math.nan, math.nan, math.nan
    return astuple(differences(results, [reference, group])[1, 0].interval())


def percent(values: pd.Series, digits: int = 1) -> list[str]:
    """Fractions as percentages, a dash where there is none."""
    return [format_number(100 * value, digits) for value in values]
