"""Attention of one head in 8 bits: products of rounded queries, keys, probabilities and values, exact in integers.

The rounded operands are packed anew for each head: queries and probabilities as activations of `dot`, keys and values
as its weights. Where activations are bytes (VNNI), they keep their zero point and weights are less 128, so the product
is corrected by the sums of both; without VNNI both are int16 less their zero point.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from obert.sparse.arrays import keep
from obert.sparse.dots import BYTES, DOT, WEIGHT, block_bytes, dot
from obert.sparse.pointwise8 import rounded, store_four
from obert.sparse.program import Attention
from obert.sparse.vectors import (
    I8,
    I16,
    I32,
    I64,
    Kind,
    add,
    add_i32,
    constant,
    div,
    emit_load,
    emit_splat,
    emit_store,
    exp,
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

_COLUMN = Kind(16)  # a sequence begins at a multiple of that many tokens
_WIDE = Kind(32 if DOT == "vnni512" else 16)  # queries at a time: two registers
_BYTES = BYTES
_WEIGHT_BYTES = 4 * np.dtype(WEIGHT).itemsize  # of four weights
_LINE = 64
_MAGIC_BITS = 0x4B400000  # of the float that `rounded` adds

# Columns of the table, in bytes. Float32: scale and 1 / scale of query, key and value, 1 / scale of probabilities, what
# a unit of each product is worth; int32: zero points; int8: none to four weights of 1.
Q_SCALE, Q_INVERSE, K_SCALE, K_INVERSE, V_SCALE, V_INVERSE, P_INVERSE, SCORE, CONTEXT = range(0, 36, 4)
Q_ZERO, K_ZERO, V_ZERO, P_ZERO, ONES = range(36, 56, 4)


def attention_table(operation: Attention, scales: tuple[float, float, float]) -> np.ndarray:
    """What `attention8` reads of an operation.

    Args:
        scales: what a unit of the int32 query, key and value is worth.
    """
    assert operation.roundings is not None
    q, k, p, v = operation.roundings
    one = np.float32(1)
    numbers = [scales[0], one / q.scale, scales[1], one / k.scale, scales[2], one / v.scale, one / p.scale]
    numbers += [np.float32(q.scale * k.scale) * operation.scale, p.scale * v.scale]
    zeros = np.array([q.zero_point, k.zero_point, v.zero_point, p.zero_point], np.int32)
    ones = np.tri(5, 4, -1, np.int8)
    return keep(np.concatenate([part.view(np.int32).ravel() for part in (np.array(numbers, np.float32), zeros, ones)]))


def scratch_bytes(keys: int, head_size: int) -> int:
    """How much memory `attention8` needs for a sequence of that many tokens."""
    return sum(_parts(-(-keys // 16) * 16, -(-head_size // 4) * 4))


def _parts(columns: int, features: int) -> tuple[int, ...]:
    """Bytes of packed keys, their corrections, values, their sums, queries, their sums, scores and probabilities."""
    item = _WEIGHT_BYTES // 4
    lanes = _WIDE.lanes
    return (
        columns * features * item,
        columns * 4,
        columns * features * item,
        -(-features * 4 // _LINE) * _LINE,
        features * lanes * item,
        lanes * 4,
        columns * lanes * 4,
        columns * lanes * item,
    )


@intrinsic
def _store_weights(typingctx, address, first, second, third, fourth, zero_point, used):
    """Four features of some tokens, `rounded`, as weights: [tokens][4]; those of the last that are not `used` are 0."""

    def code(c, b, s, a):
        typ, lanes = a[1].type, first.lanes
        offset = b.sub(b.trunc(a[5], I32), I32(_MAGIC_BITS))
        bits = b.mul(b.sub(I64(4), a[6]), I64(8))
        if BYTES:
            total = _four_bytes(b, a[1:5], offset)
            total = b.xor(total, constant(typ, 0x80808080 - (1 << 32)))
            kept = b.trunc(b.lshr(I64(0xFFFFFFFF), bits), I32)
            emit_store(b, a[0], b.and_(total, emit_splat(b, kept, lanes)))
            return c.get_dummy_value()
        kept = b.lshr(I64(-1), b.mul(bits, I64(2)))
        pairs = []
        for half in range(2):
            low = b.and_(a[1 + 2 * half], constant(typ, 0xFFFF))
            pair = b.or_(low, b.shl(a[2 + 2 * half], constant(typ, 16)))
            mask = b.trunc(b.lshr(kept, I64(32 * half)), I32)
            pairs.append(b.and_(pair, emit_splat(b, mask, lanes)))
        order = [n // 2 + n % 2 * lanes for n in range(2 * lanes)]
        emit_store(b, a[0], b.shuffle_vector(*pairs, ir.Constant(ir.VectorType(I32, 2 * lanes), order)))
        return c.get_dummy_value()

    return types.void(types.int64, first, first, first, first, types.int64, types.int64), code


def _four_bytes(builder, vectors, offset):
    """Bytes of four `rounded` vectors, plus an offset that makes up for their other bits."""
    typ = vectors[0].type
    total = builder.add(vectors[0], emit_splat(builder, builder.mul(offset, I32(0x01010101)), typ.count))
    for n in range(1, 4):
        total = builder.add(total, builder.shl(vectors[n], constant(typ, 8 * n)))
    return total


@intrinsic
def _store_tokens(typingctx, address, vector, zero_point):
    """One `rounded` feature of some tokens, as weights that are neighbours."""

    def code(c, b, s, a):
        offset = b.sub(b.trunc(a[2], I32), I32(_MAGIC_BITS + (128 if BYTES else 0)))
        if not BYTES:
            offset = I32(-_MAGIC_BITS)
        value = b.add(a[1], emit_splat(b, offset, vector.lanes))
        emit_store(b, a[0], b.trunc(value, ir.VectorType(I8 if BYTES else I16, vector.lanes)))
        return c.get_dummy_value()

    return types.void(types.int64, vector, types.int64), code


@intrinsic
def _sum_of_weights(typingctx, sums, address):
    """sums + the four int8 weights of each token."""

    def code(c, b, s, a):
        octets = emit_load(b, a[1], a[0].type)
        total = a[0]
        for n in range(4):
            byte = b.shl(octets, constant(octets.type, 24 - 8 * n))
            total = b.add(total, b.ashr(byte, constant(octets.type, 24)))
        return total

    return sums(sums, types.int64), code


@intrinsic
def _mul_i32(typingctx, x, y):
    return x(x, y), lambda c, b, s, a: b.mul(a[0], a[1])


@intrinsic
def _store_columns(typingctx, first, second, vector):
    """16 lanes to one address and, if there are more, 16 to another."""

    def code(c, b, s, a):
        undefined = ir.Constant(a[2].type, ir.Undefined)
        for n in range(vector.lanes // 16):
            indices = ir.Constant(ir.VectorType(I32, 16), list(range(16 * n, 16 * n + 16)))
            emit_store(b, a[n], b.shuffle_vector(a[2], undefined, indices))
        return c.get_dummy_value()

    return types.void(types.int64, types.int64, vector), code


@intrinsic
def _weight_at(typingctx, address):
    """One weight, an integer."""
    typ = I8 if BYTES else I16
    return types.int64(types.int64), lambda c, b, s, a: b.sext(emit_load(b, a[0], typ), I64)


@intrinsic
def _i32_to(typingctx, address, value):
    def code(c, b, s, a):
        emit_store(b, a[0], b.trunc(a[1], I32))
        return c.get_dummy_value()

    return types.void(types.int64, types.int64), code


@jit
def _rounded_row(x, scale, inverse, zero_point):
    return rounded(mul(to_f32(load_i32(_COLUMN, x)), splat(_COLUMN, scale)), inverse, zero_point)


@jit
def _column(V, token, stride):
    """Where a token's column begins, from the first tile on."""
    return token // lanes_of(V) * stride + token % lanes_of(V) * 4


