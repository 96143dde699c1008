"""Rules for the operators that compute nothing: they look rows up, split heads, take the first token, cut and join."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np

from obert.sparse.reading.building import Builder
from obert.sparse.reading.index_graph import Known, NotKnown, slices, target_shape
from obert.sparse.reading.onnx_file import Node
from obert.sparse.reading.rules import Operand, number
from obert.sparse.reading.views import (
    BATCH,
    FEATURES,
    OF_SEQUENCES,
    OF_TOKENS,
    ONE,
    Columns,
    Looked,
    Part,
    Polynomial,
    Rounded,
    Scores,
    View,
)  # fmt: skip


def _view_of(build: Builder, x: Operand) -> tuple[View, Callable[[View], Part]]:
    """The view within a part, and what makes that part of another view."""
    match x:
        case Polynomial(terms=((1, _),)):
            return x.view, lambda view: replace(x, view=view)
        case Rounded(of=View()):
            return x.of, lambda view: replace(x, of=view)
    return build.settle(x), Polynomial


def _shapes(build: Builder, x: Operand) -> list[tuple[int, ...]]:
    """Of a tensor, one for each sample."""
    if isinstance(x, Scores):
        return [(batch, x.query.heads, tokens, tokens) for batch, tokens in build.samples.shapes]
    if isinstance(x, Looked):
        return [(batch, tokens - sum(x.cut), x.width) for batch, tokens in build.samples.shapes]
    return [_view_of(build, x)[0].shape(*sample) for sample in build.samples.shapes]


def _shape(build: Builder, node: Node, x: Operand) -> Known:
    taken = slice(node.attributes.get("start", 0), node.attributes.get("end"))
    return Known(tuple(np.array(shape[taken], np.int64) for shape in _shapes(build, x)))


def _reshape(build: Builder, node: Node, x: Operand, target: Operand) -> Part:
    view, of = _view_of(build, x)
    keep_zero = bool(node.attributes.get("allowzero", 0))
    shapes = [target_shape(target.integers(sample), shape, keep_zero) for sample, shape in enumerate(_shapes(build, x))]
    return of(view.reshaped(shapes, build.samples.shapes))


def _transpose(build: Builder, node: Node, x: Operand) -> Part:
    view, of = _view_of(build, x)
    return of(view.transposed(node.attributes.get("perm")))


def _gather(build: Builder, node: Node, x: Operand, index: Operand) -> Part | Known:
    axis = node.attributes.get("axis", 0)
    if isinstance(x, Known):
        if axis or x.constant is None or x.constant.ndim != 2:
            raise NotKnown("it looks up something else than rows of a constant table")
        return build.lookup(x.constant, index)
    view, place = build.rows(x), number(index)
    if place is None or index.values[0].ndim:
        raise NotKnown("it takes several places")
    if axis == 1 and view.axes == OF_TOKENS and place == 0:
        return build.first(view, keeps_axis=False)
    if axis in (-1, len(view.axes) - 1) and -view.width <= place < view.width:
        return Columns(view, place % view.width, place % view.width + 1, squeezed=True)
    raise NotKnown("it takes neither the first token nor a feature")


def _slice(build: Builder, node: Node, x: Operand, *limits: Operand) -> Part:
    shapes = _shapes(build, x)
    ranges = []  # by sample, by axis
    for sample, shape in enumerate(shapes):
        lists = [None if known is None else known.integers(sample) for known in limits]
        taken = slices(len(shape), *[*lists, None, None][:4])
        ranges.append([range(size)[part] for size, part in zip(shape, taken, strict=True)])
    cut = {
        axis
        for each, shape in zip(ranges, shapes, strict=True)
        for axis, size in enumerate(shape)
        if each[axis] != range(size)
    }
    if not cut:
        return x
    if len(cut) > 1:
        raise NotKnown("it cuts several axes")
    [axis] = cut
    parts = [(each[axis], shape[axis]) for each, shape in zip(ranges, shapes, strict=True)]
    if any(part.step != 1 or not part for part, _ in parts):
        raise NotKnown("it leaves out places, or takes none")
    if isinstance(x, Looked) and axis == 1:
        front, end = {part.start for part, _ in parts}, {size - part.stop for part, size in parts}
        if len(front) == len(end) == 1:
            return replace(x, cut=(x.cut[0] + front.pop(), x.cut[1] + end.pop()))
    view = build.rows(x)
    if axis == len(view.axes) - 1:
        return Columns(view, parts[0][0].start, parts[0][0].stop)
    if view.axes == OF_TOKENS and axis == 1 and all(part == range(1) for part, _ in parts):
        return build.first(view, keeps_axis=True)
    raise NotKnown("it takes neither the first token nor some features")


def _split(build: Builder, node: Node, x: Operand, sizes: Operand = None) -> list[Part]:
    view = build.rows(x)
    count = len(node.outputs)
    if node.attributes.get("axis", 0) not in (-1, len(view.axes) - 1):
        raise NotKnown("it splits an axis other than that of features")
    widths = [-(-view.width // count)] * count if sizes is None else sizes.integers(0)
    ends = np.cumsum([0, *widths]).clip(0, view.width).tolist()
    return [Columns(view, start, stop) for start, stop in pairwise(ends)]


def _axes_of(node: Node, axes: Operand, rank: int) -> list[int]:
    given = node.attributes.get("axes") if axes is None else axes.integers(0)
    if given is None:
        raise NotKnown("it does not say which axes")
    return [axis % rank for axis in given]


def _squeeze(build: Builder, node: Node, x: Operand, axes: Operand = None) -> Part:
    if isinstance(x, Columns):
        if x.stop - x.start != 1 or x.squeezed or _axes_of(node, axes, len(x.view.axes)) != [len(x.view.axes) - 1]:
            raise NotKnown("it drops an axis other than that of one feature")
        return replace(x, squeezed=True)
    view = build.rows(x)
    gone = _axes_of(node, axes, len(view.axes))
    if view.axes == (BATCH, ONE, FEATURES) and gone == [1]:
        return Polynomial(replace(view, axes=OF_SEQUENCES))
    if gone == [len(view.axes) - 1] and view.width == 1:
        return Columns(view, 0, 1, squeezed=True)
    raise NotKnown("it drops an axis that has more than one place")


def _pad(build: Builder, node: Node, x: Operand, pads: Operand, value: Operand = None, axes: Operand = None) -> Part:
    """Zeros before or after lookups that were cut at the other end: rows of the tokens beside."""
    if node.attributes.get("mode", "constant") != "constant" or (value is not None and number(value) != 0):
        raise NotKnown("it adds something else than zeros")
    if not isinstance(x, Looked) or x.joined or axes is not None:
        raise NotKnown("it adds zeros to something else than embeddings")
    _, front, _, _, end, _ = sizes = pads.integers(0)
    if sum(map(abs, sizes)) != front + end or (front, end) != x.cut[::-1]:
        raise NotKnown("it adds other places than were cut off")
    shift = x.cut[0] - x.cut[1]
    if 0 not in x.cut:
        raise NotKnown("it shifts embeddings both ways")
    return Looked(tuple((table, index, by + shift) for table, index, by in x.lookups))


def _concatenate(build: Builder, node: Node, *parts: Operand) -> Part:
    whole = [part for part in parts if isinstance(part, Looked) and not part.joined and part.cut == (0, 0)]
    if len(whole) != len(parts) or node.attributes["axis"] not in (-1, 2) or any(len(p.lookups) > 1 for p in whole):
        raise NotKnown("it joins something else than embeddings")
    return Looked(tuple(lookup for part in whole for lookup in part.lookups), joined=True)


ARRANGEMENTS: dict[str, Callable] = {
    "Shape": _shape, "Reshape": _reshape, "Transpose": _transpose, "Gather": _gather, "Slice": _slice, "Split": _split,
    "Squeeze": _squeeze, "Pad": _pad, "Concat": _concatenate,
}  # fmt: skip
