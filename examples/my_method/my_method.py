"""First-order Taylor pruning (Molchanov, Tyree, Karras, Aila and Kautz, ICLR 2017, arXiv 1611.06440, eq. 7 and 8).

Removing a parameter w changes the loss by about |g w|, where g is its gradient. The paper scores feature maps of
convolutional networks; here the parameters are single weights, and groups of them where the pattern asks for it.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from obert.pruning import Context
from obert.pruning.shared.gradient_based import GradientBased
from obert.second_order.gradients import row_slabs

SLAB_BYTES = 64 << 20  # gradients that are unfolded at a time


class FirstOrderTaylor(GradientBased):
    """|w| times the mean of |g| over examples. The other weights are not changed.

    As in the paper, the absolute value is taken of each example's gradient and then averaged: the mean of the gradients
    themselves is near zero in a trained model, and would rank noise.
    """

    small_settings: ClassVar = {"num_gradients": 32, "gradient_batch_size": 8}

    gradients: Literal["per_example", "minibatch"] = Field("per_example", description="one an example, or a minibatch")

    def score(self, context: Context) -> dict[str, Tensor]:
        """|w| mean |g|."""
        scores = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in context.weights.items()}
        for name, gradients in self.draw(context, scores):
            for rows, values in row_slabs(gradients, len(scores[name]), SLAB_BYTES):
                scores[name][rows] += values.abs().sum(dim=0).view(-1, gradients.row_size)
        for name, weight in context.weights.items():
            scores[name].div_(self.num_gradients).mul_(weight.abs())
        return scores

    def memory_bytes(self, sizes: Mapping[str, int]) -> int:
        """A number for each weight, and the slab."""
        return 4 * sum(sizes.values()) + SLAB_BYTES