@jit
def _pack_keys(V, k, stride, start, columns, head_size, table, packed, corrections):
    """Keys as weights [column][feature / 4][16][4], and what each adds to its products."""
    row = row_bytes(V)
    scale, inverse = f32_at(table + K_SCALE), f32_at(table + K_INVERSE)
    zero, q_zero = i32_at(table + K_ZERO), i32_at(table + Q_ZERO)
    last = head_size - 1
    to = packed
    for column in range(columns):
        x = k + _column(V, start + column * 16, stride)
        sums = splat_i32(_COLUMN, 0)
        for f in range(0, head_size, 4):
            _store_weights(
                to,
                _rounded_row(x + f * row, scale, inverse, zero),
                _rounded_row(x + min(f + 1, last) * row, scale, inverse, zero),
                _rounded_row(x + min(f + 2, last) * row, scale, inverse, zero),
                _rounded_row(x + min(f + 3, last) * row, scale, inverse, zero),
                zero,
                min(4, head_size - f),
            )
            if _BYTES:
                sums = _sum_of_weights(sums, to)
            to += 16 * _WEIGHT_BYTES
        if _BYTES:
            sums = add_i32(
                _mul_i32(sums, splat_i32(_COLUMN, -q_zero)), splat_i32(_COLUMN, -q_zero * head_size * (128 - zero))
            )
        store(corrections + column * _LINE, sums)


