"""Pruning methods, one file each. A method gives every weight a score and, if it has one, an update of the others.

Masks, schedule, layer list, data and training are not its business: they are the same for every method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from obert.sparsity import Masks, apply_masks, global_masks

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Context:
    """What a method may look at when weights are pruned. The model is in evaluation mode.

    Attributes:
        layers: the prunable linear layers, by the name of their weight.
        masks: present masks, True where a weight is kept.
        batches: `batches(sizes)` gives minibatches of these sizes of training features, drawn at random with a seed of
            their own; `batches(sizes, by_length=True)` puts features of similar length together, which saves padding
            where it makes no difference.
        losses: hard-label losses [batch] of a minibatch.
        generator: seeded random generator.
    """

    layers: dict[str, nn.Linear]
    masks: Masks
    batches: Callable[..., Iterator[Any]]
    losses: Callable[[Any], Tensor]
    generator: torch.Generator

    @property
    def weights(self) -> dict[str, Tensor]:
        """The prunable weights, detached, by name."""
        return {name: layer.weight.detach() for name, layer in self.layers.items()}


class Base(BaseModel):
    """A pruning method. Its fields are the hyper-parameters that a recipe may set under `methods.<name>`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def score(self, context: Context) -> dict[str, Tensor]:
        """A score for every prunable weight, in its shape. The lowest are pruned, over all tensors together."""
        raise NotImplementedError

    def update(self, context: Context, pruned: Masks) -> dict[str, Tensor]:
        """Changes to add to the weights that stay, given those about to be pruned (True). None by default.

        Called right after `score`, with the same context.
        """
        return {}

    def memory_bytes(self, sizes: Mapping[str, int]) -> int:
        """Estimated peak memory of a pruning event beyond the model's own, for tensors of these sizes."""
        return 0

    def gradient_examples(self) -> int:
        """Distinct training features that one pruning event draws."""
        return 0


@torch.no_grad()
def prune(method: Base, context: Context, sparsity: float) -> Masks:
    """One pruning event: score, exact global masks, update of the remaining weights. Weights change in place.

    Weights pruned earlier are not moved by the update.

    Returns:
        The new masks.
    """
    masks = global_masks(method.score(context), context.masks, sparsity)
    pruned = {name: context.masks[name] & ~mask for name, mask in masks.items()}
    weights = context.weights
    for name, change in method.update(context, pruned).items():
        weights[name].add_(change)
    apply_masks(weights, masks)
    return masks
