"""Random pruning: what is left when a score says nothing, the floor of every comparison."""

import torch
from torch import Tensor

from obert.pruning import Context, Method


class Random(Method):
    """Scores are uniform random numbers of the run's own seed. Nothing is updated."""

    def score(self, context: Context) -> dict[str, Tensor]:
        """Uniform in [0, 1), drawn on the CPU so that every device prunes the same."""
        return {
            name: torch.rand(weight.shape, generator=context.generator).to(weight.device)
            for name, weight in context.weights.items()
        }
