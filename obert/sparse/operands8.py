"""Operands of attention's products in 8 bits: rounded, and packed as `dot` reads them.

Queries and probabilities are its activations, keys and values its weights. Where activations are uint8 (VNNI) they keep
their zero points and weights are less 128, so a product is corrected by the sums of both operands; without VNNI both are
int16, less their zero points.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from obert.sparse.dots import BYTES, DOT, REGISTER, WEIGHT, block_bytes, dot
from obert.sparse.vectors import (
    F32,
    I8,
    I16,
    I32,
    I64,
    Kind,
    add_i32,
    constant,
    emit_load,
    emit_splat,
    emit_store,
    f32_at,
    i32_at,
    jit,
    lanes_of,
    load_i32,
    mul,
    row_bytes,
    splat,
    splat_i32,
    store,
    to_f32,
)

COLUMN = Kind(16)  # a sequence begins at a multiple of that many tokens
WIDE = Kind(32 if DOT == "vnni512" else 16)  # tokens of a packed block: two registers
WEIGHT_BYTES = 4 * np.dtype(WEIGHT).itemsize  # of four weights


_BYTES, _LINE = BYTES, 64  # bytes of a column of float32
_MAGIC = 12582912.0  # adding it rounds to an integer, half to even, in the lowest bits
_LARGEST = 32767.0  # so that an integer has 16 bits


def _less_zero_point(builder: ir.IRBuilder, x: ir.Value, zero: ir.Value) -> ir.Value:
    """x, rounded, clamped to what 8 bits hold, less the zero point; in the lowest 16 bits of each lane."""
    low = builder.fsub(ir.Constant(F32, 0.0), builder.sitofp(zero, F32))
    high = emit_splat(builder, builder.fadd(low, ir.Constant(F32, 255.0)), x.type.count)
    low = emit_splat(builder, low, x.type.count)
    x = builder.select(builder.fcmp_ordered(">", x, low), x, low)
    x = builder.select(builder.fcmp_ordered("<", x, high), x, high)
    return builder.bitcast(builder.fadd(x, constant(x.type, _MAGIC)), ir.VectorType(I32, x.type.count))


def _call(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Value) -> ir.Value:
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(get_or_insert_function(builder.module, signature, name), arguments)


def _piece(builder: ir.IRBuilder, vector: ir.Value, first: int, count: int) -> ir.Value:
    indices = ir.Constant(ir.VectorType(I32, count), list(range(first, first + count)))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), indices)


def _octets(builder: ir.IRBuilder, floats: list[ir.Value], zero: ir.Value) -> list[ir.Value]:
    """Four vectors rounded to uint8, with the zero point: for each register, [4 tokens' group][vector][4 tokens]."""
    wide = REGISTER == 16
    integers, words = ir.VectorType(I32, REGISTER), ir.VectorType(I16, 2 * REGISTER)
    octets = ir.VectorType(I8, 4 * REGISTER)
    zeros = emit_splat(builder, builder.trunc(zero, I16), 2 * REGISTER)
    found = []
    for first in range(0, floats[0].type.count, REGISTER):
        values = []
        for x in floats:
            x = _piece(builder, x, first, REGISTER)
            x = builder.select(builder.fcmp_ordered("<", x, constant(x.type, _LARGEST)), x, constant(x.type, _LARGEST))
            if wide:
                unused = ir.Constant(integers, ir.Undefined), ir.Constant(I16, -1), I32(4)
                values.append(_call(builder, "llvm.x86.avx512.mask.cvtps2dq.512", integers, x, *unused))
            else:
                values.append(_call(builder, "llvm.x86.avx.cvt.ps2dq.256", integers, x))
        name = "llvm.x86.avx512.packssdw.512" if wide else "llvm.x86.avx2.packssdw"
        pairs = [_call(builder, name, words, *values[i : i + 2]) for i in (0, 2)]
        pairs = [_call(builder, f"llvm.sadd.sat.v{2 * REGISTER}i16", words, pair, zeros) for pair in pairs]
        name = "llvm.x86.avx512.packuswb.512" if wide else "llvm.x86.avx2.packuswb"
        found.append(_call(builder, name, octets, *pairs))
    return found


def _emit_activations(builder: ir.IRBuilder, address: ir.Value, stride: ir.Value, floats: list, zero: ir.Value) -> None:
    if BYTES:
        for n, octets in enumerate(_octets(builder, floats, zero)):
            order = [b // 16 * 16 + b % 4 * 4 + b // 4 % 4 for b in range(octets.type.count)]
            turned = builder.shuffle_vector(octets, octets, ir.Constant(ir.VectorType(I32, len(order)), order))
            emit_store(builder, builder.add(address, I64(n * REGISTER * 4)), turned)
        return
    values = [_less_zero_point(builder, x, zero) for x in floats]
    for half in range(2):
        low = builder.and_(values[2 * half], constant(values[0].type, 0xFFFF))
        pair = builder.or_(low, builder.shl(values[2 * half + 1], constant(values[0].type, 16)))
        emit_store(builder, builder.add(address, builder.mul(stride, I64(half))), pair)


def _emit_values(builder: ir.IRBuilder, address: ir.Value, stride: ir.Value, floats: list, zero: ir.Value) -> None:
    if BYTES:
        for n, octets in enumerate(_octets(builder, floats, zero)):
            less = builder.xor(octets, ir.Constant(octets.type, [-128] * octets.type.count))
            emit_store(builder, builder.add(address, I64(n * REGISTER * 4)), less)
        return
    lanes = floats[0].type.count
    words = ir.VectorType(I16, lanes)
    values = [builder.trunc(_less_zero_point(builder, x, zero), words) for x in floats]
    joined = ir.Constant(ir.VectorType(I32, 2 * lanes), list(range(2 * lanes)))
    pairs = [builder.shuffle_vector(values[i], values[i + 1], joined) for i in (0, 2)]
    order = [n // 4 % 4 * lanes + n // 16 * 4 + n % 4 for n in range(4 * lanes)]
    emit_store(builder, address, builder.shuffle_vector(*pairs, ir.Constant(ir.VectorType(I32, 4 * lanes), order)))


def _storing(emit: Callable) -> Callable:
    """An intrinsic that rounds four vectors of as many features (or keys) of some tokens, and stores them."""

    @intrinsic
    def store_four(typingctx, address, stride, first, second, third, fourth, zero_point):
        def code(c, b, s, a):
            emit(b, a[0], a[1], list(a[2:6]), b.trunc(a[6], I32))
            return c.get_dummy_value()

        return types.void(types.int64, types.int64, first, first, first, first, types.int64), code

    return store_four


store_activations = _storing(_emit_activations)  # [tokens][4], or [2][tokens][2] at a stride
_store_values = _storing(_emit_values)  # [tokens / 4][4 features][4 tokens]; the stride is not used


@intrinsic
def _to_weights(typingctx, address, used):
    """Four features of 16 tokens from activations to weights, [tokens][4], in place; 0 beyond those that are `used`."""

    def code(c, b, s, a):
        bits = b.mul(b.sub(I64(4), a[1]), I64(2 * WEIGHT_BYTES))
        kept = b.lshr(I64(-1) if WEIGHT_BYTES == 8 else I64(0xFFFFFFFF), bits)
        vector = ir.VectorType(I32, 16)
        if BYTES:
            less = b.xor(emit_load(b, a[0], vector), constant(vector, -0x7F7F7F80))
            emit_store(b, a[0], b.and_(less, emit_splat(b, b.trunc(kept, I32), 16)))
            return c.get_dummy_value()
        pairs = [
            b.and_(
                emit_load(b, b.add(a[0], I64(64 * half)), vector),
                emit_splat(b, b.trunc(b.lshr(kept, I64(32 * half)), I32), 16),
            )
            for half in range(2)
        ]
        order = ir.Constant(ir.VectorType(I32, 32), [n // 2 + n % 2 * 16 for n in range(32)])
        emit_store(b, a[0], b.shuffle_vector(*pairs, order))
        return c.get_dummy_value()

    return types.void(types.int64, types.int64), code


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
def _row(x, scale, inverse):
    return mul(mul(to_f32(load_i32(COLUMN, x)), splat(COLUMN, scale)), splat(COLUMN, inverse))


@jit
def column_at(V, token, stride):
    """Where a token's column begins, from the first tile on."""
    return token // lanes_of(V) * stride + token % lanes_of(V) * 4


@jit
def packed_column(column, head_size):
    """Where a column of packed queries or keys begins."""
    wide = lanes_of(WIDE) // 16
    return column // wide * ((head_size + 3) // 4) * block_bytes(WIDE) + column % wide * _LINE


@jit
def pack(V, x, stride, start, columns, head_size, scales, zero, packed):
    """Queries or keys as activations, [token / WIDE][feature / 4][WIDE tokens][4].

    Args:
        x: address of the head's int32 rows in the first tile.
        start: the first token, a multiple of 16; `columns` of 16 are packed.
        scales: address of the scale of x and of 1 / scale of the rounded.
    """
    row = row_bytes(V)
    scale, inverse = f32_at(scales), f32_at(scales + 4)
    last = head_size - 1
    column = 0
    while column < columns:
        token = start + column * 16
        count = min(columns - column, (lanes_of(V) - token % lanes_of(V)) // 16)  # in the same tile
        at = x + column_at(V, token, stride)
        for f in range(0, head_size, 4):
            p = at + f * row
            q = at + min(f + 1, last) * row
            r = at + min(f + 2, last) * row
            s = at + min(f + 3, last) * row
            for n in range(count):
                t = n * _LINE
                store_activations(
                    packed + packed_column(column + n, head_size) + f // 4 * block_bytes(WIDE),
                    row_bytes(WIDE),
                    _row(p + t, scale, inverse),
                    _row(q + t, scale, inverse),
                    _row(r + t, scale, inverse),
                    _row(s + t, scale, inverse),
                    zero,
                )
        column += count


@jit
def sum_queries(packed, columns, head_size, ones, factor, sums):
    """What each query adds to its products: its integers' sum times a factor."""
    for column in range(columns):
        at = packed + packed_column(column, head_size)
        total = splat_i32(COLUMN, 0)
        for f in range(0, head_size, 4):
            total = dot(total, at, ones + min(4, head_size - f) * 4)
            at += block_bytes(WIDE)
        store(sums + column * _LINE, mul_i32(total, splat_i32(COLUMN, factor)))


@jit
def keys_to_weights(packed, columns, head_size, ones, zero, factor, sums):
    """Packed keys as weights, and what each adds to its products: its sum less zero points, times a factor."""
    for column in range(columns):
        at = packed + packed_column(column, head_size)
        total = splat_i32(COLUMN, -zero * head_size)
        for f in range(0, head_size, 4):
            used = min(4, head_size - f)
            if _BYTES:
                total = dot(total, at, ones + used * 4)
            _to_weights(at, used)
            at += block_bytes(WIDE)
        if _BYTES:
            store(sums + column * _LINE, mul_i32(total, splat_i32(COLUMN, factor)))


@jit
def pack_values(V, x, stride, start, columns, head_size, scales, zero, packed):
    """Values as weights, [feature / 4][token / 4][4 features][4 tokens]. Arguments as for `pack`."""
    row = row_bytes(V)
    scale, inverse = f32_at(scales), f32_at(scales + 4)
    last = head_size - 1
    column = 0
    while column < columns:
        token = start + column * 16
        count = min(columns - column, (lanes_of(V) - token % lanes_of(V)) // 16)
        at = x + column_at(V, token, stride)
        for f in range(0, head_size, 4):
            p = at + f * row
            q = at + min(f + 1, last) * row
            r = at + min(f + 2, last) * row
            s = at + min(f + 3, last) * row
            for n in range(count):
                t = n * _LINE
                _store_values(
                    packed + (f // 4 * columns + column + n) * 16 * WEIGHT_BYTES,
                    0,
                    _row(p + t, scale, inverse),
                    _row(q + t, scale, inverse),
                    _row(r + t, scale, inverse),
                    _row(s + t, scale, inverse),
                    zero,
                )
        column += count


@jit
def sum_values(packed, columns, used, head_size, zero, factor, sums):
    """What each feature of values adds to its products: the sum of its `used` tokens less zero points, times a factor."""
    for f in range(head_size):
        total = used * (128 - zero)
        at = packed + (f // 4 * columns * 16 + f % 4) * WEIGHT_BYTES
        if factor != 0:
            for token in range(used):
                total += _weight_at(at + token // 4 * 4 * WEIGHT_BYTES + token % 4 * (WEIGHT_BYTES // 4))
        _i32_to(sums + f * 4, total * factor)
