"""RigL (Evci et al. 2020, arXiv 1911.11134): a sparse network that drops its smallest weights and grows others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from obert.foundation.errors import UserError
from obert.masks.patterns import UNSTRUCTURED, AnyPattern
from obert.masks.selection import Masks
from obert.pruning import Context
from obert.pruning.shared.mean_gradient import MeanGradient
from obert.pruning.shared.training_hooks import TrainingHook


class _Growing(TrainingHook):
    """Pruned weights are zero after every step, and may return."""

    returns: ClassVar[bool] = True

    @torch.no_grad()
    def after_event(self, masks: Masks, optimizer: torch.optim.Optimizer | None) -> None:
        """Forget the optimiser's averages of what has grown: kept weights that are zero."""
        for name, layer in self.layers.items() if optimizer is not None else ():
            grown = masks[name] & (layer.weight == 0)
            for average in optimizer.state.get(layer.weight, {}).values():
                if isinstance(average, Tensor) and average.shape == grown.shape:
                    average.masked_fill_(grown, 0)


class RigL(MeanGradient):
    """In each layer, an event drops a share of the kept weights, those of the smallest magnitude, and grows as many of
    the pruned ones, those with the largest gradient of a minibatch. Grown weights start at zero, with the optimiser's
    averages at zero.

    As in the source, what was just dropped may be grown again, and keeps its value then; layers keep their numbers of
    weights; the share falls by a cosine, from `share` at the first step of training to 0 at the last event. What
    training starts from is the first event's: the source's layers are sparse at random, here the smallest weights of
    the start are pruned, in all layers together or in each (`distribution`). The recipe's `schedule.rerank_until_epoch`
    says how long weights are exchanged. While the sparsity still rises, as many fewer grow as are to be pruned.

    The source takes the gradient of the step's own minibatch, in training mode; here a minibatch is drawn for it, in
    evaluation mode.
    """

    share: float = Field(0.3, ge=0, le=1, description="of a layer's weights that the first exchange drops, alpha")

    def check_pattern(self, pattern: AnyPattern) -> None:
        """Single weights only: what a group would start from is not said."""
        if pattern != UNSTRUCTURED:
            raise UserError(
                f"method rigl exchanges single weights, not pattern {pattern}: set pattern: unstructured, or leave "
                "rigl out of 'methods'"
            )

    def training_hook(
        self, network: nn.Module, layers: dict[str, nn.Linear], pattern: AnyPattern = UNSTRUCTURED
    ) -> TrainingHook:
        """Holds pruned weights at zero, where gradients still reach them."""
        return _Growing(layers)

    def score(self, context: Context) -> dict[str, Tensor]:
        """Three tiers, float64: kept weights by magnitude, above those to grow by gradient, above the rest."""
        gradients = {name: gradient.abs_() for name, gradient in self.mean_gradient(context).items()}
        weights = {name: weight.abs() for name, weight in context.weights.items()}
        steepest, largest = _largest(gradients), _largest(weights)
        start = all(bool(mask.all()) for mask in context.masks.values())  # nothing has been pruned: nothing is to grow
        share = 0.0 if start else self.share * (1 + math.cos(math.pi * context.progress)) / 2
        scores = {}
        for name, kept in context.masks.items():
            exchanged = int(share * int(kept.sum()))
            smallest = weights[name].masked_fill(~kept, torch.inf).flatten().argsort(stable=True)
            stays = kept & ~_first(smallest, exchanged, kept)
            grows = _first(_by_gradient(gradients[name].masked_fill(stays, -1), weights[name]), exchanged, kept)
            scores[name] = (gradients[name].double() / steepest).add_(grows, alpha=2)
            scores[name][stays] = 4 + weights[name][stays].double() / largest
        return scores

    def memory_bytes(self, sizes: Mapping[str, int]) -> int:
        """Gradients, magnitudes and scores, and what the largest tensor is sorted with."""
        return super().memory_bytes(sizes) + 12 * sum(sizes.values()) + 40 * max(sizes.values())


def _largest(values: Mapping[str, Tensor]) -> float:
    """The largest of all, or 1 where all are zero."""
    return max(float(value.max()) for value in values.values()) or 1.0


def _by_gradient(gradients: Tensor, weights: Tensor) -> Tensor:
    """Positions from the largest gradient down; of equal ones, such as the zeros of words that the minibatch lacks, the
    largest weight first, so that what was dropped comes back."""
    by_weight = weights.flatten().argsort(descending=True, stable=True)
    return by_weight[gradients.flatten()[by_weight].argsort(descending=True, stable=True)]


def _first(order: Tensor, count: int, like: Tensor) -> Tensor:
    """True at the first positions of an order, in the shape of `like`."""
    chosen = torch.zeros_like(like).flatten()
    chosen[order[:count]] = True
    return chosen.view_as(like)
