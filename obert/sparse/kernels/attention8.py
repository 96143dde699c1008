"""Attention of one head in 8 bits: products of rounded queries, keys, probabilities and values, exact in integers."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from obert.sparse.kernels.arrays import keep
from obert.sparse.kernels.dots import BYTES, block_bytes, dot
from obert.sparse.kernels.functions import exp2
from obert.sparse.kernels.operands8 import (
    COLUMN,
    WEIGHT_BYTES,
    WIDE,
    column_at,
    mul_i32,
    pack_keys,
    pack_queries,
    pack_values,
    packed_column,
    sum_values,
)
from obert.sparse.kernels.rounding8 import emit_activations, store_rounded
from obert.sparse.kernels.vectors import (
    I32,
    add,
    add_i32,
    div,
    emit_store,
    f32_at,
    fma,
    i32_at,
    jit,
    lanes_of,
    load,
    load_i32,
    maximum,
    mul,
    row_bytes,
    splat,
    splat_i32,
    store,
    sub,
    to_f32,
)
from obert.sparse.program import Attention, Rounding

_BYTES, _LINE = BYTES, 64
_LOG2E = np.float32(np.log2(np.e))
_LEAST = np.float32(-1e38)  # times _LOG2E it is still finite
_VANISHING = np.float32(-1e30)  # a score that is added to less is lost

# Columns of the table, in bytes. Float32: what a unit of scores is worth, in powers of two, 1 / scale of probabilities,
# what a unit of the context is worth, and 1 / scale of the context, 0 if it is not rounded; int32: zero points; int8:
# four weights of 1.
SCORE, SHARE, CONTEXT, OUT, Q_ZERO, K_ZERO, P_ZERO, V_ZERO, OUT_ZERO, ONES = range(0, 40, 4)


def attention_table(operation: Attention, rounding: Rounding | None = None) -> np.ndarray:
    """What `attention8` reads of an operation.

    Args:
        rounding: of the context, where heads begin at multiples of four features; None: it is float32.
    """
    assert operation.roundings is not None
    q, k, p, v = operation.roundings
    score = float(q.scale * k.scale) * float(operation.scale) * np.log2(np.e)
    inverse = 0 if rounding is None else np.float32(1) / rounding.scale
    floats = np.array([score, np.float32(1) / p.scale, p.scale * v.scale, inverse], np.float32)
    points = [each.zero_point for each in operation.roundings] + [0 if rounding is None else rounding.zero_point]
    parts = floats, np.array(points, np.int32), np.ones(4, np.int8)
    return keep(np.concatenate([part.view(np.int32) for part in parts]))


def scratch_bytes(keys: int, head_size: int) -> int:
    """How much memory `attention8` needs for a sequence of that many tokens."""
    tokens = -(-keys // 32) * 32
    features = -(-head_size // 4) * 4
    packed = tokens * features * WEIGHT_BYTES // 4
    return (
        3 * packed + 2 * tokens * 4 + -(-features * 4 // _LINE) * _LINE + tokens * WIDE.lanes * (4 + WEIGHT_BYTES // 4)
    )


def _columns(builder: ir.IRBuilder, vector: ir.Value) -> list[ir.Value]:
    """A vector's columns of 16 tokens."""
    undefined = ir.Constant(vector.type, ir.Undefined)
    orders = [list(range(first, first + 16)) for first in range(0, vector.type.count, 16)]
    return [builder.shuffle_vector(vector, undefined, ir.Constant(ir.VectorType(I32, 16), order)) for order in orders]


@intrinsic
def _store_columns(typingctx, first, second, vector):
    """16 lanes to one address and, if there are more, 16 to another."""

    def code(c, b, s, a):
        for address, column in zip(a[:2], _columns(b, a[2]), strict=False):
            emit_store(b, address, column)
        return c.get_dummy_value()

    return types.void(types.int64, types.int64, vector), code


@intrinsic
def _store_rounded_columns(typingctx, first, second, stride, w, x, y, z, zero_point):
    """The same of four features, rounded; see `store_rounded`."""

    def code(c, b, s, a):
        for address, *values in zip(a[:2], *(_columns(b, vector) for vector in a[3:7]), strict=False):
            emit_activations(b, address, a[2], values, a[7])
        return c.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, w, w, w, w, types.int64), code


