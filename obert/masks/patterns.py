"""Sparsity patterns: which weights are pruned together, and which are compared with each other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from obert.foundation.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

ALLOWED = "unstructured, RxC such as 1x4 or 32x32, row, column, and N:M such as 2:4"
ROW, COLUMN = "row", "column"
Distribution = Literal["global", "uniform", "row"]
"""What a weight's score is compared with: those of all weights, of its tensor, or of its row."""


@dataclass(frozen=True)
class Pattern:
    """Which weights are pruned together: `zeros` of each group of `size`, a block of `rows` rows of the matrix.

    `unstructured` is one of one, `1x4` (the 4-block of Kurtic et al. 2022) four of four, and `2:4` two of four, which
    stay two.
    """

    size: int = 1
    zeros: int = 1
    rows: int = 1

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """The pattern of a name: `unstructured`, `RxC`, or `N:M` (N of M consecutive weights of a row stay).

        Raises:
            ValueError: any other text.
        """
        if text == "unstructured":
            return cls()
        if found := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text):
            rows, columns = int(found[1]), int(found[2])
            if rows * columns > 1:
                return cls(rows * columns, rows * columns, rows)
        elif found := re.fullmatch(r"(\d+):(\d+)", text):
            kept, size = int(found[1]), int(found[2])
            if 0 < kept < size:
                return cls(size, size - kept)
        raise ValueError(f"pattern '{text}': allowed are {ALLOWED}")

    def __str__(self) -> str:
        if self.size == 1:
            return "unstructured"
        return f"{self.rows}x{self.columns}" if self.zeros == self.size else f"{self.size - self.zeros}:{self.size}"

    @property
    def columns(self) -> int:
        """The width of a group."""
        return self.size // self.rows

    @property
    def largest_sparsity(self) -> float:
        """The sparsity of a tensor with every group pruned."""
        return self.zeros / self.size

    def groups_at(self, weights: int, sparsity: float) -> int:
        """How many groups of so many weights are pruned at a sparsity."""
        return round(weights * sparsity / self.zeros)

    def by_layer(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, Pattern]:
        """The pattern of each tensor: this one.

        Raises:
            UserError: a tensor does not consist of whole groups.
        """
        for name, shape in shapes.items():
            if shape[-1] % self.columns:
                raise UserError(
                    f"pattern {self}: rows of tensor '{name}' have {shape[-1]} weights, no multiple of {self.columns}"
                )
            if self.rows > 1 and shape[0] % self.rows:
                raise UserError(
                    f"pattern {self}: columns of tensor '{name}' have {shape[0]} weights, no multiple of {self.rows}"
                )
        return dict.fromkeys(shapes, self)

    def groups(self, values: Tensor) -> Tensor:
        """A tensor's values by group, [groups, size], blocks in row-major order."""
        if self.rows == 1:
            return values.reshape(-1, self.size)
        tiles = values.unflatten(1, (-1, self.columns)).unflatten(0, (-1, self.rows))
        return tiles.transpose(1, 2).reshape(-1, self.size)

    def ungroup(self, groups: Tensor, shape: Sequence[int]) -> Tensor:
        """The inverse of `groups`."""
        if self.rows == 1:
            return groups.reshape(shape)
        tiles = groups.reshape(-1, shape[1] // self.columns, self.rows, self.columns)
        return tiles.transpose(1, 2).reshape(shape)


@dataclass(frozen=True)
class LayerPatterns:
    """A pattern for each layer: that of the first shell-style pattern which the weight's name matches.

    Besides the names of `Pattern`, `row` and `column` stand for whole rows and columns of the matrix.
    """

    by_name: tuple[tuple[str, str], ...]

    @property
    def largest_sparsity(self) -> float:
        """No group keeps weights for sure."""
        return 1.0

    def __str__(self) -> str:
        return ", ".join(f"{name}: {pattern}" for name, pattern in self.by_name)

    def by_layer(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, Pattern]:
        """The pattern of each tensor.

        Raises:
            UserError: a tensor's name matches nothing, or it does not consist of whole groups.
        """
        result = {}
        for name, shape in shapes.items():
            text = next((pattern for glob, pattern in self.by_name if fnmatchcase(name, glob)), None)
            if text is None:
                names = ", ".join(glob for glob, _ in self.by_name)
                raise UserError(f"pattern: tensor '{name}' matches none of {names}; add one that it does, such as '*'")
            whole = {ROW: f"1x{shape[1]}", COLUMN: f"{shape[0]}x1"}
            result |= Pattern.parse(whole.get(text, text)).by_layer({name: shape})
        return result


AnyPattern = Pattern | LayerPatterns


def parse_pattern(value: str | Mapping[str, str]) -> AnyPattern:
    """A recipe's `pattern`: a name for all layers, or names by layer.

    Raises:
        ValueError: an unknown name, or one in which a group keeps weights while others are pruned whole.
    """
    if isinstance(value, str):
        return LayerPatterns((("*", value),)) if value in (ROW, COLUMN) else Pattern.parse(value)
    if not value:
        raise ValueError("pattern: no layer is given")
    for text in value.values():
        if text not in (ROW, COLUMN) and Pattern.parse(text).largest_sparsity < 1:
            raise ValueError(f"pattern '{text}' cannot be mixed with others: groups must be pruned whole")
    return LayerPatterns(tuple(value.items()))


UNSTRUCTURED = Pattern()
