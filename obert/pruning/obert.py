"""The Optimal BERT Surgeon (Kurtic et al. 2022, arXiv 2203.07259), unstructured, with the paper's update."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

from pydantic import Field, PrivateAttr
from torch import Tensor
from tqdm import tqdm

from obert.fisher import BlockFisher
from obert.gradients import minibatch_gradients, per_example_gradients
from obert.pruning import Base, Context
from obert.sparsity import Masks


class OptimalBertSurgeon(Base):
    """Second-order scores and updates from a block-diagonal empirical Fisher F (paper, section 3).

    Score of weight q: w_q^2 / (2 [F^-1]_qq), eq. 4 for single weights. Update: -F^-1 e_q w_q / [F^-1]_qq, summed over
    the pruned weights, which neglects their correlation as the paper and its code do. Pruned weights are decoupled:
    their gradients are masked. Gradients: float32, evaluation mode, hard labels (methods.md 9.6).
    """

    num_gradients: int = Field(1024, gt=0, description="m")
    fisher_block_size: int = Field(50, gt=0, description="B")
    dampening: float = Field(1e-7, gt=0, description="lambda")
    gradients: Literal["per_example", "minibatch"] = Field(
        "minibatch", description="one gradient an example, or one a minibatch (the reference's way)"
    )
    gradient_batch_size: int = Field(16, gt=0, description="examples of a pass; the unit of gradients: minibatch")

    _fisher: BlockFisher | None = PrivateAttr(None)

    def score(self, context: Context) -> dict[str, Tensor]:
        """w^2 / (2 diag F^-1)."""
        self._fisher = self._estimate(context)
        return {
            name: weight**2 / (2 * self._fisher.inverse_diagonal(name).view_as(weight))
            for name, weight in context.weights.items()
        }

    def update(self, context: Context, pruned: Masks) -> dict[str, Tensor]:
        """-F^-1 (w_Q / diag F^-1), the sum of the pruned weights' own optimal updates."""
        changes = {}
        for name, weight in context.weights.items():
            ratio = pruned[name] * weight / self._fisher.inverse_diagonal(name).view_as(weight)
            change = -self._fisher.inverse_product(name, ratio.flatten()).view_as(weight)
            changes[name] = change * context.masks[name]
        self._fisher = None
        return changes

    def _estimate(self, context: Context) -> BlockFisher:
        sizes = {name: weight.numel() for name, weight in context.weights.items()}
        device = next(iter(context.weights.values())).device
        fisher = BlockFisher(sizes, self.fisher_block_size, device)
        size = self.gradient_batch_size
        if self.gradients == "per_example":
            compute, last = per_example_gradients, self.num_gradients % size
            batches = [size] * (self.num_gradients // size) + [last] * (last > 0)
        else:
            compute, batches = minibatch_gradients, [size] * self.num_gradients
        drawn = context.batches(batches, by_length=self.gradients == "per_example")
        for batch in tqdm(drawn, total=len(batches), desc="Fisher gradients", leave=False):
            for name, gradient in compute(context.layers, partial(context.losses, batch)):
                fisher.add(name, gradient)
        fisher.invert(self.dampening, context.masks)
        return fisher

    def memory_bytes(self, sizes: Mapping[str, int]) -> int:
        """The blocks, and a batch of gradients of the largest tensor."""
        batch = self.gradient_batch_size if self.gradients == "per_example" else 1
        return BlockFisher.memory_bytes(sizes, self.fisher_block_size) + batch * max(sizes.values()) * 4

    def gradient_examples(self) -> int:
        """Per example: one feature a gradient. Minibatches may meet a feature again in another company."""
        return self.num_gradients if self.gradients == "per_example" else self.gradient_batch_size
