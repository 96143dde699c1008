"""Operands of attention's products in 8 bits, packed for one head as `dot` reads them.

Queries and probabilities are its activations, keys and values its weights. Where activations are uint8 (VNNI) they keep
their zero points and weights are less 128, so a product is corrected by the sums of both operands; without VNNI both
are int16, less their zero points.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from obert.sparse.kernels.dots import BYTES, DOT, WEIGHT, block_bytes, dot
from obert.sparse.kernels.vectors import (
    I8,
    I16,
    I32,
    I64,
    Kind,
    emit_load,
    emit_splat,
    emit_store,
    jit,
    lanes_of,
    load_i32,
    row_bytes,
    splat_i32,
    store,
)

COLUMN = Kind(16)  # a sequence begins at a multiple of that many tokens
WIDE = Kind(32 if DOT == "vnni512" else 16)  # tokens of a packed block: two registers
WEIGHT_BYTES = 4 * np.dtype(WEIGHT).itemsize  # of four weights

_BYTES, _LINE = BYTES, 64  # bytes of a column's words of 32 bits
_BITS = 8 * np.dtype(WEIGHT).itemsize
_PER_WORD = 32 // _BITS  # features of a token that lie in 32 bits
_WORDS = 4 // _PER_WORD


@intrinsic
def _shifted(typingctx, first, second, features):
    """The words that begin so many features later than those of `first`; `second` are the next ones."""

    def code(c, b, s, a):
        bits = b.mul(b.trunc(a[2], I32), I32(_BITS))
        low = b.lshr(a[0], emit_splat(b, bits, 16))
        return b.or_(low, b.shl(a[1], emit_splat(b, b.sub(I32(32), bits), 16)))

    return first(first, first, types.int64), code


@intrinsic
def _first_of(typingctx, words, features):
    """Words with zeros in place of all but their first features, of which there is at least one."""

    def code(c, b, s, a):
        bits = b.mul(b.trunc(b.sub(I64(_PER_WORD), a[1]), I32), I32(_BITS))
        return b.and_(a[0], emit_splat(b, b.lshr(I32(-1), bits), 16))

    return words(words, types.int64), code


@jit
def _words(V, x, feature, left):
    """16 tokens of the features that lie in one word, from any feature on, with zeros where none are `left`."""
    if left <= 0:
        return splat_i32(COLUMN, 0)
    at = x + feature // _PER_WORD * row_bytes(V)
    skipped = feature % _PER_WORD
    words = load_i32(COLUMN, at)
    if skipped:
        following = words
        if skipped + left > _PER_WORD:
            following = load_i32(COLUMN, at + row_bytes(V))
        words = _shifted(words, following, skipped)
    if left < _PER_WORD:
        words = _first_of(words, left)
    return words


@intrinsic
def _store_keys(typingctx, address, first, second):
    """Four features of 16 keys as weights, [keys][4]. Without VNNI the second two are words of their own."""

    def code(c, b, s, a):
        if BYTES:
            emit_store(b, a[0], b.xor(a[1], ir.Constant(a[1].type, [-0x7F7F7F80] * 16)))
        else:
            order = ir.Constant(ir.VectorType(I32, 32), [n // 2 + n % 2 * 16 for n in range(32)])
            emit_store(b, a[0], b.shuffle_vector(a[1], a[2], order))
        return c.get_dummy_value()

    return types.void(types.int64, first, first), code


@intrinsic
def _store_values(typingctx, address, first, second):
    """Four features of 16 tokens as weights, [tokens / 4][4 features][4 tokens]."""
    places = [(16 * (n // 16) + n % 4 * 4 + n // 4 % 4) for n in range(64)]  # of what comes [16 tokens][4 features]

    def code(c, b, s, a):
        if BYTES:
            octets = b.bitcast(a[1], ir.VectorType(I8, 64))
            turned = b.shuffle_vector(octets, octets, ir.Constant(ir.VectorType(I32, 64), places))
            emit_store(b, a[0], b.xor(turned, ir.Constant(octets.type, [-128] * 64)))
        else:
            words = [b.bitcast(word, ir.VectorType(I16, 32)) for word in a[1:3]]
            order = [n % 4 // 2 * 32 + n // 4 * 2 + n % 2 for n in places]
            emit_store(b, a[0], b.shuffle_vector(*words, ir.Constant(ir.VectorType(I32, 64), order)))
        return c.get_dummy_value()

    return types.void(types.int64, first, first), code


@intrinsic
def mul_i32(typingctx, x, y):
    """x * y in each lane."""
    return x(x, x), lambda c, b, s, a: b.mul(a[0], a[1])


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
def column_at(V, token, stride):
    """Where a token's column of 32-bit words begins, from the first tile on."""
    return token // lanes_of(V) * stride + token % lanes_of(V) * 4


