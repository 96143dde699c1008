"""Masks with exact counts made alike for every method, and the measurement of what is zero."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from obert.errors import UserError
from obert.patterns import UNSTRUCTURED, Pattern
from obert.records import LayerSparsity, Sparsity

Masks = dict[str, Tensor]
Distribution = Literal["global", "uniform"]


def dense_masks(weights: Mapping[str, Tensor]) -> Masks:
    """Masks (True: kept) that keep every weight."""
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}


def global_masks(scores: Mapping[str, Tensor], masks: Masks, sparsity: float, pattern: Pattern = UNSTRUCTURED) -> Masks:
    """Masks with exactly `pattern.groups_at(n, sparsity)` pruned groups of all n weights, those with the lowest scores.

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
    pattern.check({name: mask.shape for name, mask in masks.items()})
    kept = torch.cat([mask.flatten() for mask in masks.values()]).view(-1, pattern.size)
    done = ~kept.all(dim=1)
    already = int(done.sum())
    target = pattern.groups_at(kept.numel(), sparsity)
    if target < already:
        raise ValueError(f"target of {target} pruned groups is below the {already} that are pruned already")
    for name, mask in masks.items():
        open_groups = mask.view(-1, pattern.size).all(dim=1)
        if not torch.isfinite(scores[name].reshape(-1, pattern.size)[open_groups]).all():
            raise UserError(f"pruning scores of tensor '{name}' are not finite: raise the dampening, or check the loss")
    flat = torch.cat([scores[name].flatten() for name in masks]).view(-1, pattern.size)
    chosen = torch.ones_like(kept)
    if pattern.zeros < pattern.size:
        lowest = flat.argsort(dim=1, stable=True)[:, : pattern.zeros]
        chosen = torch.zeros_like(kept).scatter_(1, lowest, True)
    costs = torch.where(chosen, flat, 0).sum(dim=1) / pattern.zeros
    costs = costs.masked_fill(done, -torch.inf)
    pruned = done.clone()
    if target > already:
        cut = torch.kthvalue(costs, target).values
        pruned = costs < cut
        ties = torch.nonzero(costs == cut).flatten()
        pruned[ties[: target - int(pruned.sum())]] = True
    kept = kept & ~(chosen & (pruned & ~done).unsqueeze(1))
    sizes = [mask.numel() for mask in masks.values()]
    parts = zip(masks.items(), kept.flatten().split(sizes), strict=True)
    return {name: part.view_as(mask) for (name, mask), part in parts}


def uniform_masks(
    scores: Mapping[str, Tensor], masks: Masks, sparsity: float, pattern: Pattern = UNSTRUCTURED
) -> Masks:
    """As `global_masks`, with the same sparsity in every tensor."""
    return {name: global_masks({name: scores[name]}, {name: masks[name]}, sparsity, pattern)[name] for name in masks}


@torch.no_grad()
def apply_masks(weights: Mapping[str, Tensor], masks: Masks) -> None:
    """Set pruned weights to exactly zero, in place."""
    for name, mask in masks.items():
        weights[name].mul_(mask)


def measure(weights: Mapping[str, Tensor], target: float) -> Sparsity:
    """Count the zeros of every prunable weight."""
    layers = {
        name: LayerSparsity(zeros=weight.numel() - int(torch.count_nonzero(weight)), size=weight.numel())
        for name, weight in weights.items()
    }
    zeros, size = (sum(getattr(layer, field) for layer in layers.values()) for field in ("zeros", "size"))
    return Sparsity(target=target, measured=zeros / size, layers=layers)


def assert_sparsity(
    measured: Sparsity, where: str, pattern: Pattern = UNSTRUCTURED, distribution: Distribution = "global"
) -> Sparsity:
    """Return `measured`, or raise if fewer weights are zero than the target says, in each layer if uniform.

    More zeros are possible: a kept weight can be exactly zero by itself.

    Raises:
        RuntimeError: a mask was lost on the way.
    """
    parts = {name: [layer] for name, layer in measured.layers.items()}
    if distribution == "global":
        parts = {"all layers": list(measured.layers.values())}
    for name, layers in parts.items():
        size, zeros = sum(layer.size for layer in layers), sum(layer.zeros for layer in layers)
        wanted = pattern.groups_at(size, measured.target) * pattern.zeros
        if zeros < wanted:
            raise RuntimeError(
                f"{where}, {name}: {zeros} of {size} weights are zero, the target {measured.target:g} asks {wanted}"
            )
    return measured
