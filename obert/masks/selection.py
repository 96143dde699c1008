"""Masks with exact counts, made alike for every method."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from obert.foundation.errors import UserError
from obert.masks.patterns import UNSTRUCTURED, AnyPattern, Pattern

Masks = dict[str, Tensor]
Distribution = Literal["global", "uniform"]


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
    pruned = _cheapest(costs, patterns, sum(mask.numel() for mask in masks.values()), sparsity)
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


def uniform_masks(
    scores: Mapping[str, Tensor], masks: Masks, sparsity: float, pattern: AnyPattern = UNSTRUCTURED
) -> Masks:
    """As `global_masks`, with the same sparsity in every tensor."""
    return {name: global_masks({name: scores[name]}, {name: masks[name]}, sparsity, pattern)[name] for name in masks}