@jit
def packed_column(column, head_size):
    """Where a column of packed queries or keys begins."""
    wide = lanes_of(WIDE) // 16
    return column // wide * ((head_size + 3) // 4) * block_bytes(WIDE) + column % wide * _LINE


@jit
def pack_queries(V, x, stride, start, columns, feature, head_size, ones, factor, packed, sums):
    """Queries as activations, [token / WIDE][feature / 4][WIDE tokens][4], and what each adds to its products.

    Args:
        x: address of the 8-bit activations in the first tile.
        start: the first token, a multiple of 16; `columns` of 16 are packed.
        feature: the head's first.
        ones: address of four weights of 1.
        factor: of the sum of a query's integers.
    """
    for column in range(columns):
        at = x + column_at(V, start + column * 16, stride)
        to = packed + packed_column(column, head_size)
        total = splat_i32(COLUMN, 0)
        for f in range(0, head_size, 4):
            left = head_size - f
            store(to, _words(V, at, feature + f, left))
            if _BYTES:
                total = dot(total, to, ones)
            else:
                store(to + _LINE, _words(V, at, feature + f + 2, left - 2))
            to += block_bytes(WIDE)
        if _BYTES:
            store(sums + column * _LINE, mul_i32(total, splat_i32(COLUMN, factor)))


@jit
def pack_keys(V, x, stride, start, columns, feature, head_size, ones, zero, factor, packed, sums):
    """Keys as weights, [token / WIDE][feature / 4][WIDE tokens][4], and what each adds to its products.

    Args:
        zero: zero point of the keys.
        factor: of the sum of a key's integers less their zero points.
    """
    for column in range(columns):
        at = x + column_at(V, start + column * 16, stride)
        to = packed + packed_column(column, head_size)
        total = splat_i32(COLUMN, -zero * head_size)
        for f in range(0, head_size, 4):
            left = head_size - f
            words = _words(V, at, feature + f, left)
            if _BYTES:
                store(to, words)
                total = dot(total, to, ones)
                _store_keys(to, words, words)
            else:
                _store_keys(to, words, _words(V, at, feature + f + 2, left - 2))
            to += block_bytes(WIDE)
        if _BYTES:
            store(sums + column * _LINE, mul_i32(total, splat_i32(COLUMN, factor)))


@jit
def pack_values(V, x, stride, start, columns, feature, head_size, packed):
    """Values as weights, [feature / 4][token / 4][4 features][4 tokens]."""
    for column in range(columns):
        at = x + column_at(V, start + column * 16, stride)
        to = packed + column * 16 * WEIGHT_BYTES
        for f in range(0, head_size, 4):
            left = head_size - f
            words = _words(V, at, feature + f, left)
            if _BYTES:
                _store_values(to, words, words)
            else:
                _store_values(to, words, _words(V, at, feature + f + 2, left - 2))
            to += columns * 16 * WEIGHT_BYTES


@jit
def sum_values(packed, columns, used, head_size, zero, factor, sums):
    """What each feature adds to its products: the sum of its `used` values less zero points, times a factor."""
    for f in range(head_size):
        total = used * (128 - zero)
        at = packed + (f // 4 * columns * 16 + f % 4) * WEIGHT_BYTES
        if factor != 0:
            for token in range(used):
                total += _weight_at(at + token // 4 * 4 * WEIGHT_BYTES + token % 4 * (WEIGHT_BYTES // 4))
        _i32_to(sums + f * 4, total * factor)
