"""How much smaller and, by its arithmetic, how much faster a pruned model is than the dense one."""

import math

from obert.masks.counts import Sparsity
from obert.records.record import COMPONENTS, Record
from obert.tables import Results
from obert.tables._measured import Group, groups
from obert.tables._scopes import ENCODER, mean_of

PRODUCTS = "products"  # multiply-adds of activations with each other, which pruning leaves


def pruned_groups(results: Results) -> list[Group]:
    """The groups of all tasks that have zeros."""
    return [group for task in results.tasks for group in groups(results, task) if group.key.method and group.sparsity]


def compression_ratio(results: Results, group: Group) -> float:
    """Parameters of the task's dense model over those of a model that are not zero, first seed; NaN if not counted."""
    record, dense = group.records[0], results.dense(group.key.task)
    zeros, parameters = _zeros(record.sparsity), record.model.get("parameters")
    if dense is None or zeros is None or not parameters:
        return math.nan
    return dense.model.get("parameters", math.nan) / (parameters - zeros)


def theoretical_speedup(results: Results, group: Group) -> float:
    """Multiply-adds of the task's dense model over those that a model's zeros leave; NaN where none were counted.

    They are counted when a model is exported; pruning does not change how many there are.
    """
    dense = results.dense(group.key.task)
    of_dense = None if dense is None else _multiply_adds(results.by_key.get(dense.key.at("export")))
    own = _multiply_adds(results.by_key.get(group.key.at("export")))
    if own is None and dense is not None and group.layers == dense.model.get("layers"):
        own = of_dense
    if own is None or of_dense is None:
        return math.nan
    left = own[PRODUCTS] + sum(
        count * (1 - mean_of(group, lambda sparsity, part=part: _share(sparsity, part)))
        for part, count in own.items()
        if part != PRODUCTS
    )
    return sum(of_dense.values()) / left


def _multiply_adds(export: Record | None) -> dict[str, float] | None:
    return None if export is None else export.details.get(COMPONENTS, {}).get("multiply_adds")


def _zeros(sparsity: Sparsity | None) -> int | None:
    if sparsity is None:
        return None
    return sum(counted.zeros for counted in (sparsity.parts or sparsity.layers).values())


def _share(sparsity: Sparsity, part: str) -> float:
    """The share of a part's weights that are zero; records of before counted the encoder alone, as it was in scope."""
    if sparsity.parts:
        counted = sparsity.parts[part]
        return counted.zeros / counted.size if counted.size else 0.0
    return sparsity.measured if part == ENCODER else 0.0
