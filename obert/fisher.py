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

    def _as_blocks(self, rows: Tensor, name: str) -> Tensor:
        """[n, size] to [n, blocks, B], padded with zeros."""
        padding = -rows.shape[1] % self.block_size
        padded = torch.nn.functional.pad(rows, (0, padding)) if padding else rows
        return padded.view(rows.shape[0], -1, self.block_size)

    def add(self, name: str, gradients: Tensor) -> None:
        """Add the outer products of gradients [n, ...] of a tensor, in float32.

        Raises:
            UserError: a gradient is not finite.
        """
        rows = gradients.flatten(1).float()
        if not torch.isfinite(rows).all():
            raise UserError(f"gradient of tensor '{name}' is not finite: the Fisher cannot be estimated")
        blocks = self._as_blocks(rows, name).permute(1, 2, 0)
        self._blocks[name].baddbmm_(blocks, blocks.transpose(1, 2))
        self._count[name] += rows.shape[0]

    @torch.no_grad()
    def invert(self, dampening: float) -> None:
        """Replace the accumulated sums by the inverse of each block, in place, through float64.

        Raises:
            UserError: a block is not positive definite in float64 (dampening far too small for its gradients).
        """
        for name, blocks in self._blocks.items():
            for slab in blocks.split(SLAB):
                fisher = slab.double().div_(self._count[name])
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
        blocks = self._as_blocks(vector.reshape(1, -1), name)[0].unsqueeze(-1)
        return torch.bmm(self._blocks[name], blocks).flatten()[: self._sizes[name]]
