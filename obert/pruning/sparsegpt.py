"""SparseGPT (Frantar and Alistarh 2023, arXiv 2301.00774): columns pruned from left to right, the rest making up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from obert.foundation.errors import UserError
from obert.masks.patterns import AnyPattern, Pattern
from obert.masks.selection import Masks, global_masks
from obert.pruning import Context, Proposal, Update
from obert.pruning.shared.input_based import InputBased, dampened, parts_in_order, restored
from obert.second_order.rows import inverted

Choose = Callable[[slice, Tensor], Tensor]


@dataclass(frozen=True)
class ColumnsProposal(Proposal):
    """A mask of each matrix, as scores of 0 (pruned) and 1, and what the update is made from.

    Attributes:
        context: that the masks are of.
        solvers: of the matrices, by the name of their weight.
    """

    context: Context = field(kw_only=True)
    solvers: Mapping[str, Columns] = field(kw_only=True)

    def update(self, pruned: Masks) -> Update:
        """What columns to the right make up for, for a given mask."""
        changes = {}
        for name, weight in self.context.weights.items():
            gone = pruned[name] | ~self.context.masks[name]
            changes[name] = self.solvers[name].change(weight, lambda columns, _, gone=gone: gone[:, columns])
        return Update(changes)


@dataclass(frozen=True)
class Columns:
    """The removal of weights of one matrix, in blocks of columns from the first.

    Attributes:
        factor: upper Cholesky factor of the inverse of the dampened Hessian, float64 [in, in]. Its row i holds, up to a
            factor, column i of the inverse of what is left of the Hessian without the columns before i.
        unused: True for inputs that are always zero [in].
        blocks: of columns whose masks are chosen together.
    """

    factor: Tensor
    unused: Tensor
    blocks: list[slice]

    def change(self, weight: Tensor, choose: Choose) -> Tensor:
        """What is added to a weight [out, in], in its type; zero where it is pruned.

        Args:
            choose: given a block and the removal costs of its weights now [out, columns], up to a factor, says which
                are pruned: True for those.
        """
        values, gone = weight.double().masked_fill(self.unused, 0), torch.zeros_like(weight, dtype=torch.bool)
        for columns in self.blocks:
            inside = self.factor[columns, columns]
            own = values[:, columns]
            gone[:, columns] = chosen = choose(columns, own.square() / inside.diagonal().square())
            errors = torch.zeros_like(own)
            for i in range(own.shape[1]):
                errors[:, i] = (own[:, i] * chosen[:, i]) / inside[i, i]
                own[:, i:] -= errors[:, i : i + 1] * inside[i, i:]
            values[:, columns.stop :] -= errors @ self.factor[columns, columns.stop :]
        return (values - weight).masked_fill_(gone | self.unused, 0).to(weight.dtype)


class SparseGPT(InputBased):
    """Optimal Brain Surgeon for the squared error of each layer's output, with one order for all rows: columns are
    pruned from left to right, and what a weight's removal costs is made up for by the columns right of it alone.

    The mask is chosen a block of columns at a time, just before the block is pruned, by w^2 / [H^-1]_jj, with the
    target's share of zeros in each block; in N:M patterns a group at a time. H is the mean of x x' over the tokens of
    the layer's input, and `dampening` of its mean diagonal. As in the source's code, the model is pruned one layer
    after the other: inputs are those behind the pruned layers before it, and all matrices of a layer see those of the
    dense layer.
    """

    compares_within: ClassVar = "uniform"

    block_size: int = Field(128, gt=0, description="columns whose masks are chosen together, and updated lazily")
    dampening: float = Field(0.01, ge=0, description="lambda, a share of the mean diagonal of the Hessian")

    def check_pattern(self, pattern: AnyPattern) -> None:
        """Groups must not straddle blocks."""
        super().check_pattern(pattern)
        if self.block_size % pattern.size:
            raise UserError(f"block_size {self.block_size} must be a multiple of {pattern.size} for pattern {pattern}")

    def propose(self, context: Context) -> ColumnsProposal:
        """The masks, chosen layer by layer and block by block."""
        self.check_pattern(context.pattern)
        weights, scores, solvers = context.weights, {}, {}
        with restored(weights):
            for names in parts_in_order(weights):
                for name, products in self.products(context, names).items():
                    weight, solvers[name] = weights[name], self._columns(name, products, context.pattern)
                    chosen = _Chosen(context.masks[name], context.targets[name], context.pattern)
                    weight.add_(solvers[name].change(weight, chosen)).masked_fill_(chosen.gone, 0)
                    scores[name] = (~chosen.gone).float()
        return ColumnsProposal(scores, context=context, solvers=solvers)

    def _columns(self, name: str, products: Tensor, pattern: Pattern) -> Columns:
        hessian, unused = dampened(products, self.dampening)
        factor = torch.linalg.cholesky(inverted(hessian, name), upper=True)
        size = self.block_size if pattern.zeros == pattern.size else pattern.size
        return Columns(factor, unused, list(_blocks(len(hessian), size)))

    def memory_bytes(self, sizes: Mapping[str, int]) -> int:
        """Factors, 14 bytes a weight where the inner layer is four times as wide as the others; scores and weights."""
        return 22 * sum(sizes.values()) + 40 * max(sizes.values())


class _Chosen:
    """Chooses the mask of each block, so that the matrix has the target's number of zeros in the end."""

    def __init__(self, kept: Tensor, sparsity: float, pattern: Pattern):
        self.kept, self.pattern = kept, pattern
        self.gone = torch.zeros_like(kept)
        self.target = pattern.groups_at(kept.numel(), sparsity)
        self.done = 0

    def __call__(self, columns: slice, costs: Tensor) -> Tensor:
        kept, zeros = self.kept[:, columns], self.pattern.zeros
        closed, closed_after = (self._closed(self.kept[:, part]) for part in (columns, slice(columns.stop, None)))
        share = round(self.target * columns.stop / self.kept.shape[1]) - self.done
        count = min(max(share, closed), self.target - self.done - closed_after)
        sparsity = count * zeros / kept.numel()
        gone = torch.ones_like(kept)
        if sparsity < 1:
            gone = ~global_masks({"block": costs}, {"block": kept}, sparsity, self.pattern)["block"]
        self.done += count
        self.gone[:, columns] = gone
        return gone

    def _closed(self, kept: Tensor) -> int:
        return int((~kept).sum()) // self.pattern.zeros


def _blocks(width: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, width)) for start in range(0, width, size))
