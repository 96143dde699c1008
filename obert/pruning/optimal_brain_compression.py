"""Optimal Brain Compression (Frantar, Singh and Alistarh 2022, arXiv 2208.11580): ExactOBS, greedy in each row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from obert.masks.selection import Masks
from obert.pruning import Context, Proposal, Update
from obert.pruning.shared.input_based import InputBased, dampened
from obert.second_order.rows import inverted, refitted, removal_scores


@dataclass(frozen=True)
class RowsProposal(Proposal):
    """Scores with the Hessians that they are from.

    Attributes:
        context: that the scores are of.
        hessians: by the name of the weight, with the inputs that are always zero.
    """

    context: Context = field(kw_only=True)
    hessians: Mapping[str, tuple[Tensor, Tensor]] = field(kw_only=True)

    def update(self, pruned: Masks) -> Update:
        """The least squared error of each layer's output with the weights that are left."""
        changes = {}
        for name, weight in self.context.weights.items():
            hessian, unused = self.hessians[name]
            stays = self.context.masks[name] & ~pruned[name]
            change = refitted(hessian, weight.double().masked_fill(unused, 0), stays)
            changes[name] = change.masked_fill_(unused, 0).to(weight.dtype)
        return Update(changes)


class OptimalBrainCompression(InputBased):
    """Optimal Brain Surgeon for the squared error of each layer's output, exact in each row of the matrix.

    In each row, weights are removed one at a time, each time the one with the least w^2 / [H^-1]_jj, and the others are
    moved to their optimum and H^-1 is downdated. Which row loses how many weights is then chosen over all rows of the
    matrix: again and again the row whose next removal costs least. H is the mean of x x' over the tokens of the layer's
    input in the dense model. Layers do not see each other's pruning.

    Groups of a pattern are removed whole, each by its cheapest set.
    """

    compares_within: ClassVar = "uniform"
    small_settings: ClassVar = {"examples": 16, "dampening": 0.1}  # so few inputs have no inverse without it

    dampening: float = Field(0.0, ge=0, description="lambda, a share of the mean diagonal of the Hessian")

    def propose(self, context: Context) -> RowsProposal:
        """The cost of each removal, or of the dearest before it in its row."""
        self.check_pattern(context.pattern)
        hessians, scores = {}, {}
        for name, products in self.products(context, context.weights).items():
            weight, kept = context.weights[name], context.masks[name]
            hessian, unused = hessians[name] = dampened(products, self.dampening)
            values = weight.double().masked_fill(unused, 0) * kept
            found = removal_scores(hessian, inverted(hessian, name), values, kept, context.pattern)
            scores[name] = found.to(weight.dtype)
        return RowsProposal(scores, context=context, hessians=hessians)

    def memory_bytes(self, sizes: Mapping[str, int]) -> int:
        """Hessians, 14 bytes a weight where the inner layer is four times as wide as the others, and scores; the rows
        that are worked on at a time."""
        return 18 * sum(sizes.values()) + 32 * max(sizes.values()) + 1_000_000_000