@jit
def _scores(W, queries, query_sums, packed_keys, keys, key_sums, head_size, scores):
    """The products of queries and keys as float32 [key][query], and the greatest of each query."""
    row, step = row_bytes(W), block_bytes(WIDE)
    blocks = (head_size + 3) // 4
    top = splat(W, -np.inf)
    base = splat_i32(W, 0)
    if _BYTES:
        base = load_i32(W, query_sums)
    for j in range(0, keys, 4):
        w = packed_keys + j // lanes_of(WIDE) * blocks * step + j % lanes_of(WIDE) * WEIGHT_BYTES
        x = queries
        sum0 = base
        sum1 = base
        sum2 = base
        sum3 = base
        if _BYTES:
            bias = key_sums + j * 4
            sum0 = add_i32(base, splat_i32(W, i32_at(bias)))
            sum1 = add_i32(base, splat_i32(W, i32_at(bias + 4)))
            sum2 = add_i32(base, splat_i32(W, i32_at(bias + 8)))
            sum3 = add_i32(base, splat_i32(W, i32_at(bias + 12)))
        for _ in range(blocks):
            sum0 = dot(sum0, x, w)
            sum1 = dot(sum1, x, w + WEIGHT_BYTES)
            sum2 = dot(sum2, x, w + 2 * WEIGHT_BYTES)
            sum3 = dot(sum3, x, w + 3 * WEIGHT_BYTES)
            x += step
            w += step
        out = scores + j * row
        score = to_f32(sum0)
        top = maximum(top, score)
        store(out, score)
        score = to_f32(sum1)
        store(out + row, score)
        if j + 1 < keys:
            top = maximum(top, score)
        score = to_f32(sum2)
        store(out + 2 * row, score)
        if j + 2 < keys:
            top = maximum(top, score)
        score = to_f32(sum3)
        store(out + 3 * row, score)
        if j + 3 < keys:
            top = maximum(top, score)
    return top


@jit
def _add_mask(W, scores, keys, scale, mask):
    """What each score's power of two is, in place of it: scale * score + mask, less the greatest of the query.

    A key that has nothing added gets the bits that it has without a mask. If all keys have so much subtracted that
    nothing is left of a float32 score, they count alike.
    """
    row = row_bytes(W)
    strongest = _LEAST
    for j in range(keys):
        strongest = max(strongest, f32_at(mask + j * 4))
    if strongest < _VANISHING:
        scale = np.float32(0)
    top = splat(W, -np.inf)
    for j in range(keys):
        added = max(f32_at(mask + j * 4), _LEAST) * _LOG2E
        top = maximum(top, fma(load(W, scores + j * row), splat(W, scale), splat(W, added)))
    for j in range(keys):
        added = max(f32_at(mask + j * 4), _LEAST) * _LOG2E
        power = fma(load(W, scores + j * row), splat(W, scale), sub(splat(W, added), top))
        store(scores + j * row, power)


