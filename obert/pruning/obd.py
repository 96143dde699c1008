"""Optimal Brain Damage (LeCun, Denker and Solla 1990), with the diagonal of the empirical Fisher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from obert.masks.patterns import Pattern
from obert.pruning import Context
from obert.pruning.shared.gradient_based import GradientBased
from obert.second_order.fisher import GRADIENT_SLAB_BYTES
from obert.second_order.gradients import row_slabs


class OptimalBrainDamage(GradientBased):
    """The loss increase w^2 h / 2 with a diagonal Hessian h (LeCun et al. 1990). The other weights are not changed.

    h is lambda + mean g^2 over single examples, the empirical Fisher's diagonal, where the source has the loss's second
    derivatives and no lambda. The same as oBERT in blocks of one, at 4 bytes a weight.
    """

    small_settings: ClassVar = {"num_gradients": 32, "gradient_batch_size": 8}

    gradients: Literal["per_example", "minibatch"] = Field(
        "per_example", description="one gradient an example, as the Fisher has it, or one a minibatch"
    )
    dampening: float = Field(0.0, ge=0, description="lambda")

    def score(self, context: Context) -> dict[str, Tensor]:
        """w^2 (lambda + mean g^2) / 2; in a group, summed over the cheapest set with the weight in it."""
        budget = GRADIENT_SLAB_BYTES[next(iter(context.masks.values())).device.type]
        costs = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in context.weights.items()}
        patterns = context.pattern.by_layer({name: weight.shape for name, weight in costs.items()})
        for name, gradients in self.draw(context, costs):
            for rows, values in row_slabs(gradients, len(costs[name]), budget):
                costs[name][rows] += values.square().sum(dim=0).view(-1, gradients.row_size)
        for name, weight in context.weights.items():
            costs[name].div_(self.num_gradients).add_(self.dampening).mul_(weight).mul_(weight).div_(2)
            costs[name] = _group_costs(costs[name], patterns[name])
        return costs

    def memory_bytes(self, sizes: Mapping[str, int]) -> int:
        """A number for each weight, and what groups of the largest tensor are sorted with."""
        return 4 * sum(sizes.values()) + 24 * max(sizes.values())


def _group_costs(costs: Tensor, pattern: Pattern) -> Tensor:
    """For each weight, the sum of the costs of the cheapest set of its group with the weight in it."""
    groups = pattern.groups(costs)
    cheapest = groups.sort(dim=-1).values[..., : pattern.zeros]
    # A weight outside of the cheapest set takes the place of the dearest one in it.
    sums = cheapest.sum(dim=-1, keepdim=True) + (groups - cheapest[..., -1:]).clamp_min(0)
    return pattern.ungroup(sums, costs.shape)
