"""The inverse of a dampened empirical Fisher without its matrix: products and the diagonal from m gradients alone.

F = lambda I + 1/m G'G with the gradients as the rows of G [m, d] (Frantar et al. 2021, "M-FAC", arXiv 2107.03356). With
K = GG', and C the Cholesky factor of K / lambda + m I, both [m, m],

    F^-1 = I / lambda - U'U,  where U = C^-1 G / lambda.

This is the rank-one recursion F_j^-1 = F_{j-1}^-1 - v_j v_j' / q_j with v_j = F_{j-1}^-1 g_j and q_j = m + g_j' v_j,
written out: row j of U is v_j / sqrt(q_j), and C = L Q^(1/2) with the paper's LU factorisation L (Q L') of the same
matrix, from which its dynamic form takes D = triu(Q L' - m I) and B = L^-1 / lambda. One factorisation in float64 is
more exact than m steps of the recursion in float32, and runs as matrix products. G stays in float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from obert.foundation.errors import UserError
from obert.second_order.fisher import BLOCK_SLAB_BYTES

Form = Literal["static", "dynamic"]


class _Inverse(ABC):
    """F^-1 of one block. `rows` [m, d] are the gradients or what was made of them; d is worked on in slabs."""

    def __init__(self, gradients: Tensor, dampening: float):
        """
        Args:
            gradients: G, float32 [m, d].
            dampening: lambda, above zero.

        Raises:
            UserError: gradients are not finite, or the dampening is too small for float64.
        """
        self.rows = gradients
        self.dampening = dampening

    @staticmethod
    @abstractmethod
    def memory_bytes(count: int, size: int) -> int:
        """Bytes held for `count` gradients of `size` weights."""

    @abstractmethod
    def diagonal(self) -> Tensor:
        """The diagonal of F^-1, float32 [d]."""

    @abstractmethod
    def _coefficients(self, dots: Tensor) -> Tensor:
        """c [m] in F^-1 x = x / lambda - rows' c, given rows x."""

    def product(self, x: Tensor) -> Tensor:
        """F^-1 x, float32 [d]."""
        dots = self.rows.new_zeros(len(self.rows), dtype=torch.float64)
        for part in self._slabs():
            dots.addmv_(self.rows[:, part].double(), x[part].double())
        coefficients, result = self._coefficients(dots), torch.empty_like(self.rows[0])
        for part in self._slabs():
            result[part] = x[part].double() / self.dampening - self.rows[:, part].double().T @ coefficients
        return result

    def _slabs(self) -> Iterator[slice]:
        count, size = self.rows.shape
        step = max(1, BLOCK_SLAB_BYTES[self.rows.device.type] // (8 * count))
        return (slice(start, start + step) for start in range(0, size, step))

    def _factor(self) -> Tensor:
        """C, while `rows` are the gradients."""
        count = len(self.rows)
        gram = self.rows.new_zeros(count, count, dtype=torch.float64)
        for part in self._slabs():
            slab = self.rows[:, part].double()
            gram.addmm_(slab, slab.T)
        if not torch.isfinite(gram).all():
            raise UserError("gradients are not finite: the Fisher cannot be estimated")
        gram.div_(self.dampening).diagonal().add_(count)
        factor, failed = torch.linalg.cholesky_ex(gram)
        if failed:
            raise self._too_little_dampening()
        return factor

    def _recursion_vectors(self, factor: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        """Columns of U, and that part of the diagonal, in float64, while `rows` are the gradients."""
        gradients = self.rows[:, part].double()
        vectors = torch.linalg.solve_triangular(factor, gradients, upper=False).div_(self.dampening)
        diagonal = 1 / self.dampening - vectors.square().sum(dim=0)
        if (diagonal <= 0).any():
            raise self._too_little_dampening()
        return vectors, diagonal

    def _too_little_dampening(self) -> UserError:
        return UserError(f"the Fisher of {len(self.rows)} gradients cannot be inverted: raise the dampening")


class StaticInverse(_Inverse):
    """U computed once, in the gradients' place (the static algorithm): they are overwritten. O(m d) a product."""

    def __init__(self, gradients: Tensor, dampening: float):
        super().__init__(gradients, dampening)
        factor = self._factor()
        self._diagonal = torch.empty_like(gradients[0])
        for part in self._slabs():
            gradients[:, part], self._diagonal[part] = self._recursion_vectors(factor, part)

    @staticmethod
    def memory_bytes(count: int, size: int) -> int:
        """U and the diagonal."""
        return 4 * (count + 1) * size

    def diagonal(self) -> Tensor:
        """From float64 values of U, before they were rounded."""
        return self._diagonal

    def _coefficients(self, dots: Tensor) -> Tensor:
        return dots


class DynamicInverse(_Inverse):
    """The gradients as they are, and [m, m] coefficients (the dynamic algorithm). O(m d + m^2) a product.

    The paper's forward substitution with D and its product with B are the two halves of a solution with C.
    """

    def __init__(self, gradients: Tensor, dampening: float):
        super().__init__(gradients, dampening)
        self.factor = self._factor()

    @staticmethod
    def memory_bytes(count: int, size: int) -> int:
        """G and C."""
        return 4 * count * size + 8 * count**2

    def diagonal(self) -> Tensor:
        """O(m^2 d): U is computed and given up, slab by slab."""
        result = torch.empty_like(self.rows[0])
        for part in self._slabs():
            result[part] = self._recursion_vectors(self.factor, part)[1]
        return result

    def _coefficients(self, dots: Tensor) -> Tensor:
        return torch.cholesky_solve(dots[:, None], self.factor)[:, 0] / self.dampening**2


FORMS: dict[Form, type[_Inverse]] = {"static": StaticInverse, "dynamic": DynamicInverse}


class BlockInverse:
    """F^-1 in blocks of B consecutive coordinates, the last one shorter."""

    def __init__(self, form: Form, gradients: Tensor, dampening: float, block_size: int):
        """
        Args:
            gradients: G, float32 [m, d]; the static form overwrites it.
            dampening: lambda, above zero.
            block_size: B.

        Raises:
            UserError: gradients are not finite, or the dampening is too small for float64.
        """
        self.block_size = block_size
        self.blocks = [FORMS[form](part, dampening) for part in gradients.split(block_size, dim=1)]

    @staticmethod
    def memory_bytes(form: Form, count: int, size: int, block_size: int) -> int:
        """Bytes held for `count` gradients of `size` weights."""
        whole, rest = divmod(size, block_size)
        sizes = [block_size] * whole + [rest] * (rest > 0)
        return sum(FORMS[form].memory_bytes(count, part) for part in sizes)

    def product(self, x: Tensor) -> Tensor:
        """F^-1 x, float32 [d]."""
        parts = zip(self.blocks, x.split(self.block_size), strict=True)
        return torch.cat([block.product(part) for block, part in parts])

    def diagonal(self) -> Tensor:
        """The diagonal of F^-1, float32 [d]."""
        return torch.cat([block.diagonal() for block in self.blocks])