@jit
def _probabilities(W, scores, least, keys, scale, table, out):
    """Softmax over the keys, rounded, as activations; the sum of each query's integers, where they are bytes."""
    row = row_bytes(W)
    zero = i32_at(table + P_ZERO)
    total = splat(W, 0.0)
    for j in range(keys):
        e = exp2(fma(load(W, scores + j * row), splat(W, scale), least))
        total = add(total, e)
        store(scores + j * row, e)
    for j in range(keys, (keys + 3) // 4 * 4):
        store(scores + j * row, splat(W, 0.0))
    share = div(splat(W, f32_at(table + SHARE)), total)
    sums = splat_i32(W, 0)
    for j in range(0, keys, 4):
        e = scores + j * row
        store_rounded(
            out,
            row,
            mul(load(W, e), share),
            mul(load(W, e + row), share),
            mul(load(W, e + 2 * row), share),
            mul(load(W, e + 3 * row), share),
            zero,
        )
        if _BYTES:
            sums = dot(sums, out, table + ONES)
        out += block_bytes(W)
    return sums


@jit
def _context(W, probabilities, sums, keys, values, value_sums, columns, head_size, table, row, first, second):
    """The products of probabilities and values, to a column of tokens or two."""
    unit = splat(W, f32_at(table + CONTEXT))
    inverse = f32_at(table + OUT)
    base = splat_i32(W, 0)
    if _BYTES:
        base = mul_i32(sums, splat_i32(W, 128 - i32_at(table + V_ZERO)))
    for f in range(0, head_size, 4):
        w = values + f * columns * 4 * WEIGHT_BYTES
        x = probabilities
        sum0 = base
        sum1 = base
        sum2 = base
        sum3 = base
        if _BYTES:
            bias = value_sums + f * 4
            sum0 = add_i32(base, splat_i32(W, i32_at(bias)))
            sum1 = add_i32(base, splat_i32(W, i32_at(bias + 4)))
            sum2 = add_i32(base, splat_i32(W, i32_at(bias + 8)))
            sum3 = add_i32(base, splat_i32(W, i32_at(bias + 12)))
        for _ in range((keys + 3) // 4):
            sum0 = dot(sum0, x, w)
            sum1 = dot(sum1, x, w + WEIGHT_BYTES)
            sum2 = dot(sum2, x, w + 2 * WEIGHT_BYTES)
            sum3 = dot(sum3, x, w + 3 * WEIGHT_BYTES)
            x += block_bytes(W)
            w += 4 * WEIGHT_BYTES
        real0 = mul(to_f32(sum0), unit)
        real1 = mul(to_f32(sum1), unit)
        real2 = mul(to_f32(sum2), unit)
        real3 = mul(to_f32(sum3), unit)
        if inverse != 0:
            block = f * row * WEIGHT_BYTES // 16
            _store_rounded_columns(
                first + block,
                second + block,
                row,
                mul(real0, splat(W, inverse)),
                mul(real1, splat(W, inverse)),
                mul(real2, splat(W, inverse)),
                mul(real3, splat(W, inverse)),
                i32_at(table + OUT_ZERO),
            )
        else:
            to, other = first + f * row, second + f * row
            _store_columns(to, other, real0)
            if f + 1 < head_size:
                _store_columns(to + row, other + row, real1)
            if f + 2 < head_size:
                _store_columns(to + 2 * row, other + 2 * row, real2)
            if f + 3 < head_size:
                _store_columns(to + 3 * row, other + 3 * row, real3)


@jit
def _attend(V, W, token, keys, head_size, mask, table, operands, queries, query_sums, scores, context, stride):
    """The context of as many queries as W has lanes, from a token on."""
    packed_keys, key_sums, values, value_sums = operands
    columns = (keys + 15) // 16
    probabilities = scores + columns * 16 * row_bytes(W)
    scale = f32_at(table + SCORE)
    top = _scores(W, queries, query_sums, packed_keys, keys, key_sums, head_size, scores)
    least = mul(top, splat(W, -scale))
    if mask != 0:
        _add_mask(W, scores, keys, scale, mask)
        least, scale = splat(W, 0.0), np.float32(1)
    sums = _probabilities(W, scores, least, keys, scale, table, probabilities)
    first = context + column_at(V, token, stride)
    second = context + column_at(V, token + lanes_of(W) - 16, stride)
    _context(W, probabilities, sums, keys, values, value_sums, columns, head_size, table, row_bytes(V), first, second)


@jit
def attention8(
    V, q, k, v, stride, start, keys, first, last, head, head_size, mask, table, scratch, context, context_stride
):  # fmt: skip
    """The context of some queries of one head of one sequence.

    Args:
        V: tiles have that many tokens.
        q, k, v: addresses of all heads' 8-bit activations, as `quantize` writes them; `stride` bytes to the next tile.
        start: the place of the sequence's first token, a multiple of 16.
        keys: how many of the sequence's tokens are attended to, from the first one on.
        first, last: which queries, counted from the sequence's first; multiples of 16.
        head, head_size: which features, from head * head_size on.
        mask: address of what is added to the scores of the keys, float32; or 0.
        table: address of an `attention_table`.
        scratch: address of `scratch_bytes(keys, head_size)`, aligned to 64.
        context: address of all heads' float32 rows in the first tile, or of its 8-bit activations, as the table says;
            `context_stride` bytes to the next tile.
    """
    columns, chosen = (keys + 15) // 16, (last - first) // 16
    tokens, blocks = (keys + 31) // 32 * 32, (head_size + 3) // 4
    packed_keys = scratch
    values = packed_keys + tokens * blocks * WEIGHT_BYTES
    queries = values + tokens * blocks * WEIGHT_BYTES
    key_sums = queries + tokens * blocks * WEIGHT_BYTES
    query_sums = key_sums + tokens * 4
    value_sums = query_sums + tokens * 4
    scores = value_sums + (blocks * 16 + _LINE - 1) // _LINE * _LINE
    q_zero, k_zero, v_zero = i32_at(table + Q_ZERO), i32_at(table + K_ZERO), i32_at(table + V_ZERO)
    feature, ones = head * head_size, table + ONES
    pack_keys(V, k, stride, start, columns, feature, head_size, ones, k_zero, -q_zero, packed_keys, key_sums)
    pack_values(V, v, stride, start, columns, feature, head_size, values)
    pack_queries(V, q, stride, start + first, chosen, feature, head_size, ones, 128 - k_zero, queries, query_sums)
    if _BYTES:
        sum_values(values, columns, (keys + 3) // 4 * 4, head_size, v_zero, -i32_at(table + P_ZERO), value_sums)
    operands = packed_keys, key_sums, values, value_sums
    out = context + feature * row_bytes(V)
    if f32_at(table + OUT) != 0:
        out = context + feature // 4 * block_bytes(V)
    at = first
    while at + lanes_of(WIDE) <= last:
        x = queries + packed_column((at - first) // 16, head_size)
        sums = query_sums + (at - first) * 4
        _attend(V, WIDE, start + at, keys, head_size, mask, table, operands, x, sums, scores, out, context_stride)
        at += lanes_of(WIDE)
    if at < last:
        x = queries + packed_column((at - first) // 16, head_size)
        sums = query_sums + (at - first) * 4
        _attend(V, COLUMN, start + at, keys, head_size, mask, table, operands, x, sums, scores, out, context_stride)
