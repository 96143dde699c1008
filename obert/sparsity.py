"""Masks with exact counts, made alike for every method, and the measurement of what is zero."""

from collections.abc import Mapping

import torch
from torch import Tensor

from obert.errors import UserError
from obert.records import LayerSparsity, Sparsity

Masks = dict[str, Tensor]


def dense_masks(weights: Mapping[str, Tensor]) -> Masks:
    """Masks (True: kept) that keep every weight."""
    return {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}


def global_masks(scores: Mapping[str, Tensor], masks: Masks, sparsity: float) -> Masks:
    """Masks at exactly `round(n * sparsity)` pruned weights of all n, those with the lowest scores.

    Weights that are pruned already stay pruned. Among equal scores the first in model order are pruned.

    Args:
        scores: one tensor of scores for each mask, of the mask's shape; those of pruned weights are not looked at.
        masks: the present masks, True where a weight is kept.

    Raises:
        ValueError: the target is below the present sparsity, or outside [0, 1).
        UserError: a score that is not finite; its tensor is named.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity {sparsity} is outside [0, 1)")
    kept = torch.cat([mask.flatten() for mask in masks.values()])
    target = round(kept.numel() * sparsity)
    already = int((~kept).sum())
    if target < already:
        raise ValueError(f"target of {target} zeros is below the {already} weights that are pruned already")
    for name, mask in masks.items():
        if not torch.isfinite(scores[name][mask]).all():
            raise UserError(f"pruning scores of tensor '{name}' are not finite: raise the dampening, or check the loss")
    flat = torch.cat([scores[name].flatten() for name in masks])
    flat = flat.masked_fill(~kept, -torch.inf)
    pruned = ~kept
    if target > already:
        cut = torch.kthvalue(flat, target).values
        pruned = flat < cut
        ties = torch.nonzero(flat == cut).flatten()
        pruned[ties[: target - int(pruned.sum())]] = True
    sizes = [mask.numel() for mask in masks.values()]
    parts = zip(masks.items(), (~pruned).split(sizes), strict=True)
    return {name: part.view_as(mask) for (name, mask), part in parts}


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


def assert_sparsity(measured: Sparsity, where: str) -> Sparsity:
    """Return `measured`, or raise if fewer weights are zero than the target says.

    More zeros are possible: a kept weight can be exactly zero by itself.

    Raises:
        RuntimeError: a mask was lost on the way.
    """
    size = sum(layer.size for layer in measured.layers.values())
    zeros = sum(layer.zeros for layer in measured.layers.values())
    wanted = round(size * measured.target)
    if zeros < wanted:
        raise RuntimeError(f"{where}: {zeros} of {size} weights are zero, the target {measured.target:g} asks {wanted}")
    return measured
