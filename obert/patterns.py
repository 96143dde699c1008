"""Sparsity patterns: which weights are pruned together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from obert.errors import UserError


@dataclass(frozen=True)
class Pattern:
    """Which weights are pruned together: `zeros` of each group of `size` consecutive weights of a row.

    `unstructured` is one of one, `1x4` (the paper's 4-block) four of four, and `2:4` two of four, which stay two.
    """

    size: int = 1
    zeros: int = 1

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """The pattern of a name: `unstructured`, `1xG`, or `N:M` (N of M weights stay).

        Raises:
            ValueError: any other text.
        """
        if text == "unstructured":
            return cls()
        if found := re.fullmatch(r"1x(\d+)", text):
            size = int(found[1])
            if size > 1:
                return cls(size, size)
        elif found := re.fullmatch(r"(\d+):(\d+)", text):
            kept, size = int(found[1]), int(found[2])
            if 0 < kept < size:
                return cls(size, size - kept)
        raise ValueError(f"pattern '{text}': allowed are unstructured, 1xG such as 1x4, and N:M such as 2:4")

    def __str__(self) -> str:
        if self.size == 1:
            return "unstructured"
        return f"1x{self.size}" if self.zeros == self.size else f"{self.size - self.zeros}:{self.size}"

    @property
    def largest_sparsity(self) -> float:
        """The sparsity of a tensor with every group pruned."""
        return self.zeros / self.size

    def groups_at(self, weights: int, sparsity: float) -> int:
        """How many groups of so many weights are pruned at a sparsity."""
        return round(weights * sparsity / self.zeros)

    def check(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Raise UserError unless every row of the tensors is a whole number of groups."""
        for name, shape in shapes.items():
            if shape[-1] % self.size:
                raise UserError(
                    f"pattern {self}: rows of tensor '{name}' have {shape[-1]} weights, no multiple of {self.size}"
                )


UNSTRUCTURED = Pattern()
