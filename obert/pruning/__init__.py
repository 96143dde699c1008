"""Pruning methods, one file each. A method gives every weight a score and, if it has one, an update of the others, and
a hook that is called during training.

Masks, schedule, layer list, data and training are not its business: they are the same for every method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from obert.masks.patterns import UNSTRUCTURED, AnyPattern, Distribution
from obert.masks.selection import MAKERS, Cut, Masks, dense_masks
from obert.pruning.shared.training_hooks import TrainingHook, WeightsBehindMasks

__all__ = [
    "Context",
    "GradientData",
    "Method",
    "Proposal",
    "PruningEvent",
    "TrainingHook",
    "Update",
    "WeightsBehindMasks",
    "prune_event",
]


class GradientData(Protocol):
    """Minibatches to take gradients on, drawn at random with a seed of their own: the same `draw`, the same data."""

    def examples(self, count: int, batch_size: int, draw: int) -> Iterator[Any]:
        """Minibatches that hold `count` examples together, in whatever company saves time."""

    def minibatches(self, count: int, batch_size: int, draw: int) -> Iterator[Any]:
        """`count` minibatches, each a random sample of the data."""


@dataclass(frozen=True)
class Context:
    """What a method may look at when weights are pruned; nothing in it is written to. The model is in evaluation mode.

    Attributes:
        hook: the method's training hook, which knows the layers.
        masks: present masks by the name of the weight, in its shape, True where a weight is kept.
        data: gives minibatches.
        losses: hard-label losses [batch] of a minibatch.
        generator: seeded random generator.
        pattern: which weights are pruned together.
        distribution: one cut over all tensors, or the same sparsity in each, or in each row; that of the method,
            where it has one.
        targets: the sparsity of this step by the name of the weight, for methods that compare within tensors; set by
            the event.
        distillation_losses: distillation losses [batch] of a minibatch, where there is a teacher.
        draw: counts the recomputations of this event.
        progress: how far training is on its way to the schedule's last event, from 0 to 1.
        model: that `losses` runs, for methods that look at what its layers are given.
    """

    hook: TrainingHook
    masks: Masks
    data: GradientData
    losses: Callable[[Any], Tensor]
    generator: torch.Generator
    pattern: AnyPattern = UNSTRUCTURED
    distribution: Distribution = "global"
    targets: Mapping[str, float] = field(default_factory=dict)
    distillation_losses: Callable[[Any], Tensor] | None = None
    draw: int = 0
    progress: float = 0.0
    model: nn.Module | None = None

    @property
    def layers(self) -> dict[str, nn.Linear]:
        """The prunable linear layers, by the name of their weight."""
        return self.hook.layers

    @property
    def weights(self) -> dict[str, Tensor]:
        """The prunable weights, detached, by name; those behind the masks, where a hook keeps them."""
        return self.hook.weights


@dataclass(frozen=True)
class Update:
    """What a method does to the weights that stay.

    Attributes:
        changes: added to the weights, by name, in their shapes. A weight that is missing does not change.
        loss_increase: by the name of the weight, what pruning and update add to the loss, as the method predicts it.
            Empty for a method that predicts nothing.
    """

    changes: Mapping[str, Tensor] = field(default_factory=dict)
    loss_increase: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposal:
    """What a method says of one step of a pruning event. It holds whatever its update needs; the method holds nothing.

    Attributes:
        scores: one for every prunable weight, by name, in its shape. The lowest are pruned, over all tensors together,
            or in each tensor or row (`Context.distribution`). In a pattern of groups, the score of a weight is that of
            the cheapest set of its group with the weight in it.
    """

    scores: Mapping[str, Tensor]

    def update(self, pruned: Masks) -> Update:
        """What to do to the weights that stay; nothing by default.

        Args:
            pruned: True for the weights that are pruned now, by name.
        """
        return Update()


class Method(BaseModel):
    """A pruning method. Its fields are the hyper-parameters that a recipe may set under `methods.<name>`.

    A method without an update defines `score`; one with an update defines `propose` in its place. Methods are frozen:
    what is learned in training lives in the hook, what belongs to one event in the proposal.

    Attributes:
        small_settings: values of the fields that make the method cheap: a few dozen examples and steps are enough, and
            blocks are of a dozen or two weights. The contract (`obert.contracts`) and the tests run with them.
        compares_within: what its weights are compared with, where the method is defined by that; otherwise the recipe's
            `distribution` says.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    small_settings: ClassVar[Mapping[str, Any]] = {}
    compares_within: ClassVar[Distribution | None] = None

    def score(self, context: Context) -> dict[str, Tensor]:
        """A score for every prunable weight; see `Proposal.scores`."""
        raise NotImplementedError(f"{type(self).__name__} defines neither 'score' nor 'propose'")

    def propose(self, context: Context) -> Proposal:
        """Scores, and the update that belongs to them. By default, `score` and no update."""
        return Proposal(self.score(context))

    def training_hook(
        self, network: nn.Module, layers: dict[str, nn.Linear], pattern: AnyPattern = UNSTRUCTURED
    ) -> TrainingHook:
        """What the method does while the model trains; by default it holds pruned weights at zero."""
        return TrainingHook(layers)

    def steps_needed(self) -> int:
        """Optimiser steps that the scores need to have seen; a method that needs any cannot prune in one shot."""
        return 0

    def sees_inputs(self) -> bool:
        """Whether scores need the inputs of each layer for each example, which tables of embeddings do not have."""
        return False

    def targets(self, present: float, sparsity: float) -> tuple[float, ...]:
        """The sparsities that one pruning event passes through, from the present one to the last."""
        return (sparsity,)

    def check_pattern(self, pattern: AnyPattern) -> None:
        """Raise UserError if the method's parameters do not fit the pattern."""

    def memory_bytes(self, sizes: Mapping[str, int]) -> int:
        """Estimated peak memory of a pruning event beyond the model's own, for tensors of these sizes."""
        return 0

    def gradient_examples(self) -> int:
        """Distinct training features that one pruning event draws gradients of."""
        return 0

    def forward_examples(self) -> int:
        """Distinct training features that one pruning event passes through the model without taking gradients.

        Such a method calls `Context.losses` with gradients off, as they are in `score` and `propose`, and looks at what
        the layers are given.
        """
        return 0


