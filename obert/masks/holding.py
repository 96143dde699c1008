"""Zeros that are set and held."""

from collections.abc import Mapping

import torch
from torch import Tensor

from obert.masks.selection import Masks


@torch.no_grad()
def apply_masks(weights: Mapping[str, Tensor], masks: Masks) -> None:
    """Set pruned weights to exactly zero, in place; once. `Holding` does so at every step."""
    for name, mask in masks.items():
        weights[name].mul_(mask)


class Holding:
    """Sets pruned weights to zero again and again, under masks that rarely change.

    A device multiplies many tensors in a few kernels if masks are of the weights' type, and a CPU does not convert them
    each time. So they are converted once, at the price of memory for as many numbers as there are weights.
    """

    def __init__(self):
        self._masks: list[tuple[Tensor, int]] = []
        self._factors: list[Tensor] = []

    @torch.no_grad()
    def apply(self, weights: Mapping[str, Tensor], masks: Masks) -> None:
        """Set pruned weights to exactly zero, in place."""
        if not masks:
            return
        own = [weights[name] for name in masks]
        if not self._holds(own, masks):
            self._masks = [(mask, mask._version) for mask in masks.values()]
            self._factors = [mask.to(weight) for mask, weight in zip(masks.values(), own, strict=True)]
        torch._foreach_mul_(own, self._factors)

    def _holds(self, weights: list[Tensor], masks: Masks) -> bool:
        """Whether the factors are those of these masks, for weights of their type and place."""
        if len(masks) != len(self._masks):
            return False
        pairs = zip(self._masks, masks.values(), strict=True)
        same = all(mask is known and mask._version == version for (known, version), mask in pairs)
        fits = zip(self._factors, weights, strict=True)
        return same and all(factor.dtype == own.dtype and factor.device == own.device for factor, own in fits)


class FixedPattern:
    """The zeros of a model, which stay zero whatever is done to it."""

    def __init__(self, weights: Mapping[str, Tensor]):
        self.masks = {name: weight != 0 for name, weight in weights.items()}
        self._holding = Holding()

    def hold(self, weights: Mapping[str, Tensor]) -> None:
        """Set the weights of the pattern to zero, in place."""
        self._holding.apply(weights, self.masks)

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
