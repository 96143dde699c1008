"""Masks with exact counts made alike for every method, and the measurement of what is zero."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from obert.errors import UserError
from obert.patterns import UNSTRUCTURED, AnyPattern, Pattern
from obert.records import LayerSparsity, Sparsity

Masks = dict[str, Tensor]
Distribution = Literal["global", "uniform"]


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


@torch.no_grad()
def apply_masks(weights: Mapping[str, Tensor], masks: Masks) -> None:
    """Set pruned weights to exactly zero, in place."""
    for name, mask in masks.items():
        weights[name].mul_(mask)


class FixedPattern:
    """The zeros of a model, which stay zero whatever is done to it."""

    def __init__(self, weights: Mapping[str, Tensor]):
        self.masks = {name: weight != 0 for name, weight in weights.items()}

    def hold(self, weights: Mapping[str, Tensor]) -> None:
        """Set the weights of the pattern to zero, in place."""
        apply_masks(weights, {name: mask.to(weights[name].device) for name, mask in self.masks.items()})

    def check(self, weights: Mapping[str, Tensor], where: str) -> dict[str, int]:
        """How many zeros the pattern has, and how many of them `weights` has.

        Raises:
            RuntimeError: a weight of the pattern is not zero.
        """
        kept = {name: int((weights[name].cpu()[~mask.cpu()] == 0).sum()) for name, mask in self.masks.items()}
        before = {name: int((~mask).sum()) for name, mask in self.masks.items()}
        for name, count in before.items():
            if kept[name] < count:
                lost = count - kept[name]
                raise RuntimeError(f"{where}: {lost} weights of '{name}' are zero upstream and are not zero any more")
        return {"zeros_before": sum(before.values()), "zeros_kept": sum(kept.values())}


def measure(weights: Mapping[str, Tensor], target: float) -> Sparsity:
    """Count the zeros of every prunable weight."""
    layers = {
        name: LayerSparsity(zeros=weight.numel() - int(torch.count_nonzero(weight)), size=weight.numel())
        for name, weight in weights.items()
    }
    zeros, size = (sum(getattr(layer, field) for layer in layers.values()) for field in ("zeros", "size"))
    return Sparsity(target=target, measured=zeros / size, layers=layers)


def assert_sparsity(
    measured: Sparsity, where: str, pattern: AnyPattern = UNSTRUCTURED, distribution: Distribution = "global"
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
        wanted = round(size * measured.target)
        if isinstance(pattern, Pattern):
            wanted = pattern.groups_at(size, measured.target) * pattern.zeros
        if zeros < wanted:
            raise RuntimeError(
                f"{where}, {name}: {zeros} of {size} weights are zero, the target {measured.target:g} asks {wanted}"
            )
    return measured