@jit
def _pack_values(V, v, stride, start, columns, keys, head_size, table, packed, sums):
    """Values as weights [feature][token], and what each feature adds to its products."""
    row = row_bytes(V)
    scale, inverse = f32_at(table + V_SCALE), f32_at(table + V_INVERSE)
    zero, p_zero = i32_at(table + V_ZERO), i32_at(table + P_ZERO)
    size = 4 * _WEIGHT_BYTES  # of 16 tokens
    for column in range(columns):
        x = v + _column(V, start + column * 16, stride)
        for f in range(head_size):
            _store_tokens(packed + (f * columns + column) * size, _rounded_row(x + f * row, scale, inverse, zero), zero)
    if _BYTES:
        used = (keys + 3) // 4 * 4
        for f in range(head_size):
            total = 0
            if p_zero != 0:
                for j in range(used):
                    total += _weight_at(packed + f * columns * size + j * (size // 16))
            _i32_to(sums + f * 4, -p_zero * (total + used * (128 - zero)))


@jit
def _pack_queries(V, W, q, stride, start, head_size, table, packed, sums):
    """Queries as activations, and what each adds to its products."""
    row = row_bytes(V)
    scale, inverse = f32_at(table + Q_SCALE), f32_at(table + Q_INVERSE)
    zero, k_zero = i32_at(table + Q_ZERO), i32_at(table + K_ZERO)
    last = head_size - 1
    for column in range(lanes_of(W) // 16):
        x = q + _column(V, start + column * 16, stride)
        to = packed + column * _LINE
        total = splat_i32(_COLUMN, 0)
        for f in range(0, head_size, 4):
            store_four(
                to,
                row_bytes(W),
                _rounded_row(x + f * row, scale, inverse, zero),
                _rounded_row(x + min(f + 1, last) * row, scale, inverse, zero),
                _rounded_row(x + min(f + 2, last) * row, scale, inverse, zero),
                _rounded_row(x + min(f + 3, last) * row, scale, inverse, zero),
                zero,
            )
            if _BYTES:
                total = dot(total, to, table + ONES + min(4, head_size - f) * 4)
            to += block_bytes(W)
        total = _mul_i32(total, splat_i32(_COLUMN, 128 - k_zero))
        store(sums + column * _LINE, total)


@jit
def _scores(W, queries, query_sums, keys, key_count, corrections, head_size, scores):
    """The products of queries and keys as float32 [key][query], and the greatest of each query."""
    row = row_bytes(W)
    top = splat(W, -np.inf)
    base = load_i32(W, query_sums)
    blocks = (head_size + 3) // 4
    for j in range(0, key_count, 4):
        w = keys + (j // 16 * blocks * 16 + j % 16) * _WEIGHT_BYTES
        x = queries
        bias = corrections + j * 4
        sum0 = add_i32(base, splat_i32(W, i32_at(bias)))
        sum1 = add_i32(base, splat_i32(W, i32_at(bias + 4)))
        sum2 = add_i32(base, splat_i32(W, i32_at(bias + 8)))
        sum3 = add_i32(base, splat_i32(W, i32_at(bias + 12)))
        for _ in range(blocks):
            sum0 = dot(sum0, x, w)
            sum1 = dot(sum1, x, w + _WEIGHT_BYTES)
            sum2 = dot(sum2, x, w + 2 * _WEIGHT_BYTES)
            sum3 = dot(sum3, x, w + 3 * _WEIGHT_BYTES)
            x += block_bytes(W)
            w += 16 * _WEIGHT_BYTES
        out = scores + j * row
        score = to_f32(sum0)
        top = maximum(top, score)
        store(out, score)
        score = to_f32(sum1)
        store(out + row, score)
        if j + 1 < key_count:
            top = maximum(top, score)
        score = to_f32(sum2)
        store(out + 2 * row, score)
        if j + 2 < key_count:
            top = maximum(top, score)
        score = to_f32(sum3)
        store(out + 3 * row, score)
        if j + 3 < key_count:
            top = maximum(top, score)
    return top


@jit
def _probabilities(W, scores, top, keys, mask, table, out):
    """Softmax of scores and mask over the keys, `rounded`, as activations; the sum of each query's integers."""
    row = row_bytes(W)
    scale = splat(W, f32_at(table + SCORE))
    zero = i32_at(table + P_ZERO)
    if mask != 0:
        top = splat(W, -np.inf)
        for j in range(keys):
            score = fma(load(W, scores + j * row), scale, splat(W, f32_at(mask + j * 4)))
            store(scores + j * row, score)
            top = maximum(top, score)
        scale = splat(W, 1.0)
    least = mul(top, scale)
    total = splat(W, 0.0)
    for j in range(keys):
        e = exp(sub(mul(load(W, scores + j * row), scale), least))
        total = add(total, e)
        store(scores + j * row, e)
    for j in range(keys, (keys + 3) // 4 * 4):
        store(scores + j * row, splat(W, 0.0))
    share = div(splat(W, 1.0), total)
    inverse = f32_at(table + P_INVERSE)
    sums = splat_i32(W, 0)
    for j in range(0, keys, 4):
        e = scores + j * row
        store_four(
            out,
            row,
            rounded(mul(load(W, e), share), inverse, zero),
            rounded(mul(load(W, e + row), share), inverse, zero),
            rounded(mul(load(W, e + 2 * row), share), inverse, zero),
            rounded(mul(load(W, e + 3 * row), share), inverse, zero),
            zero,
        )
        if _BYTES:
            sums = dot(sums, out, table + ONES + 16)
        out += block_bytes(W)
    return sums


@jit
def _context(W, probabilities, sums, keys, values, value_sums, columns, head_size, table, row, first, second):
    """The products of probabilities and values, as float32, to a column of tokens or two."""
    unit = splat(W, f32_at(table + CONTEXT))
    size = 4 * _WEIGHT_BYTES * columns
    base = splat_i32(W, 0)
    if _BYTES:
        base = _mul_i32(sums, splat_i32(W, 128 - i32_at(table + V_ZERO)))
    for f in range(0, head_size, 4):
        w = values + f * size
        x = probabilities
        if _BYTES:
            bias = value_sums + f * 4
            sum0 = add_i32(base, splat_i32(W, i32_at(bias)))
            sum1 = add_i32(base, splat_i32(W, i32_at(bias + 4)))
            sum2 = add_i32(base, splat_i32(W, i32_at(bias + 8)))
            sum3 = add_i32(base, splat_i32(W, i32_at(bias + 12)))
        else:
            sum0 = base
            sum1 = base
            sum2 = base
            sum3 = base
        for _ in range((keys + 3) // 4):
            sum0 = dot(sum0, x, w)
            sum1 = dot(sum1, x, w + size)
            sum2 = dot(sum2, x, w + 2 * size)
            sum3 = dot(sum3, x, w + 3 * size)
            x += block_bytes(W)
            w += _WEIGHT_BYTES
        to, other = first + f * row, second + f * row
        _store_columns(to, other, mul(to_f32(sum0), unit))
        if f + 1 < head_size:
            _store_columns(to + row, other + row, mul(to_f32(sum1), unit))
        if f + 2 < head_size:
            _store_columns(to + 2 * row, other + 2 * row, mul(to_f32(sum2), unit))
        if f + 3 < head_size:
            _store_columns(to + 3 * row, other + 3 * row, mul(to_f32(sum3), unit))


@jit
def _attend(V, W, q, stride, start, at, keys, head_size, mask, table, packed, scratch, context, context_stride):
    """The context of as many queries as W has lanes."""
    packed_keys, corrections, packed_values, value_sums = packed
    columns = (keys + 15) // 16
    query_sums = scratch + (head_size + 3) // 4 * block_bytes(W)
    scores = query_sums + row_bytes(W)
    probabilities = scores + columns * 16 * row_bytes(W)
    _pack_queries(V, W, q, stride, start + at, head_size, table, scratch, query_sums)
    top = _scores(W, scratch, query_sums, packed_keys, keys, corrections, head_size, scores)
    sums = _probabilities(W, scores, top, keys, mask, table, probabilities)
    first = context + _column(V, start + at, context_stride)
    second = context + _column(V, start + at + lanes_of(W) - 16, context_stride)
    _context(
        W, probabilities, sums, keys, packed_values, value_sums, columns, head_size, table, row_bytes(V), first, second
    )


@jit
def attention8(
    V, q, k, v, stride, start, keys, first, last, head_size, mask, table, scratch, context, context_stride
):  # fmt: skip
    """The context of some queries of one head of one sequence.

    Args:
        V: tiles have that many tokens.
        q, k, v: addresses of the head's int32 rows in the first tile; `stride` bytes to the next tile.
        start: the place of the sequence's first token, a multiple of 16.
        keys: how many of the sequence's tokens are attended to, from the first one on.
        first, last: which queries, counted from the sequence's first; multiples of 16.
        mask: address of what is added to the scores of the keys, float32; or 0.
        table: address of an `attention_table`.
        scratch: address of `scratch_bytes(keys, head_size)`, aligned to 64.
        context: address of the head's float32 rows in the first tile; `context_stride` bytes to the next tile.
    """
    columns = (keys + 15) // 16
    features = (head_size + 3) // 4 * 4
    item = _WEIGHT_BYTES // 4
    packed_keys = scratch
    corrections = packed_keys + columns * 16 * features * item
    packed_values = corrections + columns * _LINE
    value_sums = packed_values + columns * 16 * features * item
    packed_queries = value_sums + (features * 4 + _LINE - 1) // _LINE * _LINE
    _pack_keys(V, k, stride, start, columns, head_size, table, packed_keys, corrections)
    _pack_values(V, v, stride, start, columns, keys, head_size, table, packed_values, value_sums)
    places = packed_keys, corrections, packed_values, value_sums
    at = first
    while at + lanes_of(_WIDE) <= last:
        _attend(
            V,
            _WIDE,
            q,
            stride,
            start,
            at,
            keys,
            head_size,
            mask,
            table,
            places,
            packed_queries,
            context,
            context_stride,
        )
        at += lanes_of(_WIDE)
    if at < last:
        _attend(
            V,
            _COLUMN,
            q,
            stride,
            start,
            at,
            keys,
            head_size,
            mask,
            table,
            places,
            packed_queries,
            context,
            context_stride,
        )
