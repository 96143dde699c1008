"""A program while it is read: operations are added as soon as all of their parts are there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from obert.sparse import program
from obert.sparse.reading.index_graph import Known, NotKnown, Samples, check_mask, index_of
from obert.sparse.reading.onnx_file import shown
from obert.sparse.reading.views import (
    BATCH,
    FEATURES,
    KEYS,
    OF_SEQUENCES,
    OF_TOKENS,
    ONE,
    QUERIES,
    Columns,
    IntegerProduct,
    Looked,
    Part,
    Polynomial,
    Probabilities,
    Product,
    Rounded,
    Scores,
    Sigmoid,
    Statistic,
    Table,
    View,
    Weighted,
)

_INTEGER = "_quantized"  # how the exporter names weights of int8


class Builder:
    """Adds operations.

    Args:
        given: names of the model's inputs.
    """

    def __init__(self, samples: Samples, given: tuple[str, ...]):
        self.samples = samples
        self.has_mask = "attention_mask" in given
        self.operations: list[program.Operation] = []
        self.pad_tokens: set[int | None] = set()
        self.positions: list[int] = []
        self._settled: dict[int, tuple[Part, View]] = {}  # with the part, so that no other gets its id
        self._weights: dict[tuple, program.Weight] = {}
        self._turned: dict[int, Known] = {}
        self._masks: dict[int, Known] = {}

    def settle(self, part: Part | Known) -> View:
        """A part as a value: what may still follow it in the graph does not.

        Raises:
            NotKnown: it is no whole operation.
        """
        if id(part) not in self._settled:
            self._settled[id(part)] = part, self._settle(part)
        return self._settled[id(part)][1]

    def _settle(self, part: Part | Known) -> View:
        match part:
            case Polynomial(view=view, terms=((1, factor),)):
                if part.is_plain:
                    return view
                return self.affine(view, np.full(view.width, factor, np.float32), None)
            case Looked(cut=(0, 0)):
                return self._add(program.Embed, View("", part.width, OF_TOKENS), part.lookups, part.joined)
            case Product():
                return self.linear(part, None)
            case Statistic(view=view, step="normal", epsilon=epsilon):
                return self.settle(Weighted(view, np.ones(view.width, np.float32), epsilon))
            case Weighted():
                return self.weighted(part, None)
        raise NotKnown(f"it is given {_NAMES.get(type(part), 'an unfinished operation')}")

    def rows(self, part: Part | Known) -> View:
        """A part as a value whose last axis is that of features."""
        view = self.settle(part)
        if not view.is_rows:
            raise NotKnown(f"it works on axes {', '.join(view.axes)}")
        return view

    def polynomial(self, part: Part | Known) -> Polynomial:
        """A part as a polynomial of a value."""
        return part if isinstance(part, Polynomial) else Polynomial(self.settle(part))

    def _add(self, kind: type, view: View, *arguments) -> View:
        """Add an operation, and return the view of what it makes."""
        name = f"{kind.__name__.lower()}_{len(self.operations)}"
        self.operations.append(kind(name, *arguments))
        return replace(view, value=name)

    def lookup(self, table: np.ndarray, index: Known) -> Looked:
        """Rows of a table."""
        if table.dtype not in (np.float32, np.int8) or not table.size:
            raise NotKnown(f"its table is of {table.dtype} and has {len(table)} rows")
        found = index_of(index, self.samples)
        if found.kind == "positions":
            self.pad_tokens.add(found.pad_token)
            self.positions.append(len(table) - (0 if found.pad_token is None else found.pad_token + 1))
            if self.positions[-1] < 1:
                raise NotKnown("its table has no row for the first position")
        return Looked(((Table(table), found.kind, 0),))

    def by_inputs(self, weight: Known) -> Known:
        """A constant weight, [outputs, inputs], with its inputs first; the same for all that read it."""
        if id(weight) not in self._turned:
            self._turned[id(weight)] = replace(weight, values=tuple(each.T for each in weight.values))
        return self._turned[id(weight)]

    def masked(self, scores: Scores, mask: Known) -> Scores:
        """Scores to which a mask is added; all layers have the same."""
        if id(mask) not in self._masks:
            check_mask(mask, self.samples)
            self._masks[id(mask)] = mask
        return replace(scores, masked=True)

    def linear(self, part: Product, bias: Known | None) -> View:
        """A product with its bias."""
        outputs = part.weight.constant.shape[1]
        key = id(part.weight), id(bias)
        if key not in self._weights:
            shift = np.zeros(outputs, np.float32) if bias is None else bias.constant.reshape(-1)
            self._weights[key] = program.Weight(part.name, part.weight.constant.T, shift)
        return self._add(program.Linear, replace(part.view, width=outputs), part.view.value, self._weights[key])

    def integer_linear(self, part: IntegerProduct, scale: np.float32) -> View:
        """A product of integers with its bias, made float."""
        view, rounding = part.left.of, part.left.rounding
        outputs = part.right.constant.shape[1]
        key = id(part.right), id(part.bias), rounding, scale
        if key not in self._weights:
            shift = np.zeros(outputs, np.int32) if part.bias is None else part.bias.constant.reshape(-1)
            self._weights[key] = program.Weight(part.name, part.right.constant.T, shift, rounding, scale)
        return self._add(program.Linear, replace(view, width=outputs), view.value, self._weights[key])

    def weighted(self, part: Weighted, bias: np.ndarray | None) -> View:
        """LayerNorm, or, without an epsilon, a product and sum feature by feature."""
        if part.epsilon is None:
            return self.affine(part.view, part.weight, bias)
        return self.norm(part.view, part.weight, bias, part.epsilon)

    def norm(self, view: View, weight: np.ndarray, bias: np.ndarray | None, epsilon: float) -> View:
        """LayerNorm."""
        bias = np.zeros(view.width, np.float32) if bias is None else bias
        return self._add(program.Norm, view, view.value, weight, bias, np.float32(epsilon))

    def affine(self, view: View, weight: np.ndarray, bias: np.ndarray | None) -> View:
        """A product and sum feature by feature."""
        bias = np.zeros(view.width, np.float32) if bias is None else bias
        return self._add(program.Affine, view, view.value, weight, bias)

    def sum(self, x: View, y: View) -> View:
        """The sum of two values of the same axes."""
        if (x.axes, x.width, x.heads) != (y.axes, y.width, y.heads):
            raise NotKnown("it adds values of different shapes")
        return self._add(program.Add, x, x.value, y.value)

    def activate(self, view: View, kind: str) -> Polynomial:
        """An activation function."""
        return Polynomial(self._add(program.Activate, view, view.value, kind))

    def first(self, view: View, keeps_axis: bool) -> Polynomial:
        """The row of each sequence's first token."""
        if view.axes != OF_TOKENS:
            raise NotKnown("it takes the first of something else than tokens")
        axes = (BATCH, ONE, FEATURES) if keeps_axis else OF_SEQUENCES
        return Polynomial(replace(self._add(program.First, view, view.value), axes=axes))

    def scores(self, query: Polynomial, key: Polynomial, *roundings: program.Rounding) -> Scores:
        """The product of queries and keys."""
        q, k = query.view, key.view
        if q.axes != QUERIES or k.axes != KEYS or (q.width, q.heads) != (k.width, k.heads):
            raise NotKnown("it is no product of queries and keys")
        factors = [terms[0][1] for terms in (query.terms, key.terms) if len(terms) == 1 and terms[0][0] == 1]
        if len(factors) != 2:
            raise NotKnown("its operands are no values")
        return Scores(q, k, factors[0] * factors[1], roundings=roundings or None)

    def attention(self, of: Probabilities, value: View, *roundings: program.Rounding) -> Polynomial:
        """Attention, once its last product is there."""
        scores = of.scores
        if value.axes != QUERIES or (value.width, value.heads) != (scores.query.width, scores.query.heads):
            raise NotKnown("it is no product of probabilities and values of attention")
        if bool(roundings) != bool(scores.roundings):
            raise NotKnown("one product of attention is in 8 bits, the other is not")
        made = self._add(
            program.Attention, value, scores.query.value, scores.key.value, value.value, value.heads,
            np.float32(scores.scale), (*scores.roundings, *roundings) if roundings else None,
        )  # fmt: skip
        return Polynomial(made)

    def program(self, outputs: Iterable[tuple[str, Part | Known]], inputs: tuple[str, ...]) -> program.Program:
        """The whole, with its outputs by name."""
        made = []
        for name, part in outputs:
            if not isinstance(part, Columns):
                view = self.rows(part)
                part = Columns(view, 0, view.width)
            if part.view.axes not in (OF_TOKENS, OF_SEQUENCES):
                raise NotKnown(f"'{shown(name)}' has axes {', '.join(part.view.axes)}")
            made.append(program.Output(name, part.view.value, part.start, part.stop, part.squeezed))
        if len(self.pad_tokens) > 1:
            raise NotKnown("it counts positions in two ways")
        positions = min(self.positions, default=None)
        whole = (_with_rows(each) if isinstance(each, program.Embed) else each for each in self.operations)
        return program.Program(tuple(whole), tuple(made), inputs, positions, next(iter(self.pad_tokens), None))


def _with_rows(operation: program.Embed) -> program.Embed:
    """Embeddings with their tables in float32."""
    return replace(operation, lookups=tuple(program.Lookup(table.rows, *rest) for table, *rest in operation.lookups))


_NAMES = {
    Known: "a constant, a mask or a number of tokens", Polynomial: "a power of a value", Sigmoid: "an unfinished GELU",
    Statistic: "an unfinished LayerNorm", Looked: "unfinished embeddings", Rounded: "a value in 8 bits",
    IntegerProduct: "a product of integers", Scores: "scores of attention", Probabilities: "probabilities of attention",
    Columns: "some of the features",
}  # fmt: skip


def layer_name(weight: Known, otherwise: str) -> str:
    """The name of a layer in PyTorch, by that of its weight in the file."""
    name = weight.name.removesuffix(_INTEGER)
    return name.removesuffix(".weight") if name.endswith(".weight") else otherwise
