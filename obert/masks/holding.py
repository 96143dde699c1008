"""Zeros that are set and held."""

from collections.abc import Mapping

import torch
from torch import Tensor

from obert.masks.selection import Masks


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
