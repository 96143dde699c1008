"""What a tensor of a graph is while it is read: a value of the program, arranged somehow, or a part of an operation.

An exporter writes LayerNorm in nine operators and GELU in five. What stands between them is one of the parts below; the
rules of `reading` make the whole of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from obert.sparse.program import Rounding
from obert.sparse.reading.index_graph import Known, NotKnown

# Axes: batch, tokens, features; heads and the features of one; batch and tokens in one, batch and heads in one; 1.
BATCH, TOKENS, FEATURES, HEADS, HEAD_SIZE = "batch", "tokens", "features", "heads", "head size"
ROWS, STACKS, ONE = "batch by tokens", "batch by heads", "1"
OF_TOKENS, OF_SEQUENCES = (BATCH, TOKENS, FEATURES), (BATCH, FEATURES)
QUERIES, KEYS = (BATCH, HEADS, TOKENS, HEAD_SIZE), (BATCH, HEADS, HEAD_SIZE, TOKENS)
_ARRANGEMENTS = (
    OF_TOKENS, (ROWS, FEATURES), (BATCH, TOKENS, HEADS, HEAD_SIZE), OF_SEQUENCES, (BATCH, ONE, FEATURES), QUERIES, KEYS,
    (STACKS, TOKENS, HEAD_SIZE), (STACKS, HEAD_SIZE, TOKENS),
)  # fmt: skip
_FINER = {FEATURES: (HEADS, HEAD_SIZE), ROWS: (BATCH, TOKENS), STACKS: (BATCH, HEADS), ONE: ()}


@dataclass(frozen=True)
class View:
    """A value of the program, of `width` features, with these axes; `heads` where they are split."""

    value: str
    width: int
    axes: tuple[str, ...]
    heads: int = 0

    @property
    def is_rows(self) -> bool:
        """Whether the last axis is that of features, so that what works feature by feature may follow."""
        return self.axes[-1] == FEATURES

    def shape(self, batch: int, tokens: int) -> tuple[int, ...]:
        """Of the tensor, for a batch."""
        heads = self.heads or 1
        sizes = {
            BATCH: batch, TOKENS: tokens, FEATURES: self.width, HEADS: heads, HEAD_SIZE: self.width // heads,
            ROWS: batch * tokens, STACKS: batch * heads, ONE: 1,
        }  # fmt: skip
        return tuple(sizes[axis] for axis in self.axes)

    def transposed(self, order: list[int] | None) -> View:
        """With its axes in another order."""
        order = range(len(self.axes))[::-1] if order is None else order
        return replace(self, axes=tuple(self.axes[at] for at in order))

    def reshaped(self, shapes: list[list[int]], samples: tuple[tuple[int, int], ...]) -> View:
        """With the axes that give these shapes, one for each batch.

        Raises:
            NotKnown: no arrangement of the same elements has these shapes.
        """
        for axes in _ARRANGEMENTS:
            if _finest(axes) == _finest(self.axes):
                heads = self.heads or (shapes[0][-2] if HEADS in axes and len(shapes[0]) == len(axes) else 0)
                if heads < 0 or (heads and self.width % heads):
                    continue
                view = replace(self, axes=axes, heads=heads)
                if all(list(view.shape(*sample)) == shape for sample, shape in zip(samples, shapes, strict=True)):
                    return view if HEAD_SIZE in axes else replace(view, heads=0)
        raise NotKnown(f"it arranges {', '.join(self.axes)} in another way than attention does")


def _finest(axes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(finer for axis in axes for finer in _FINER.get(axis, (axis,)))


@dataclass(frozen=True)
class Polynomial:
    """Sum of coefficient * x**power."""

    view: View
    terms: tuple[tuple[int, float], ...] = ((1, 1.0),)

    @property
    def is_plain(self) -> bool:
        """Whether it is x itself."""
        return self.terms == ((1, 1.0),)

    def __add__(self, other: Polynomial) -> Polynomial:
        terms = dict(self.terms)
        for power, factor in other.terms:
            terms[power] = terms.get(power, 0.0) + factor
        return self._of(terms)

    def __mul__(self, other: Polynomial) -> Polynomial:
        terms: dict[int, float] = {}
        for power, factor in self.terms:
            for others, of_other in other.terms:
                terms[power + others] = terms.get(power + others, 0.0) + factor * of_other
        return self._of(terms)

    def _of(self, terms: dict[int, float]) -> Polynomial:
        if max(terms) > 4:
            raise NotKnown("no activation function has such powers")
        return Polynomial(self.view, tuple(sorted(terms.items())))

    def constant(self, number: float) -> Polynomial:
        """A number, as a polynomial of the same x."""
        return Polynomial(self.view, ((0, float(number)),))

    def is_near(self, *terms: tuple[int, float]) -> bool:
        """Whether it is this one, as far as float32 tells."""
        return len(terms) == len(self.terms) and all(
            power == other and np.isclose(factor, of_other, rtol=1e-5)
            for (power, factor), (other, of_other) in zip(self.terms, terms, strict=True)
        )


@dataclass(frozen=True)
class Sigmoid:
    """factor * f(x), (1 + f(x)) * factor if `raised`, and times x if `gated`; GELU has erf or tanh for f."""

    view: View
    kind: str
    factor: float = 1.0
    raised: bool = False
    gated: bool = False


@dataclass(frozen=True)
class Statistic:
    """A step of LayerNorm: mean, centred, square, variance, steadied, deviation, inverse (of it), normal."""

    view: View
    step: str
    epsilon: float = 0.0


@dataclass(frozen=True, eq=False)
class Weighted:
    """x * weight, or, with an epsilon, normal x * weight; a bias may follow."""

    view: View
    weight: np.ndarray
    epsilon: float | None = None


@dataclass(frozen=True, eq=False)
class Table:
    """Rows to look up, float32 or int8, and what one unit of int8 is worth."""

    values: np.ndarray
    scale: np.float32 = np.float32(1)  # noqa: RUF009, it is immutable

    @cached_property
    def rows(self) -> np.ndarray:
        """In float32."""
        if self.values.dtype == np.float32 and self.scale == 1:
            return self.values
        return np.multiply(self.values, self.scale, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Looked:
    """Rows of tables, summed or joined.

    Attributes:
        lookups: table, what it is indexed by, shift.
        cut: how many tokens are cut off at the front and at the end.
    """

    lookups: tuple[tuple[Table, str, int], ...]
    joined: bool = False
    cut: tuple[int, int] = (0, 0)

    @property
    def width(self) -> int:
        """Features of a row."""
        widths = [table.values.shape[1] for table, _, _ in self.lookups]
        return sum(widths) if self.joined else widths[0]


@dataclass(frozen=True, eq=False)
class Product:
    """x times a constant matrix; a bias may follow."""

    view: View
    weight: Known
    name: str


@dataclass(frozen=True)
class Rounded:
    """x, or the probabilities of attention, in uint8."""

    of: View | Probabilities
    rounding: Rounding


@dataclass(frozen=True, eq=False)
class IntegerProduct:
    """Integers x times a constant matrix or other integers; after a bias, and after it is made float."""

    left: Rounded
    right: Known | Rounded
    name: str
    bias: Known | None = None
    is_float: bool = False


@dataclass(frozen=True)
class Scores:
    """scale * query . key, and a mask added."""

    query: View
    key: View
    scale: float = 1.0
    masked: bool = False
    roundings: tuple[Rounding, Rounding] | None = None


@dataclass(frozen=True)
class Probabilities:
    """Softmax of scores."""

    scores: Scores


@dataclass(frozen=True)
class Undefined:
    """Where probabilities are NaN, as of a sequence whose tokens are all hidden by minus infinity."""

    of: Probabilities


@dataclass(frozen=True)
class Columns:
    """Features [start, stop) of x; without its last axis if `squeezed`."""

    view: View
    start: int
    stop: int
    squeezed: bool = False


Part = (
    Polynomial | Sigmoid | Statistic | Weighted | Looked | Product | Rounded | IntegerProduct | Scores | Probabilities
    | Undefined | Columns
)  # fmt: skip
