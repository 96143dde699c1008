"""Block-diagonal empirical Fisher of weight matrices: accumulation by batched products, exact inversion in slabs.

"The paper" is Kurtic et al. 2022, arXiv 2203.07259.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from obert.foundation.errors import UserError
from obert.second_order import compiled
from obert.second_order.gradients import DenseGradients, Gradients

# What is worked on at a time: within the caches of a CPU, large enough to fill a GPU.
GRADIENT_SLAB_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20}
BLOCK_SLAB_BYTES = {"cpu": 3 << 20, "cuda": 512 << 20}
FLOOR = 1e-30  # of a relative dampening: without any gradient, magnitude decides
LEAF = 25  # LAPACK's small Cholesky factorisations are several times slower per operation above this order


@dataclass(frozen=True)
class Slab:
    """Blocks of one tensor's Fisher, in float64, cut to the coordinates that are not pruned yet.

    Attributes:
        fisher: [blocks, a, a], dampened; coordinates that are not kept are decoupled, with 1 on the diagonal.
        positions: [blocks, a], where the coordinates are in the flattened tensor (padded to whole blocks).
        kept: [blocks, a], False where a coordinate is pruned, or padding.
    """

    fisher: Tensor
    positions: Tensor
    kept: Tensor


class _Blocks:
    """B x B blocks along each flattened row-major tensor; they straddle rows, the last one is padded (paper, 3.2)."""

    def __init__(self, masks: Mapping[str, Tensor], block_size: int):
        """
        Args:
            masks: by tensor, in its shape, True where a weight is kept. Pruned weights are decoupled.
            block_size: B.
        """
        self.block_size = block_size
        self.masks = dict(masks)
        self._blocks = {
            name: torch.zeros(-(-mask.numel() // block_size), block_size, block_size, device=mask.device)
            for name, mask in masks.items()
        }

    @staticmethod
    def memory_bytes(size: int, block_size: int) -> int:
        """Bytes that the blocks of a tensor of `size` weights take: d * B * 4."""
        return -(-size // block_size) * block_size**2 * 4

    def as_blocks(self, values: Tensor) -> Tensor:
        """A tensor's values [any shape] as [blocks, B], padded with zeros."""
        return torch.nn.functional.pad(values.flatten(), (0, -values.numel() % self.block_size)).view(
            -1, self.block_size
        )

    def _slabs(self, name: str, group: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Blocks in float64 with their positions and kept coordinates, those with most kept ones first.

        Groups of `group` coordinates that are all pruned are cut out, so late pruning steps cost little.
        """
        blocks, size = self._blocks[name], self.block_size
        kept = self.as_blocks(self.masks[name])
        present = kept.unflatten(1, (-1, group)).any(dim=2, keepdim=True).expand(-1, -1, group).flatten(1)
        counts = present.sum(dim=1)
        order = counts.argsort(descending=True, stable=True)
        order, start = order[: int((counts > 0).sum())], 0
        while start < len(order):
            width = int(counts[order[start]])
            chosen = order[start : start + max(1, BLOCK_SLAB_BYTES[blocks.device.type] // (8 * width**2))]
            start += len(chosen)
            slab = blocks[chosen].double()
            # In their own order, so that blocks as wide as they ever are need no gathering.
            inside = present[chosen].int().argsort(dim=1, descending=True, stable=True)[:, :width].sort(dim=1).values
            if width < size:
                slab = slab.gather(1, inside[:, :, None].expand(-1, -1, size))
                slab = slab.gather(2, inside[:, None, :].expand(-1, width, -1))
            yield slab, chosen[:, None] * size + inside, kept[chosen].gather(1, inside)


def _decoupled(matrix: Tensor, kept: Tensor) -> Tensor:
    """`matrix` [blocks, a, a] with the rows and columns that are not kept replaced by the identity's, in place."""
    if kept.all():
        return matrix
    matrix.mul_(kept[:, :, None]).mul_(kept[:, None, :])
    matrix.diagonal(dim1=1, dim2=2).add_(~kept)
    return matrix


class BlockFisher(_Blocks):
    """F = lambda I + 1/m sum_i g_i g_i' in blocks (paper, eq. 2), summed by batched products in float32.

    Summed first and inverted once, in float64, it is exact and an order of magnitude faster than the paper's rank-one
    recursion. Memory: d * B * 4 bytes for d weights.
    """

    def __init__(self, masks: Mapping[str, Tensor], block_size: int, dampening: float | str):
        """
        Args:
            dampening: lambda, or a share as in "1%": of the mean of the tensor's diagonal of 1/m sum_i g_i g_i', over
                the weights that are kept.
        """
        super().__init__(masks, block_size)
        self.dampening = dampening
        self._count = dict.fromkeys(masks, 0)

    def add(self, name: str, gradients: Gradients | DenseGradients) -> None:
        """Add the outer products of gradients of a tensor."""
        size, blocks = self.block_size, self._blocks[name]
        rows, row_size = self.masks[name].shape[0], gradients.row_size
        step = size // math.gcd(size, row_size)  # rows that fill whole blocks
        budget = GRADIENT_SLAB_BYTES[blocks.device.type]
        step *= max(1, budget // (4 * step * row_size * (len(gradients) + size)))
        for start in range(0, rows, step):
            values = gradients.rows(start, min(start + step, rows)).float()
            first, whole = start * row_size // size, values.shape[1] // size
            # The whole blocks are a view; padding all of them for the last one's sake would copy them.
            head = values[:, : whole * size].unflatten(1, (whole, size)).permute(1, 2, 0)
            blocks[first : first + whole].baddbmm_(head, head.transpose(1, 2))
            tail = values[:, whole * size :]
            if tail.shape[1]:
                blocks[-1, : tail.shape[1], : tail.shape[1]].addmm_(tail.T, tail)
        self._count[name] += len(gradients)

    def dampened(self, dampening: float | str) -> BlockFisher:
        """The same sums under another dampening. The blocks are shared with this one, not copied."""
        other = copy.copy(self)
        other.dampening = dampening
        return other

    def added(self, name: str) -> float:
        """What is added to a tensor's diagonal: lambda."""
        if not isinstance(self.dampening, str):
            return self.dampening
        sums = self._blocks[name].diagonal(dim1=1, dim2=2)[self.as_blocks(self.masks[name])]
        mean = float(sums.mean(dtype=torch.float64)) / max(self._count[name], 1) if len(sums) else 0.0
        return max(float(self.dampening.removesuffix("%")) / 100 * mean, FLOOR)

    def slabs(self, name: str, group: int = 1) -> Iterator[Slab]:
        """The tensor's blocks, some at a time.

        Args:
            group: coordinates that are pruned together, see `Pattern.size`.

        Raises:
            UserError: a gradient was not finite; the tensor is named.
        """
        dampening = self.added(name)
        for sums, positions, kept in self._slabs(name, group):
            if not torch.isfinite(sums.sum()):  # float64 cannot overflow on a sum of finite float32 values
                raise UserError(f"gradients of tensor '{name}' are not finite: the Fisher cannot be estimated")
            fisher = sums.div_(max(self._count[name], 1))
            fisher.diagonal(dim1=1, dim2=2).add_(dampening)
            yield Slab(_decoupled(fisher, kept), positions, kept)


class RecursiveFisher(_Blocks):
    """The inverse of the same blocks by the paper's rank-one recursion (eq. 5), in float32, one gradient at a time:
    F_i^-1 = F_{i-1}^-1 - (F_{i-1}^-1 g)(F_{i-1}^-1 g)' / (m + g' F_{i-1}^-1 g), from F_0^-1 = I / lambda.

    The reference for ablations; `BlockFisher` is what to use.
    """

    def __init__(self, masks: Mapping[str, Tensor], block_size: int, dampening: float, num_gradients: int):
        """
        Args:
            dampening: lambda.
            num_gradients: m, which the recursion needs from its first step on.

        Raises:
            UserError: no dampening; the recursion starts from its inverse.
        """
        if dampening <= 0:
            raise UserError("accumulation: recursion starts from I / dampening: set a dampening above 0")
        super().__init__(masks, block_size)
        self.num_gradients = num_gradients
        for blocks in self._blocks.values():
            blocks.diagonal(dim1=1, dim2=2).fill_(1 / dampening)

    def add(self, name: str, gradients: Gradients | DenseGradients) -> None:
        """Bring gradients of a tensor into its inverse, one by one."""
        inverse, mask = self._blocks[name], self.masks[name]
        for values in gradients.rows(0, mask.shape[0]).float():
            g = self.as_blocks(values * mask.flatten())
            product = torch.bmm(inverse, g.unsqueeze(-1)).squeeze(-1)
            scale = self.num_gradients + (g * product).sum(dim=1)
            inverse.baddbmm_((product / scale[:, None]).unsqueeze(2), product.unsqueeze(1), alpha=-1)

    def inverse(self, name: str) -> Tensor:
        """The inverse as it stands, [blocks, B, B]."""
        return self._blocks[name]

    def slabs(self, name: str, group: int = 1) -> Iterator[Slab]:
        """As `BlockFisher.slabs`, from the inverse of the inverse."""
        for inverse, positions, kept in self._slabs(name, group):
            yield Slab(spd_inverse(_decoupled(inverse, kept), name), positions, kept)


def spd_inverse(matrices: Tensor, name: str) -> Tensor:
    """Inverses of symmetric positive definite matrices [n, a, a], compiled or by Cholesky in blocks of order `LEAF`.

    Args:
        name: the tensor they belong to, for the message.

    Raises:
        UserError: one is not positive definite, which dampening mends.
    """
    if compiled.takes(matrices):
        inverse, failed = compiled.inverses(matrices)
        require_inverses(failed, name)
        return inverse
    order = matrices.shape[-1]
    if order <= LEAF:
        factor, failures = torch.linalg.cholesky_ex(matrices)
        require_inverses(int((failures > 0).sum()), name)
        return _inverse_of_factored(factor)
    half = order // 2
    upper = matrices[:, :half, half:]
    first = spd_inverse(matrices[:, :half, :half], name)
    across = torch.bmm(first, upper)
    second = spd_inverse(torch.baddbmm(matrices[:, half:, half:], upper.transpose(1, 2), across, alpha=-1), name)
    corner = torch.bmm(across, second)
    result = torch.empty_like(matrices)
    result[:, :half, :half] = torch.baddbmm(first, corner, across.transpose(1, 2))
    result[:, :half, half:] = -corner
    result[:, half:, :half] = -corner.transpose(1, 2)
    result[:, half:, half:] = second
    return result


def require_inverses(failed: int, name: str) -> None:
    """Raise UserError if some blocks of a tensor are not positive definite."""
    if failed:
        raise UserError(
            f"the Fisher of tensor '{name}' has {failed} blocks that cannot be inverted: raise the dampening"
        )


def _inverse_of_factored(factor: Tensor) -> Tensor:
    """Inverses of L L' [n, a, a]."""
    # `cholesky_inverse` may solve a GPU's batch one matrix at a time; triangular solutions are always batched.
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    inverse = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
    return torch.bmm(inverse.mT, inverse)
