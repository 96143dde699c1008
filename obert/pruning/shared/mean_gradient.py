"""What methods share that look at one gradient of the loss: its mean over a minibatch, or over several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from obert.pruning import Context
from obert.pruning.shared.gradient_based import GradientBased


class MeanGradient(GradientBased):
    """A method that takes one gradient of every weight at a pruning event, pruned weights included."""

    small_settings: ClassVar = {"gradient_batch_size": 8}

    num_gradients: int = Field(1, gt=0, description="minibatches whose gradients are averaged")
    gradients: Literal["minibatch"] = Field("minibatch", description="one gradient a minibatch")
    gradient_batch_size: int = Field(16, gt=0, description="examples of a minibatch")

    def mean_gradient(self, context: Context) -> dict[str, Tensor]:
        """The gradient of the mean loss, float32, by the weight's name, in its shape."""
        mean = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in context.weights.items()}
        for name, gradients in self.draw(context, mean):
            mean[name] += gradients.values.sum(dim=0) / self.num_gradients
        return mean

    def memory_bytes(self, sizes: Mapping[str, int]) -> int:
        """A number for each weight, and one more while it is drawn."""
        return 8 * sum(sizes.values())
