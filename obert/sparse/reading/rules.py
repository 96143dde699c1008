"""What each operator of a graph makes of what it is given, where that is computed from words, not from constants alone.

A rule takes the builder, the node and what its inputs are; it returns what its outputs are, or raises `NotKnown`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from obert.sparse.program import Rounding
from obert.sparse.reading.building import Builder, layer_name
from obert.sparse.reading.index_graph import Known, NotKnown
from obert.sparse.reading.onnx_file import Node
from obert.sparse.reading.views import (
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
    Undefined,
    View,
    Weighted,
)  # fmt: skip

Operand = Part | Known | None
_FLOAT = 1  # ONNX's number of float32
_HALF_ROOT, _OF_TANH, _CUBE = 0.5**0.5, (2 / np.pi) ** 0.5, 0.044715


def vector(known: Operand, width: int, kind: type = np.float32) -> np.ndarray | None:
    """A constant with a number for each feature, [width]; None if it is something else."""
    values = known.constant if isinstance(known, Known) else None
    if values is None or values.dtype != kind or values.shape not in ((width,), (1, width)):
        return None
    return values.reshape(-1)


def number(operand: Operand) -> float | None:
    """The number that a tensor is; None if it is something else. More axes than two could make more of a result."""
    return operand.number if isinstance(operand, Known) and operand.values[0].ndim <= 2 else None


def _add(build: Builder, node: Node, x: Operand, y: Operand) -> Part:
    for a, b in ((x, y), (y, x)):
        made = _sum(build, a, b)
        if made is not None:
            return made
    return Polynomial(build.sum(build.settle(x), build.settle(y)))


def _sum(build: Builder, x: Operand, y: Operand) -> Part | None:
    """The sum, if the first operand says what it is."""
    match x:
        case Product() if vector(y, x.weight.constant.shape[1]) is not None:
            return Polynomial(build.linear(x, y))
        case IntegerProduct(right=Known(), bias=None, is_float=False):
            if vector(y, x.right.constant.shape[1], np.int32) is not None:
                return replace(x, bias=y)
        case Weighted() if (bias := vector(y, x.view.width)) is not None:
            return Polynomial(build.weighted(x, bias))
        case Statistic(step="variance") if (epsilon := number(y)) is not None:
            return replace(x, step="steadied", epsilon=epsilon)
        case Scores(masked=False) if isinstance(y, Known):
            return build.masked(x, y)
        case Sigmoid(raised=False, gated=False) if number(y) == x.factor:
            return replace(x, raised=True)
        case Looked(joined=False, cut=(0, 0)):
            if isinstance(y, Looked) and (y.joined, y.cut, y.width) == (False, (0, 0), x.width):
                return Looked((*x.lookups, *y.lookups))
        case Polynomial() if isinstance(y, Polynomial) and x.view == y.view and not (x.is_plain and y.is_plain):
            return x + y
        case Polynomial() if (constant := number(y)) is not None:
            return x + x.constant(constant)
    if isinstance(y, Known) and not isinstance(x, Known):
        view = build.rows(x)
        if (bias := vector(y, view.width)) is not None:
            return Polynomial(build.affine(view, np.ones(view.width, np.float32), bias))
    return None


def _multiply(build: Builder, node: Node, x: Operand, y: Operand) -> Part:
    for a, b in ((x, y), (y, x)):
        factor = number(b)
        made = _product(build, a, b) if factor is None else _scaled(build, a, factor)
        if made is not None:
            return made
    raise NotKnown("it multiplies a value by something that is no constant")


def _scaled(build: Builder, x: Operand, factor: float) -> Part | None:
    match x:
        case Known() | None:
            return None
        case Scores(masked=False):
            return replace(x, scale=x.scale * factor)
        case Sigmoid():
            return _gelu(build, replace(x, factor=x.factor * factor))
        case IntegerProduct(is_float=True):
            return _real(build, x, np.float32(factor))
        case Looked(joined=False) if len(x.lookups) == 1 and x.lookups[0][0].scale == 1:
            [(table, *rest)] = x.lookups
            return replace(x, lookups=((Table(table.values, np.float32(factor)), *rest),))
    polynomial = build.polynomial(x)
    return polynomial * polynomial.constant(factor)


def _product(build: Builder, x: Operand, y: Operand) -> Part | None:
    match x, y:
        case Statistic(step="centred"), Statistic(step="inverse") if x.view == y.view:
            return replace(y, step="normal")
        case Statistic(step="centred"), Statistic(step="centred") if x.view == y.view:
            return replace(x, step="square")
        case Statistic(step="normal"), Known() if (weight := vector(y, x.view.width)) is not None:
            return Weighted(x.view, weight, x.epsilon)
        case Sigmoid(raised=True, gated=False), _ if not isinstance(y, Known):
            gate = build.polynomial(y)
            match gate.terms:
                case ((1, factor),) if gate.view == x.view:
                    return _gelu(build, replace(x, gated=True, factor=x.factor * factor))
        case Polynomial(), Polynomial() if x.view == y.view:
            return x * y
        case ((Polynomial() | Looked() | Product()), Known()):
            view = build.rows(x)
            if (weight := vector(y, view.width)) is not None:
                return Weighted(view, weight)
    return None


def _gelu(build: Builder, part: Sigmoid) -> Part:
    if part.gated and np.isclose(part.factor, 0.5, rtol=1e-6):
        return build.activate(part.view, part.kind)
    return part


def _real(build: Builder, part: IntegerProduct, scale: np.float32) -> Part:
    """A product of integers, with what one is worth."""
    left, right = part.left, part.right
    if isinstance(right, Known):
        return Polynomial(build.integer_linear(part, scale))
    if scale != np.float32(left.rounding.scale * right.rounding.scale):
        raise NotKnown("its scale is not that of its operands")
    if isinstance(left.of, Probabilities):
        return build.attention(left.of, right.of, left.rounding, right.rounding)
    return build.scores(Polynomial(left.of), Polynomial(right.of), left.rounding, right.rounding)


def _subtract(build: Builder, node: Node, x: Operand, y: Operand) -> Part:
    if isinstance(y, Statistic) and y.step == "mean" and build.settle(x) == y.view:
        return replace(y, step="centred")
    raise NotKnown("it subtracts what is not a mean")


def _divide(build: Builder, node: Node, x: Operand, y: Operand) -> Part:
    match x, y:
        case Statistic(step="centred"), Statistic(step="deviation") if x.view == y.view:
            return replace(y, step="normal")
        case Known(), Statistic(step="deviation") if number(x) == 1:
            return replace(y, step="inverse")
        case _, Known() if number(y):
            made = _scaled(build, x, 1 / number(y))
            if made is not None:
                return made
    raise NotKnown("it divides by something that is no constant")


def _power(build: Builder, node: Node, x: Operand, y: Operand) -> Part:
    exponent = number(y)
    match x:
        case Statistic(step="centred") if exponent == 2:
            return replace(x, step="square")
        case Statistic(step="steadied") if exponent == 0.5:
            return replace(x, step="deviation")
    base = build.polynomial(x)
    if exponent not in (2, 3):
        raise NotKnown("its exponent is neither 2 nor 3")
    return base * base if exponent == 2 else base * base * base


def _root(build: Builder, node: Node, x: Operand) -> Part:
    if isinstance(x, Statistic) and x.step == "steadied":
        return replace(x, step="deviation")
    raise NotKnown("it is no part of LayerNorm")


def _reciprocal(build: Builder, node: Node, x: Operand) -> Part:
    if isinstance(x, Statistic) and x.step == "deviation":
        return replace(x, step="inverse")
    raise NotKnown("it is no part of LayerNorm")


def _mean(build: Builder, node: Node, x: Operand, axes: Operand = None) -> Part:
    over = node.attributes.get("axes") if axes is None else axes.integers(0)
    squares = isinstance(x, Statistic) and x.step == "square"
    view = x.view if squares else build.rows(x)
    if over is None or list(over) not in ([-1], [len(view.axes) - 1]) or not node.attributes.get("keepdims", 1):
        raise NotKnown("it is no mean over features")
    return Statistic(view, "variance" if squares else "mean")


def _layer_norm(build: Builder, node: Node, x: Operand, weight: Operand, bias: Operand = None) -> Part:
    view = build.rows(x)
    axis = node.attributes.get("axis", -1)
    scale, shift = vector(weight, view.width), vector(bias, view.width)
    if axis not in (-1, len(view.axes) - 1) or scale is None or (shift is None and bias is not None):
        raise NotKnown("it is no LayerNorm over features")
    return Polynomial(build.norm(view, scale, shift, node.attributes.get("epsilon", 1e-5)))


def _erf(build: Builder, node: Node, x: Operand) -> Part:
    inner = build.polynomial(x)
    if not inner.is_near((1, _HALF_ROOT)):
        raise NotKnown("it is no part of GELU")
    return Sigmoid(inner.view, "gelu")


def _tanh(build: Builder, node: Node, x: Operand) -> Part:
    inner = build.polynomial(x)
    if inner.is_near((1, _OF_TANH), (3, _OF_TANH * _CUBE)):
        return Sigmoid(inner.view, "gelu_tanh")
    return build.activate(build.settle(x), "tanh")


def _relu(build: Builder, node: Node, x: Operand) -> Part:
    return build.activate(build.settle(x), "relu")


def _gelu_operator(build: Builder, node: Node, x: Operand) -> Part:
    kind = {"none": "gelu", "tanh": "gelu_tanh"}[node.attributes.get("approximate", "none")]
    return build.activate(build.settle(x), kind)


def _softmax(build: Builder, node: Node, x: Operand) -> Part:
    if not isinstance(x, Scores) or node.attributes.get("axis", -1) not in (-1, 3):
        raise NotKnown("it is no softmax over scores of attention")
    if not 0 < x.scale <= 1:  # scores as large as a mask would not be hidden by it
        raise NotKnown(f"the scores of attention are multiplied by {x.scale:g}, not by a number between 0 and 1")
    if build.has_mask and not x.masked:
        raise NotKnown("these scores of attention have no mask, though the model takes one")
    return Probabilities(x)


def _is_nan(build: Builder, node: Node, x: Operand) -> Part:
    if not isinstance(x, Probabilities):
        raise NotKnown("it is given no probabilities of attention")
    return Undefined(x)


def _where(build: Builder, node: Node, condition: Operand, x: Operand, y: Operand) -> Part:
    """Scores, or a number where they are hidden: the same as adding a mask. Probabilities, or zeros in place of NaN."""
    if isinstance(condition, Undefined) and y == condition.of and number(x) == 0:
        return y
    scores, other, shown = (x, y, True) if isinstance(x, Scores) else (y, x, False)
    hidden = number(other)
    if not isinstance(scores, Scores) or not isinstance(condition, Known) or hidden is None:
        raise NotKnown("it chooses between values that are no scores of attention")
    mask = [np.where(each == shown, np.float32(0), np.float32(hidden)) for each in condition.values]
    return build.masked(scores, Known(tuple(mask)))


def _matmul(build: Builder, node: Node, x: Operand, y: Operand) -> Part:
    if isinstance(y, Known):
        view, weight = build.rows(x), y.constant
        if weight is None or weight.ndim != 2 or weight.dtype != np.float32 or len(weight) != view.width:
            raise NotKnown(f"its weight is no constant matrix of float32 with {view.width} rows")
        return Product(view, y, layer_name(y, node.name))
    if isinstance(x, Probabilities):
        return build.attention(x, build.settle(y))
    return build.scores(build.polynomial(x), build.polynomial(y))


def _gemm(build: Builder, node: Node, x: Operand, y: Operand, bias: Operand = None) -> Part:
    facts = node.attributes
    if facts.get("transA") or facts.get("alpha", 1.0) != 1 or facts.get("beta", 1.0) != 1 or not isinstance(y, Known):
        raise NotKnown("it is no linear layer")
    weight = build.by_inputs(y) if facts.get("transB") else y
    made = _matmul(build, node, x, weight)
    return made if bias is None else _add(build, node, made, bias)


def _quantize(build: Builder, node: Node, x: Operand, scale: Operand, zero_point: Operand) -> Part:
    point, step = number(zero_point), number(scale)
    if step is None or point is None or zero_point.constant.dtype != np.uint8 or scale.constant.dtype != np.float32:
        raise NotKnown("it does not round to uint8 by one scale")
    if not step > 0:
        raise NotKnown(f"its scale is {step}")
    of = x if isinstance(x, Probabilities) else build.settle(x)
    return Rounded(of, Rounding(np.float32(step), int(point)))


def _integer_matmul(
    build: Builder, node: Node, x: Operand, y: Operand, point: Operand = None, other: Operand = None
) -> Part:
    points = [0 if zero is None else number(zero) for zero in (point, other)]
    if not isinstance(x, Rounded) or points[0] != x.rounding.zero_point:
        raise NotKnown("its first operand is no value in 8 bits with that zero point")
    if isinstance(y, Rounded):
        if points[1] != y.rounding.zero_point or not isinstance(y.of, View):
            raise NotKnown("its second operand has another zero point")
        return IntegerProduct(x, y, node.name)
    weight = y.constant if isinstance(y, Known) else None
    if weight is None or weight.ndim != 2 or weight.dtype != np.int8 or points[1] != 0:
        raise NotKnown("its weight is no constant matrix of int8 with zero point 0")
    if not isinstance(x.of, View) or not x.of.is_rows or x.of.width != len(weight):
        raise NotKnown("its operand has not a feature for each row of the weight")
    return IntegerProduct(x, y, layer_name(y, node.name))


def _cast(build: Builder, node: Node, x: Operand) -> Part:
    if node.attributes.get("to") != _FLOAT or isinstance(x, Rounded):
        raise NotKnown("it makes a type other than float32")
    return replace(x, is_float=True) if isinstance(x, IntegerProduct) else x


def _same(build: Builder, node: Node, x: Operand) -> Part:
    return x


RULES: dict[str, Callable[..., Part]] = {
    "Add": _add, "Mul": _multiply, "Sub": _subtract, "Div": _divide, "Pow": _power, "Sqrt": _root,
    "Reciprocal": _reciprocal, "ReduceMean": _mean, "LayerNormalization": _layer_norm, "Erf": _erf, "Tanh": _tanh,
    "Relu": _relu, "Gelu": _gelu_operator, "Softmax": _softmax, "IsNaN": _is_nan, "Where": _where,
    "MatMul": _matmul, "Gemm": _gemm, "QuantizeLinear": _quantize, "MatMulInteger": _integer_matmul, "Cast": _cast,
    "Identity": _same,
}  # fmt: skip
