"""What a pruning method does while the model trains: how masks act on weights, and what it learns on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from obert.masks.holding import Holding
from obert.masks.patterns import UNSTRUCTURED

if TYPE_CHECKING:
    from obert.masks.patterns import AnyPattern, Pattern
    from obert.masks.selection import Masks


class TrainingHook:
    """One object a run. This one keeps pruned weights at zero and out of the way, for good.

    Attributes:
        returns: pruned weights may return, as every event ranks all weights anew.
        rewinds: an event also sets parameters back that are not pruned.
    """

    returns: ClassVar[bool] = False
    rewinds: ClassVar[bool] = False

    def __init__(self, layers: dict[str, nn.Linear]):
        self.layers = layers
        self._holding = Holding()

    @property
    def weights(self) -> dict[str, Tensor]:
        """The prunable weights as they are stored, detached, by name."""
        return {name: layer.weight.detach() for name, layer in self.layers.items()}

    def impose(self, masks: Masks) -> None:
        """Make the model's weights those of the masks."""
        self._holding.apply(self.weights, masks)

    def after_event(self, masks: Masks, optimizer: torch.optim.Optimizer | None) -> None:
        """Called when a pruning event is over, with the new masks; in one-shot pruning there is no optimiser."""

    def after_step(self, masks: Masks, at_target: bool) -> None:
        """Called after every optimiser step, while the step's gradients are still there.

        Args:
            at_target: the last sparsity of the schedule is reached.
        """
        self.impose(masks)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The optimiser's parameter groups that hold what the method learns besides the weights."""
        return []

    def penalty(self, progress: float) -> Tensor | None:
        """A term of the training loss.

        Args:
            progress: the present sparsity over the target.
        """
        return None

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold besides model, optimiser and masks."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""

    def finish(self) -> None:
        """Training is over: leave plain weights, pruned ones zero."""


class _Masked(torch.autograd.Function):
    """weight * mask. The straight-through gradient of scores is as if the mask were they (Sanh et al. 2020, eq. 3)."""

    @staticmethod
    def forward(ctx, weight: Tensor, mask: Tensor, scores: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, mask)
        return weight * mask

    @staticmethod
    def backward(ctx, gradient: Tensor):
        weight, mask = ctx.saved_tensors
        return gradient * mask, None, gradient * weight if ctx.needs_input_grad[2] else None


class _Mask(nn.Module):
    """Parametrization of a linear layer's weight."""

    def __init__(self, weight: Tensor, pattern: Pattern | None):
        """
        Args:
            pattern: of the groups that have a score each, or None without scores.
        """
        super().__init__()
        self.pattern = pattern
        self.register_buffer("kept", torch.ones_like(weight, dtype=torch.bool), persistent=False)
        scores = None if pattern is None else nn.Parameter(weight.new_zeros(weight.numel() // pattern.size))
        self.register_parameter("scores", scores)

    def forward(self, weight: Tensor) -> Tensor:
        return _Masked.apply(weight, self.kept, self.scores if self.scores is None else self.expanded_scores())

    def expanded_scores(self) -> Tensor:
        """The score of each weight's group, in the weight's shape."""
        return self.pattern.ungroup(self.scores[:, None].expand(-1, self.pattern.size), self.kept.shape)


class WeightsBehindMasks(TrainingHook):
    """Pruned weights keep their values behind the mask, without a gradient, and may return.

    Args:
        learning_rate: initial one of the scores, if scores are learned.
        pattern: a group that is pruned whole has one score; where a group keeps weights, each weight has its own.
    """

    returns = True

    def __init__(
        self, layers: dict[str, nn.Linear], learning_rate: float | None = None, pattern: AnyPattern = UNSTRUCTURED
    ):
        super().__init__(layers)
        self.learning_rate = learning_rate
        patterns = pattern.by_layer({name: layer.weight.shape for name, layer in layers.items()})
        for name, layer in layers.items():
            scored = patterns[name] if patterns[name].largest_sparsity == 1 else UNSTRUCTURED
            mask = _Mask(layer.weight, None if learning_rate is None else scored)
            parametrize.register_parametrization(layer, "weight", mask)

    def _masks(self) -> dict[str, _Mask]:
        return {name: layer.parametrizations.weight[0] for name, layer in self.layers.items()}

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights behind the masks."""
        return {name: layer.parametrizations.weight.original.detach() for name, layer in self.layers.items()}

    @property
    def group_scores(self) -> dict[str, nn.Parameter]:
        """The learned scores [groups], by the name of their weight."""
        return {name: mask.scores for name, mask in self._masks().items()}

    @property
    def scores(self) -> dict[str, Tensor]:
        """The learned scores in their weights' shape, detached."""
        return {name: mask.expanded_scores().detach() for name, mask in self._masks().items()}

    def impose(self, masks: Masks) -> None:
        """Change the masks; the weights stay."""
        for name, mask in self._masks().items():
            mask.kept = masks[name]

    def after_step(self, masks: Masks, at_target: bool) -> None:
        """Nothing: the mask is in the forward pass."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The scores, without weight decay."""
        if self.learning_rate is None:
            return []
        return [{"params": list(self.group_scores.values()), "lr": self.learning_rate, "weight_decay": 0.0}]

    def finish(self) -> None:
        """Leave weight * mask as the weight."""
        for layer in self.layers.values():
            parametrize.remove_parametrizations(layer, "weight")
