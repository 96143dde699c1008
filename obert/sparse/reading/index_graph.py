"""The part of a graph that computes positions, masks and shapes, run on samples; what it means is read off its results.

Exporters write a mask or a position in a dozen operators, each release in others. Their results say what they are: a
mask is what is 0 at tokens that attention may see, and hugely negative at all others, whatever computed it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial, reduce

import numpy as np

from obert.sparse.reading.onnx_file import TYPES, Node, OnnxFile, shown

_HIDDEN = -1e4  # what a mask adds is this or less: e to its power is 0 in float32
Shapes = tuple[tuple[int, int], ...]
SHORT: Shapes = ((2, 7), (3, 5), (1, 6), (4, 8), (2, 3))  # batch, tokens: no two numbers of a pair are equal
_MOST_AXES = 8
_LARGEST, _IN_ALL = 1 << 21, 1 << 26  # elements of a result, and of all: a mask of 512 x 512 takes many steps


class NotKnown(Exception):
    """What an operator is given, or does, that is not understood."""


@dataclass(frozen=True, eq=False)
class Known:
    """A tensor that depends on constants and on the model's inputs alone.

    Attributes:
        values: one for each sample; a single one if it is a constant.
        name: of the constant in the file that it is, or the transposed of which; else empty.
    """

    values: tuple[np.ndarray, ...]
    name: str = ""

    @property
    def constant(self) -> np.ndarray | None:
        """Its values, if it is a constant."""
        return self.values[0] if len(self.values) == 1 else None

    @property
    def number(self) -> float | int | None:
        """The number that it is on every sample, if it is one."""
        first = self.values[0]
        if first.size != 1 or not all(np.array_equal(first, value) for value in self.values):
            return None
        return first.reshape(())[()].item()

    def integers(self, sample: int) -> list[int]:
        """Its values on a sample, as a list."""
        values = self.values[min(sample, len(self.values) - 1)]
        if values.dtype.kind not in "iu" or values.ndim > 1:
            raise NotKnown("an input that has to hold integers does not")
        return np.atleast_1d(values).tolist()


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs of a few batches. Each has other lengths, and padding at the end, between tokens, or none.

    Attributes:
        shapes: batch and tokens of each.
        pads: numbers that may be that of the pad token; each is among the words.
    """

    shapes: Shapes
    inputs: dict[str, tuple[np.ndarray, ...]]
    pads: tuple[int, ...]