@dataclass(frozen=True)
class PruningEvent:
    """What a pruning event did.

    Attributes:
        masks: the new ones.
        predicted_loss_increase: by the name of the weight, summed over recomputations; empty where nothing is
            predicted.
    """

    masks: Masks
    predicted_loss_increase: dict[str, float]


def prune_event(method: Method, context: Context, sparsity: float, cuts: Sequence[Cut] | None = None) -> PruningEvent:
    """One pruning event: scores, exact masks, update of the remaining weights. Weights change in place.

    Weights pruned earlier are not moved by the update, and stay pruned unless the hook lets them return.

    Args:
        sparsity: of all weights, which are one cut.
        cuts: in place of that one, several that every weight is in one of, each with a sparsity of its own.
    """
    cuts = [Cut(tuple(context.masks), sparsity)] if cuts is None else cuts
    steps = [method.targets(_pruned_share([context.masks[n] for n in cut.names]), cut.sparsity) for cut in cuts]
    increases: dict[str, float] = {}
    for draw, targets in enumerate(zip(*steps, strict=True)):
        now = [replace(cut, sparsity=target) for cut, target in zip(cuts, targets, strict=True)]
        masks, update = _prune_once(method, context, now)
        for name, increase in update.loss_increase.items():
            increases[name] = increases.get(name, 0.0) + increase
        context = replace(context, masks=masks, draw=draw + 1)
    return PruningEvent(context.masks, increases)


def _pruned_share(masks: Sequence[Tensor]) -> float:
    kept = torch.cat([mask.flatten() for mask in masks])
    return 1 - int(kept.sum()) / kept.numel()


@torch.no_grad()
def _prune_once(method: Method, context: Context, cuts: Sequence[Cut]) -> tuple[Masks, Update]:
    """A step of an event. The proposal, which may hold gigabytes, ends with it: before the next draws its gradients."""
    weights = context.weights
    open_masks = dense_masks(weights) if context.hook.returns else context.masks
    context = replace(
        context,
        distribution=method.compares_within or context.distribution,
        targets={name: cut.sparsity for cut in cuts for name in cut.names},
    )
    make_masks = MAKERS[context.distribution]
    proposal = method.propose(context)
    made: Masks = {}
    for cut in cuts:
        scores, present = ({name: values[name] for name in cut.names} for values in (proposal.scores, open_masks))
        made |= make_masks(scores, present, cut.sparsity, context.pattern)
    masks = {name: made[name] for name in context.masks}
    update = proposal.update({name: context.masks[name] & ~mask for name, mask in masks.items()})
    for name, change in update.changes.items():
        weights[name].add_(change)
    context.hook.impose(masks)
    return masks, update
