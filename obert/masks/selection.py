"""Masks with exact counts, made alike for every method."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from obert.foundation.errors import UserError
from obert.masks.patterns import UNSTRUCTURED, AnyPattern, Distribution, Pattern

Masks = dict[str, Tensor]


@dataclass(frozen=True)
class Cut:
    """Weights, by name, that are ranked together and pruned to one sparsity."""

    names: tuple[str, ...]
    sparsity: float


def dense_masks(weights: Mapping[str, Tensor]) -> Masks:
    """Masks (True: kept) that keep every weight."""
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}


def global_masks(
    scores: Mapping[str, Tensor], masks: Masks, sparsity: float, pattern: AnyPattern = UNSTRUCTURED
) -> Masks:
    """Masks in which the groups with the lowest scores of all n weights are pruned: exactly round(n * sparsity / zeros)
    of a pattern's groups; of groups of different sizes as few as prune n * sparsity weights or more.

    In a group the weights with the lowest scores are the ones to prune; the group's score is their mean. Groups that
    are pruned already stay as they are. Among equal scores the first in model order are pruned.

    Args:
        scores: one tensor of scores for each mask, of the mask's shape; those of pruned groups are not looked at.
        masks: the present masks, True where a weight is kept.

    Raises:
        ValueError: the target is below the present sparsity, or outside [0, 1).
        UserError: the target is more than the pattern allows, or a score is not finite; its tensor is named.
    """
    return _lowest(scores, masks, sparsity, pattern, _cheapest)


def uniform_masks(
    scores: Mapping[str, Tensor], masks: Masks, sparsity: float, pattern: AnyPattern = UNSTRUCTURED
) -> Masks:
    """As `global_masks`, with the same sparsity in every tensor."""
    return {name: global_masks({name: scores[name]}, {name: masks[name]}, sparsity, pattern)[name] for name in masks}


def row_masks(scores: Mapping[str, Tensor], masks: Masks, sparsity: float, pattern: AnyPattern = UNSTRUCTURED) -> Masks:
    """As `uniform_masks`, with the same sparsity in every row of a tensor as well.

    What does not divide by the rows is pruned from those where one more group costs least, so that rows differ by one
    group. A row that has lost more already keeps what it has, and the others lose the less.

    Raises:
        UserError: a group lies in several rows.
    """
    for name, of_layer in pattern.by_layer({name: mask.shape for name, mask in masks.items()}).items():
        if of_layer.rows > 1:
            raise UserError(f"pattern {pattern}: groups of tensor '{name}' lie in several rows, which are compared")
    return {
        name: _lowest({name: scores[name]}, {name: mask}, sparsity, pattern, _cheapest_in_rows(len(mask)))[name]
        for name, mask in masks.items()
    }


MAKERS: dict[Distribution, Callable[..., Masks]] = {"global": global_masks, "uniform": uniform_masks, "row": row_masks}
"""What makes the masks of a distribution."""


def _lowest(
    scores: Mapping[str, Tensor], masks: Masks, sparsity: float, pattern: AnyPattern, cheapest: Callable[..., Masks]
) -> Masks:
    """Masks in which the groups that `cheapest` names are pruned besides those that are pruned already."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity {sparsity} is outside [0, 1)")
    if sparsity > pattern.largest_sparsity:
        raise UserError(f"sparsity {sparsity:g} is more than pattern {pattern} allows ({pattern.largest_sparsity:g})")
    patterns = pattern.by_layer({name: mask.shape for name, mask in masks.items()})
    kept = {name: patterns[name].groups(mask) for name, mask in masks.items()}
    done = {name: ~groups.all(dim=1) for name, groups in kept.items()}
    chosen, costs = {}, {}
    for name, of_layer in patterns.items():
        groups = of_layer.groups(scores[name])
        if not torch.isfinite(groups[~done[name]]).all():
            raise UserError(f"pruning scores of tensor '{name}' are not finite: raise the dampening, or check the loss")
        chosen[name] = torch.ones_like(kept[name])
        if of_layer.zeros < of_layer.size:
            lowest = groups.argsort(dim=1, stable=True)[:, : of_layer.zeros]
            chosen[name] = torch.zeros_like(kept[name]).scatter_(1, lowest, True)
        means = torch.where(chosen[name], groups, 0).sum(dim=1) / of_layer.zeros
        costs[name] = means.masked_fill(done[name], -torch.inf)
    pruned = cheapest(costs, patterns, sum(mask.numel() for mask in masks.values()), sparsity)
    target, already = (sum(int(groups.sum()) for groups in found.values()) for found in (pruned, done))
    if target < already:
        raise ValueError(f"target of {target} pruned groups is below the {already} that are pruned already")
    return {
        name: of_layer.ungroup(kept[name] & ~(chosen[name] & (pruned[name] & ~done[name]).unsqueeze(1)), mask.shape)
        for (name, of_layer), mask in zip(patterns.items(), masks.values(), strict=True)
    }


def _cheapest(costs: Masks, patterns: Mapping[str, Pattern], weights: int, sparsity: float) -> Masks:
    """True for the groups to prune, by tensor [groups]."""
    everywhere = torch.cat(list(costs.values()))
    if len({of_layer.zeros for of_layer in patterns.values()}) == 1:
        count = next(iter(patterns.values())).groups_at(weights, sparsity)
        pruned = torch.zeros_like(everywhere, dtype=torch.bool)
        if count:
            cut = torch.kthvalue(everywhere, count).values
            pruned = everywhere < cut
            ties = torch.nonzero(everywhere == cut).flatten()
            pruned[ties[: count - int(pruned.sum())]] = True
    else:
        zeros = torch.cat([torch.full_like(c, patterns[name].zeros, dtype=torch.long) for name, c in costs.items()])
        order = everywhere.argsort(stable=True)
        before = zeros[order].cumsum(0) - zeros[order]
        pruned = torch.zeros_like(everywhere, dtype=torch.bool)
        pruned[order] = before < round(weights * sparsity)
    parts = pruned.split([len(c) for c in costs.values()])
    return dict(zip(costs, parts, strict=True))


def _cheapest_in_rows(rows: int) -> Callable[..., Masks]:
    """As `_cheapest`, of one tensor of so many rows."""

    def cheapest(costs: Masks, patterns: Mapping[str, Pattern], weights: int, sparsity: float) -> Masks:
        ((name, of_tensor),) = costs.items()
        total = patterns[name].groups_at(weights, sparsity)
        ordered, order = of_tensor.view(rows, -1).sort(dim=1, stable=True)
        done = torch.isneginf(ordered).sum(dim=1)
        levels = torch.arange(ordered.shape[1] + 1, device=done.device)
        sums = torch.stack([done.clamp_min(level).sum() for level in levels])
        if total < sums[0]:
            raise ValueError(f"target of {total} pruned groups is below the {int(sums[0])} that are pruned already")
        level = int((sums <= total).sum()) - 1  # that every row reaches
        counts = done.clamp_min(level)
        rest = total - int(counts.sum())
        if rest:
            following = ordered[:, level].masked_fill(done > level, torch.inf)
            counts[following.argsort(stable=True)[:rest]] += 1
        pruned = torch.zeros_like(ordered, dtype=torch.bool)
        pruned.scatter_(1, order, levels[:-1] < counts[:, None])
        return {name: pruned.flatten()}

    return cheapest
