"""Block-diagonal empirical Fisher of weight matrices: accumulation by batched products, inversion by Cholesky."""

from collections.abc import Mapping

import torch
from torch import Tensor

from obert.errors import UserError

SLAB = 4096  # blocks inverted together: their float64 copies fit the cache hierarchy and a few hundred MB


class BlockFisher:
    """F = lambda I + 1/m sum_i g_i g_i' in blocks of B consecutive weights of each flattened tensor (paper, eq. 2).

    Blocks run along the row-major flattened tensor, so they straddle rows; the last one is padded with zeros. The
    explicit inverse is exact and, accumulated first and inverted once, an order of magnitude faster than the paper's
    rank-one recursion. Memory: d * B * 4 bytes for d weights.
    """

    def __init__(self, sizes: Mapping[str, int], block_size: int, device: torch.device | str = "cpu"):
        """
        Args:
            sizes: number of weights by tensor name.
            block_size: B.
        """
        self.block_size = block_size
        self._sizes = dict(sizes)
        self._blocks = {
            name: torch.zeros(-(-size // block_size), block_size, block_size, device=device)
            for name, size in sizes.items()
        }
        self._count = dict.fromkeys(sizes, 0)

    @staticmethod
    def memory_bytes(sizes: Mapping[str, int], block_size: int) -> int:
        """Bytes that the blocks of these tensors take."""
        return sum(-(-size // block_size) * block_size**2 * 4 for size in sizes.values())

    def _as_blocks(self, vector: Tensor) -> Tensor:
        """[size] to [blocks, B], padded with zeros."""
        return torch.nn.functional.pad(vector, (0, -vector.numel() % self.block_size)).view(-1, self.block_size)

    def add(self, name: str, gradients: Tensor) -> None:
        """Add the outer products of gradients [n, ...] of a tensor, in float32."""
        rows = gradients.flatten(1).float()
        whole = rows.shape[1] // self.block_size
        blocks = self._blocks[name]
        # The whole blocks are a view of the gradients; padding all of them for the last one's sake would copy them.
        head = rows[:, : whole * self.block_size].unflatten(1, (whole, self.block_size)).permute(1, 2, 0)
        blocks[:whole].baddbmm_(head, head.transpose(1, 2))
        tail = rows[:, whole * self.block_size :]
        if tail.shape[1]:
            blocks[-1, : tail.shape[1], : tail.shape[1]].addmm_(tail.T, tail)
        self._count[name] += rows.shape[0]

    @torch.no_grad()
    def invert(self, dampening: float, masks: Mapping[str, Tensor]) -> None:
        """Replace the accumulated sums by the inverse of each block, in place, through float64.

        Pruned weights (False in their mask) are decoupled, as if their gradients had been masked.

        Raises:
            UserError: a gradient was not finite, or a block is not positive definite in float64 (dampening far too
                small for its gradients); the tensor is named.
        """
        for name, blocks in self._blocks.items():
            kept = self._as_blocks(masks[name].flatten().float())
            for slab, mask in zip(blocks.split(SLAB), kept.split(SLAB), strict=True):
                if not torch.isfinite(slab).all():
                    raise UserError(f"gradients of tensor '{name}' are not finite: the Fisher cannot be estimated")
                fisher = slab.mul_(mask[:, :, None]).mul_(mask[:, None, :]).double().div_(self._count[name])
                fisher.diagonal(dim1=1, dim2=2).add_(dampening)
                factor, failed = torch.linalg.cholesky_ex(fisher)
                if failed.any():
                    raise UserError(
                        f"the Fisher of tensor '{name}' has {int((failed > 0).sum())} blocks that cannot be inverted "
                        f"at dampening {dampening:g}: raise the dampening"
                    )
                slab.copy_(torch.cholesky_inverse(factor))

    def inverse_diagonal(self, name: str) -> Tensor:
        """Diagonal of the inverse, shape [size]. Call `invert` first."""
        return self._blocks[name].diagonal(dim1=1, dim2=2).flatten()[: self._sizes[name]]

    def inverse_product(self, name: str, vector: Tensor) -> Tensor:
        """Inverse times a vector [size]. Call `invert` first."""
        return torch.bmm(self._blocks[name], self._as_blocks(vector).unsqueeze(-1)).flatten()[: self._sizes[name]]
