"""Pruning methods, one file each. A method gives every weight a score and, if it has one, an update of the others, and
a hook that is called during training.

Masks, schedule, layer list, data and training are not its business: they are the same for every method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from obert.masks.patterns import UNSTRUCTURED, AnyPattern
from obert.masks.selection import Distribution, Masks, dense_masks, global_masks, uniform_masks
from obert.pruning._training_hooks import TrainingHook

if TYPE_CHECKING:
    from collections.abc import Mapping


class GradientData(Protocol):
    """Minibatches to take gradients on, drawn at random with a seed of their own: the same `draw`, the same data."""

    def examples(self, count: int, batch_size: int, draw: int) -> Iterator[Any]:
        """Minibatches that hold `count` examples together, in whatever company saves time."""

    def minibatches(self, count: int, batch_size: int, draw: int) -> Iterator[Any]:
        """`count` minibatches, each a random sample of the data."""


@dataclass(frozen=True)
class Context:
    """What a method may look at when weights are pruned. The model is in evaluation mode.

    Attributes:
        layers: the prunable linear layers, by the name of their weight.
        masks: present masks, True where a weight is kept.
        data: gives minibatches.
        losses: hard-label losses [batch] of a minibatch.
        generator: seeded random generator.
        pattern: which weights are pruned together.
        distribution: one cut over all tensors, or the same sparsity in each.
        hook: the method's training hook; that of `TrainingHook` by default.
        distillation_losses: distillation losses [batch] of a minibatch, where there is a teacher.
        draw: counts the recomputations of this event.
        details: what a method leaves for the event's record, by name.
    """

    layers: dict[str, nn.Linear]
    masks: Masks
    data: GradientData
    losses: Callable[[Any], Tensor]
    generator: torch.Generator
    pattern: AnyPattern = UNSTRUCTURED
    distribution: Distribution = "global"
    hook: TrainingHook | None = None
    distillation_losses: Callable[[Any], Tensor] | None = None
    draw: int = 0
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.hook is None:
            object.__setattr__(self, "hook", TrainingHook(self.layers))

    @property
    def weights(self) -> dict[str, Tensor]:
        """The prunable weights, detached, by name; those behind the masks, where a hook keeps them."""
        return self.hook.weights


class Method(BaseModel):
    """A pruning method. Its fields are the hyper-parameters that a recipe may set under `methods.<name>`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def score(self, context: Context) -> dict[str, Tensor]:
        """A score for every prunable weight, in its shape. The lowest are pruned, over all tensors together.

        In a pattern of groups, the score of a weight is that of the cheapest set of its group with the weight in it.
        """
        raise NotImplementedError

    def update(self, context: Context, pruned: Masks) -> dict[str, Tensor]:
        """Changes to add to the weights that stay, given those about to be pruned (True). None by default.

        Called right after `score`, with the same context.
        """
        return {}

    def training_hook(
        self, network: nn.Module, layers: dict[str, nn.Linear], pattern: AnyPattern = UNSTRUCTURED
    ) -> TrainingHook:
        """What the method does while the model trains; by default it holds pruned weights at zero."""
        return TrainingHook(layers)

    def steps_needed(self) -> int:
        """Optimiser steps that the scores need to have seen; a method that needs any cannot prune in one shot."""
        return 0

    def targets(self, present: float, sparsity: float) -> tuple[float, ...]:
        """The sparsities that one pruning event passes through, from the present one to the last."""
        return (sparsity,)

    def check_pattern(self, pattern: AnyPattern) -> None:
        """Raise UserError if the method's parameters do not fit the pattern."""

    def memory_bytes(self, sizes: Mapping[str, int]) -> int:
        """Estimated peak memory of a pruning event beyond the model's own, for tensors of these sizes."""
        return 0

    def gradient_examples(self) -> int:
        """Distinct training features that one pruning event draws."""
        return 0


@torch.no_grad()
def prune(method: Method, context: Context, sparsity: float) -> Masks:
    """One pruning event: score, exact global masks, update of the remaining weights. Weights change in place.

    Weights pruned earlier are not moved by the update, and stay pruned unless the hook lets them return.

    Returns:
        The new masks.
    """
    kept = torch.cat([mask.flatten() for mask in context.masks.values()])
    present = 1 - int(kept.sum()) / kept.numel()
    weights = context.weights
    make_masks = {"global": global_masks, "uniform": uniform_masks}[context.distribution]
    for draw, target in enumerate(method.targets(present, sparsity)):
        open_masks = dense_masks(weights) if context.hook.returns else context.masks
        masks = make_masks(method.score(context), open_masks, target, context.pattern)
        pruned = {name: context.masks[name] & ~mask for name, mask in masks.items()}
        for name, change in method.update(context, pruned).items():
            weights[name].add_(change)
        context.hook.impose(masks)
        context = replace(context, masks=masks, draw=draw + 1)
    return context.masks