def make_samples(file: OnnxFile, shapes: Shapes) -> Samples:
    """Samples for a file. The graph compares words with the pad token, if with anything: words are its constants."""
    constants = [*file.constants.values(), *(node.attributes.get("value") for node in file.nodes)]
    numbers = {
        int(value)
        for array in constants
        if isinstance(array, np.ndarray) and array.size == 1 and array.dtype.kind in "iu"
        for value in array.flat
    }
    ends = np.cumsum([0, *map(math.prod, shapes)])
    pads = sorted(number for number in numbers if 0 <= number < 1 << 31)[: min(32, ends[-1] // 2)]
    random = np.random.default_rng(0)
    pool = random.permutation([*pads, *random.choice([*pads, *range(40, 60)], ends[-1] - len(pads))])
    words, masks, types = [], [], []
    for number, shape in enumerate(shapes):
        words.append(pool[ends[number] : ends[number + 1]].reshape(shape))
        mask = random.integers(0, 2, shape)  # padding anywhere
        if number % 2 == 0:  # padding at the end
            mask = (np.arange(shape[1]) < random.integers(1, shape[1] + 1, (shape[0], 1))).astype(np.int64)
        mask[0] = 1
        masks.append(mask if "attention_mask" in file.inputs else np.ones_like(mask))
        types.append(random.integers(0, 2, shape))
    inputs = {"input_ids": words, "attention_mask": masks, "token_type_ids": types}
    made = {name: tuple(np.asarray(value, np.int64) for value in each) for name, each in inputs.items()}
    return Samples(shapes, made, tuple(pads))


@dataclass(frozen=True)
class Index:
    """What rows a lookup takes: `kind` is `index` of `program.Lookup`, `pad_token` what `program.Program` has."""

    kind: str
    pad_token: int | None = None


def index_of(known: Known, samples: Samples) -> Index:
    """What a tensor of indices, [batch or 1, tokens], means.

    Raises:
        NotKnown: it is neither an input, nor zeros, nor positions.
    """
    values = []
    for number, shape in enumerate(samples.shapes):
        value = known.values[min(number, len(known.values) - 1)]
        if value.dtype.kind not in "iu" or value.ndim > 2 or value.shape[-1:] != shape[1:]:
            raise NotKnown("it looks up rows by something else than a number for each token")
        values.append(np.broadcast_to(value, shape))
    for kind, name in (("words", "input_ids"), ("types", "token_type_ids")):
        if _equal(values, samples.inputs[name]):
            return Index(kind)
    if _equal(values, map(np.zeros, samples.shapes)):
        return Index("first")
    if _equal(values, [np.broadcast_to(np.arange(tokens), (batch, tokens)) for batch, tokens in samples.shapes]):
        return Index("positions")
    for pad in samples.pads:
        real = [words != pad for words in samples.inputs["input_ids"]]
        if _equal(values, [pad + np.cumsum(each, axis=1) * each for each in real]):
            return Index("positions", pad)
    raise NotKnown("the rows that it looks up are not those of words, token types or positions")


def _equal(values: Iterable[np.ndarray], others: Iterable[np.ndarray]) -> bool:
    return all(np.array_equal(value, other) for value, other in zip(values, others, strict=True))


def check_mask(known: Known, samples: Samples) -> None:
    """Whether what is added to scores, [batch, 1, queries or 1, tokens], hides padding, and nothing else.

    Raises:
        NotKnown: it does not.
    """
    for number, (batch, tokens) in enumerate(samples.shapes):
        value = known.values[min(number, len(known.values) - 1)]
        seen = samples.inputs["attention_mask"][number][:, None, None, :] == 1
        shape = np.broadcast_shapes(value.shape, (batch, 1, tokens, tokens))
        if value.dtype != np.float32 or shape != (batch, 1, tokens, tokens):
            raise NotKnown("what is added to attention's scores is no mask of keys")
        value, seen = np.broadcast_to(value, shape), np.broadcast_to(seen, shape)
        if not ((value == 0) == seen).all() or not (value[~seen] <= _HIDDEN).all():
            raise NotKnown("the mask of attention is not the one that hides padding, and nothing else")


class Evaluation:
    """Runs operators on known tensors.

    Args:
        file: what it has may be computed with; results with many more elements than it has bytes are refused.
    """

    def __init__(self, file: OnnxFile):
        self._most = max(file.size, _LARGEST)
        self._left = _IN_ALL + 8 * file.size

    def __call__(self, node: Node, inputs: list[Known | None]) -> list[Known]:
        """The results of a node, by sample.

        Raises:
            NotKnown: there is no rule for it, or it cannot be computed.
        """
        rule = _RULES.get(node.kind)
        if rule is None:
            raise NotKnown("no rule for it")
        count = max((len(known.values) for known in inputs if known), default=1)
        results = []
        for sample in range(count):
            arrays = [None if k is None else k.values[min(sample, len(k.values) - 1)] for k in inputs]
            try:
                with np.errstate(all="ignore"):
                    result = np.asarray(rule(node.attributes, self._limit, *arrays))
            except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
                raise NotKnown(f"it cannot be computed ({shown(str(error))})") from None
            self._limit(result.shape)
            self._left -= result.size
            if self._left < 0:
                raise NotKnown("all that the graph computes before it is too large")
            results.append(result)
        name = inputs[0].name if node.kind in ("Identity", "Transpose") and inputs[0] else ""
        return [Known(tuple(results), name)]

    def _limit(self, shape: Iterable[int]) -> tuple[int, ...]:
        """A shape, if a tensor of it is no waste."""
        shape = tuple(int(size) for size in shape)
        if len(shape) > _MOST_AXES or math.prod(shape) > self._most:
            raise NotKnown(f"its result would have shape {list(shape)}")
        return shape


Limit = Callable[[Iterable[int]], tuple[int, ...]]


def _elementwise(function: Callable, attributes: dict, limit: Limit, *arrays: np.ndarray) -> np.ndarray:
    limit(np.broadcast_shapes(*(array.shape for array in arrays)))
    return function(*arrays)


def _divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind == "f":
        return x / y
    return (np.sign(x) * np.sign(y) * (abs(x) // abs(y))).astype(x.dtype)  # towards zero


def _axes(attributes: dict, axes: np.ndarray | None) -> tuple[int, ...] | None:
    return tuple(attributes["axes"]) if "axes" in attributes else None if axes is None else tuple(axes.tolist())


def _shape(attributes: dict, limit: Limit, x: np.ndarray) -> np.ndarray:
    return np.array(x.shape[slice(attributes.get("start", 0), attributes.get("end"))], np.int64)


def _squeeze(attributes: dict, limit: Limit, x: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
    return np.squeeze(x, _axes(attributes, axes))


def _unsqueeze(attributes: dict, limit: Limit, x: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
    return np.expand_dims(x, _axes(attributes, axes))


def _constant(attributes: dict, limit: Limit) -> np.ndarray:
    if "value" in attributes:
        return attributes["value"]
    kinds = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    [(name, value)] = attributes.items()
    return np.array(value, kinds[name])


def _filled(attributes: dict, limit: Limit, shape: np.ndarray) -> np.ndarray:
    value = attributes.get("value", np.zeros(1, np.float32))
    return np.full(limit(shape), value.reshape(())[()], value.dtype)


def target_shape(wanted: list[int], shape: tuple[int, ...], keep_zero: bool) -> list[int]:
    """The shape that Reshape gives a tensor of a shape: 0 copies a size, -1 is what is left."""
    sizes = [shape[at] if size == 0 and not keep_zero else size for at, size in enumerate(wanted)]
    if sizes.count(-1) == 1:
        known = -math.prod(sizes)
        sizes[sizes.index(-1)] = math.prod(shape) // known if known else 0
    return sizes


def _reshape(attributes: dict, limit: Limit, x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return x.reshape(target_shape(shape.tolist(), x.shape, bool(attributes.get("allowzero", 0))))


def _expand(attributes: dict, limit: Limit, x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return np.broadcast_to(x, limit(np.broadcast_shapes(x.shape, limit(shape))))


def slices(rank: int, starts: list, ends: list, axes: list | None, steps: list | None) -> list[slice]:
    """What Slice takes of each axis."""
    taken = [slice(None)] * rank
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        taken[axis] = slice(start, end, step)
    return taken


def _slice(attributes: dict, limit: Limit, x: np.ndarray, *rest: np.ndarray | None) -> np.ndarray:
    lists = [None if part is None else part.tolist() for part in rest]
    return x[tuple(slices(x.ndim, *[*lists, None, None][:4]))]


def _flatten(attributes: dict, limit: Limit, x: np.ndarray) -> np.ndarray:
    axis = attributes.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _range(attributes: dict, limit: Limit, start: np.ndarray, end: np.ndarray, step: np.ndarray) -> np.ndarray:
    limit([math.ceil((end.item() - start.item()) / step.item())])
    return np.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


def _cast(attributes: dict, limit: Limit, x: np.ndarray) -> np.ndarray:
    return x.astype(TYPES[attributes["to"]], copy=False)


def _cumulated(attributes: dict, limit: Limit, x: np.ndarray, axis: np.ndarray) -> np.ndarray:
    if attributes.get("exclusive") or attributes.get("reverse"):
        raise NotKnown("it sums in another order")
    return np.cumsum(x, axis=axis.item(), dtype=x.dtype)


def _gather(attributes: dict, limit: Limit, x: np.ndarray, index: np.ndarray) -> np.ndarray:
    axis = attributes.get("axis", 0) % x.ndim
    limit((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))
    return np.take(x, index, axis=axis)


def _gather_elements(attributes: dict, limit: Limit, x: np.ndarray, index: np.ndarray) -> np.ndarray:
    axis = attributes.get("axis", 0) % x.ndim
    within = tuple(slice(None) if at == axis else slice(size) for at, size in enumerate(index.shape))
    return np.take_along_axis(x[within], index, axis=axis)


def _gather_nd(attributes: dict, limit: Limit, x: np.ndarray, index: np.ndarray) -> np.ndarray:
    if attributes.get("batch_dims", 0):
        raise NotKnown("it gathers by batch")
    limit((*index.shape[:-1], *x.shape[index.shape[-1] :]))
    return x[tuple(np.moveaxis(index, -1, 0))]


def _transpose(attributes: dict, limit: Limit, x: np.ndarray) -> np.ndarray:
    return np.transpose(x, attributes.get("perm"))


def _concatenate(attributes: dict, limit: Limit, *arrays: np.ndarray) -> np.ndarray:
    return np.concatenate(arrays, axis=attributes["axis"])


_ELEMENTWISE: dict[str, Callable] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": _divide, "Pow": np.power, "Sqrt": np.sqrt,
    "Neg": np.negative, "Equal": np.equal, "Not": np.logical_not, "And": np.logical_and, "Or": np.logical_or,
    "Greater": np.greater, "GreaterOrEqual": np.greater_equal, "Less": np.less, "LessOrEqual": np.less_equal,
    "Where": np.where, "Max": lambda *arrays: reduce(np.maximum, arrays),
    "Min": lambda *arrays: reduce(np.minimum, arrays), "Identity": lambda x: x,
}  # fmt: skip
_RULES: dict[str, Callable] = {kind: partial(_elementwise, function) for kind, function in _ELEMENTWISE.items()} | {
    "Shape": _shape, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Constant": _constant, "Reshape": _reshape,
    "ConstantOfShape": _filled, "Expand": _expand, "Slice": _slice, "Range": _range, "Cast": _cast,
    "CumSum": _cumulated, "Flatten": _flatten, "Gather": _gather,
    "GatherElements": _gather_elements, "GatherND": _gather_nd, "Transpose": _transpose,
    "Concat": _concatenate,
}  # fmt: skip
