"""M-FAC (Frantar, Kurtic and Alistarh 2021, arXiv 2107.03356): the inverse of the whole Fisher, without its matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from obert.foundation.errors import UserError
from obert.foundation.memory import free_memory
from obert.masks.patterns import UNSTRUCTURED, AnyPattern
from obert.masks.selection import Masks
from obert.pruning import Context, Proposal, Update
from obert.pruning.shared.gradient_based import GradientBased
from obert.second_order.fisher import GRADIENT_SLAB_BYTES
from obert.second_order.gradients import row_slabs
from obert.second_order.matrix_free import BlockInverse, Form


@dataclass(frozen=True)
class MatrixFreeProposal(Proposal):
    """Scores with what they were made from.

    Attributes:
        context: that the scores are of.
        inverse: F^-1 over the remaining weights.
        diagonal: of F^-1, [d].
    """

    context: Context = field(kw_only=True)
    inverse: BlockInverse = field(kw_only=True)
    diagonal: Tensor = field(kw_only=True)

    def update(self, pruned: Masks) -> Update:
        """The sum of the pruned weights' own updates, for the weights that stay."""
        masks = self.context.masks
        chosen = _compact(pruned, masks)
        multipliers = _compact(self.context.weights, masks).div_(self.diagonal).mul_(chosen)
        change = self.inverse.product(multipliers).neg_().mul_(~chosen)
        return Update(_spread(change, masks))


class MatrixFree(GradientBased):
    """Optimal Brain Surgeon with F = lambda I + 1/m G'G over the remaining weights of all layers together.

    The weights that remain are one vector of length d, of which F^-1 is applied from the m gradients
    (`obert/second_order/matrix_free.py`). Score w^2 / (2 [F^-1]_jj); the update is the sum of the pruned weights' own,
    -w_j / [F^-1]_jj F^-1 e_j. Defaults are those of the paper's code (`prun.py` of IST-DASLab/M-FAC), but for the
    block, 128 there.
    """

    small_settings: ClassVar = {"num_gradients": 8, "gradient_batch_size": 4, "recomputations": 2}

    num_gradients: int = Field(64, gt=0, description="m; all of them are kept, 4 bytes a weight each")
    gradient_batch_size: int = Field(32, gt=0, description="examples of a pass; the unit of gradients: minibatch")
    recomputations: int = Field(16, gt=0, description="sub-steps of an event, with fresh gradients")
    recomputation_spacing: Literal["linear", "geometric"] = Field(
        "geometric", description="even steps of sparsity, or even ratios of density (the source's)"
    )
    dampening: float = Field(1e-5, gt=0, description="lambda")
    block_size: int | None = Field(
        None, gt=0, description="B: consecutive remaining weights, across rows and layers; by default one block of all"
    )
    form: Form = Field(
        "static", description="static: vectors of the recursion in the gradients' place; dynamic: the gradients kept"
    )

    def check_pattern(self, pattern: AnyPattern) -> None:
        """Single weights only: groups would need [F^-1]_QQ, of which only the diagonal is cheap without the matrix."""
        if pattern != UNSTRUCTURED:
            raise UserError(
                f"method mfac prunes single weights, not pattern {pattern}: set pattern: unstructured, or leave mfac "
                "out of 'methods'"
            )

    def propose(self, context: Context) -> MatrixFreeProposal:
        """The loss increase w^2 / (2 [F^-1]_jj) of each remaining weight."""
        self.check_pattern(context.pattern)
        if context.draw == 0:
            self._check_memory(context.masks)
        gradients = self._collect(context)
        block_size = self.block_size or gradients.shape[1]
        inverse = BlockInverse(self.form, gradients, self.dampening, block_size)
        diagonal = inverse.diagonal()
        scores = _compact(context.weights, context.masks).square_().div_(diagonal).div_(2)
        return MatrixFreeProposal(_spread(scores, context.masks), context=context, inverse=inverse, diagonal=diagonal)

    def _collect(self, context: Context) -> Tensor:
        """G [m, d], the gradients of the remaining weights only, in the masks' order."""
        counts = [int(mask.sum()) for mask in context.masks.values()]
        first = next(iter(context.masks.values()))
        result = torch.zeros(self.num_gradients, sum(counts), device=first.device)
        parts = dict(zip(context.masks, result.split(counts, dim=1), strict=True))
        done = dict.fromkeys(context.masks, 0)
        for name, gradients in self.draw(context, list(context.masks)):
            own = parts[name][done[name] : done[name] + len(gradients)]
            done[name] += len(gradients)
            at = 0
            for rows, values in row_slabs(gradients, len(context.masks[name]), GRADIENT_SLAB_BYTES[first.device.type]):
                remaining = values[:, context.masks[name][rows].flatten()]
                own[:, at : at + remaining.shape[1]] = remaining
                at += remaining.shape[1]
        return result

    def _check_memory(self, masks: Masks) -> None:
        """Raise UserError before the first gradient if they take more than there is."""
        needed = self.memory_bytes({name: int(mask.sum()) for name, mask in masks.items()})
        free = free_memory(next(iter(masks.values())).device)
        print(f"gradients: {needed / 1e9:.2f} GB", flush=True)
        if needed > free:
            raise UserError(
                f"{self.num_gradients} gradients need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free. Lower "
                "num_gradients"
            )

    def memory_bytes(self, sizes: Mapping[str, int]) -> int:
        """The m gradients of all weights, and vectors of the weights' length beside them."""
        weights = sum(sizes.values())
        held = BlockInverse.memory_bytes(self.form, self.num_gradients, weights, self.block_size or weights)
        return held + 20 * weights


def _compact(values: Mapping[str, Tensor], masks: Masks) -> Tensor:
    """The values of the remaining weights of all layers, as one vector."""
    return torch.cat([values[name][mask] for name, mask in masks.items()])


def _spread(vector: Tensor, masks: Masks) -> dict[str, Tensor]:
    """What `_compact` made one, in the masks' shapes; zero where a weight is pruned."""
    parts = vector.split([int(mask.sum()) for mask in masks.values()])
    return {
        name: torch.zeros(mask.shape, dtype=vector.dtype, device=vector.device).masked_scatter_(mask, part)
        for (name, mask), part in zip(masks.items(), parts, strict=True)
    }
