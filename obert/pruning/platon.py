"""PLATON (Zhang et al. 2022, arXiv 2206.12562): sensitivity times its uncertainty, both smoothed over training."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from obert.foundation.errors import UserError
from obert.masks.patterns import UNSTRUCTURED, AnyPattern
from obert.pruning import Context, Method
from obert.pruning.shared.training_hooks import TrainingHook

if TYPE_CHECKING:
    from obert.masks.selection import Masks


class _Sensitivity(TrainingHook):
    """Smooths |w g| over windows. Pruned weights are set to zero by an event and train on from there; at the target
    they are zero after every step."""

    returns: ClassVar[bool] = True

    def __init__(self, layers: dict[str, nn.Linear], method: Platon):
        super().__init__(layers)
        self.method = method
        self.steps = 0
        self.window, self.sensitivity, self.uncertainty = (
            {name: torch.zeros_like(weight) for name, weight in self.weights.items()} for _ in range(3)
        )
        self._parts = {"window": self.window, "sensitivity": self.sensitivity, "uncertainty": self.uncertainty}

    @torch.no_grad()
    def after_step(self, masks: Masks, at_target: bool) -> None:
        """Add a step to the window; a full window goes into the averages."""
        self.steps += 1
        full = self.steps % self.method.window == 0
        for name, layer in self.layers.items():
            self.window[name] += (layer.weight * layer.weight.grad).abs() / self.method.window
            if full:
                window, sensitivity = self.window[name], self.sensitivity[name]
                sensitivity.lerp_(window, 1 - self.method.beta1)
                self.uncertainty[name].lerp_((window - sensitivity).abs(), 1 - self.method.beta2)
                window.zero_()
        if at_target:
            self.impose(masks)

    def state(self) -> dict[str, Tensor]:
        """The averages, the window and the number of steps."""
        tensors = {f"{part}/{name}": value for part, values in self._parts.items() for name, value in values.items()}
        return {**tensors, "steps": torch.tensor(self.steps)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take the averages back."""
        self.steps = int(state["steps"])
        for part, values in self._parts.items():
            for name in values:
                values[name] = state[f"{part}/{name}"]


class Platon(Method):
    """The score is I * U, where I smooths the sensitivity |w g| of windows of steps and U its distance from I.

    As in the source, w is the weight after the optimiser step and g the gradient before it, clipped; averages start at
    zero without bias correction; pruned weights may return, and are ranked anew as long as the recipe's
    `schedule.rerank_until_epoch` says. Its recipes prune once a window.
    """

    small_settings: ClassVar = {"window": 2}

    beta1: float = Field(0.85, ge=0, lt=1, description="smoothing of the sensitivity")
    beta2: float = Field(0.95, ge=0, lt=1, description="smoothing of the uncertainty; the source sets it by task")
    window: int = Field(10, gt=0, description="steps that are averaged before smoothing, Delta T")

    def training_hook(
        self, network: nn.Module, layers: dict[str, nn.Linear], pattern: AnyPattern = UNSTRUCTURED
    ) -> _Sensitivity:
        """Keeps the averages."""
        return _Sensitivity(layers, self)

    def steps_needed(self) -> int:
        """A full window."""
        return self.window

    def score(self, context: Context) -> dict[str, Tensor]:
        """I * U.

        Raises:
            UserError: every score is zero, so that nothing tells the weights apart.
        """
        scores = {name: i * context.hook.uncertainty[name] for name, i in context.hook.sensitivity.items()}
        if not any(score.any() for score in scores.values()):
            raise UserError("all scores are zero: the gradients vanish. Check the loss and the learning rate")
        return scores
