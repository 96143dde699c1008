"""Float32 or int32 rows of a tile to the 8-bit activations that `linear8` reads."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from obert.sparse.dots import BYTES, block_bytes
from obert.sparse.functions import gelu
from obert.sparse.vectors import (
    F32,
    I32,
    Kind,
    Vector,
    constant,
    emit_call,
    emit_splat,
    emit_store,
    jit,
    load,
    load_i32,
    maximum,
    mul,
    row_bytes,
    splat,
    to_f32,
)

W = Kind(16)  # lanes at a time
_WIDTH = 64  # bytes of them
_MAGIC = 12582912.0  # adding it rounds to an integer, half to even, in the lowest bits
_MAGIC_BITS = 0x4B400000


@intrinsic
def rounded(typingctx, x, inverse, zero_point):
    """x * inverse to an integer, so that with the zero point it is in 0..255; as the lowest bits of a float.

    NaN becomes 0, with the zero point, as in ONNX Runtime.
    """
    vector = Vector("i32", x.lanes)

    def code(c, b, s, a):
        typ = a[0].type
        least = b.fsub(ir.Constant(F32, _MAGIC), b.sitofp(a[2], F32))
        low = emit_splat(b, least, x.lanes)
        high = emit_splat(b, b.fadd(least, ir.Constant(F32, 255.0)), x.lanes)
        y = emit_call(b, "llvm.fma", a[0], emit_splat(b, a[1], x.lanes), constant(typ, _MAGIC))
        y = b.select(b.fcmp_ordered(">", y, low), y, low)
        y = b.select(b.fcmp_ordered("<", y, high), y, high)
        return b.bitcast(y, vector.llvm)

    return vector(x, types.float32, types.int64), code


@intrinsic
def store_four(typingctx, address, stride, first, second, third, fourth, zero_point):
    """Four features of some tokens, `rounded`, where activations are uint8 [tokens][4].

    Without VNNI: int16 [tokens][2] of the first two, and `stride` bytes further on of the others.
    """

    def bytes_(b, a):
        typ = a[2].type
        offset = b.mul(b.sub(b.trunc(a[6], I32), I32(_MAGIC_BITS)), I32(0x01010101))
        total = b.add(a[2], emit_splat(b, offset, first.lanes))
        for n in range(1, 4):
            total = b.add(total, b.shl(a[2 + n], constant(typ, 8 * n)))
        emit_store(b, a[0], total)

    def words(b, a):
        typ = a[2].type
        for half in range(2):
            low = b.and_(a[2 + 2 * half], constant(typ, 0xFFFF))
            pair = b.or_(low, b.shl(a[3 + 2 * half], constant(typ, 16)))
            emit_store(b, b.add(a[0], b.mul(a[1], ir.Constant(a[1].type, half))), pair)

    def code(c, b, s, a):
        (bytes_ if BYTES else words)(b, a)
        return c.get_dummy_value()

    return types.void(types.int64, types.int64, first, first, first, first, types.int64), code


@jit
def quantize(V, x, features, inverse, zero_point, out):
    """float32 [features][T] at x, to round half to even of x * inverse, plus the zero point, within 0..255, at out."""
    row = row_bytes(V)
    for f in range(0, features, 4):
        p = x + f * row
        q = p + min(1, features - 1 - f) * row  # features beyond the last have weights 0
        r = p + min(2, features - 1 - f) * row
        s = p + min(3, features - 1 - f) * row
        o = out + f // 4 * block_bytes(V)
        for t in range(0, row, _WIDTH):
            store_four(
                o + t,
                row,
                rounded(load(W, p + t), inverse, zero_point),
                rounded(load(W, q + t), inverse, zero_point),
                rounded(load(W, r + t), inverse, zero_point),
                rounded(load(W, s + t), inverse, zero_point),
                zero_point,
            )


@jit
def _gelu_rounded(x, scale, inverse, zero_point):
    return rounded(gelu(mul(to_f32(load_i32(W, x)), splat(W, scale))), inverse, zero_point)


@jit
def gelu_quantize(V, x, features, scale, inverse, zero_point, out):
    """The same of gelu(scale * x), where x is int32 [features][T]."""
    row = row_bytes(V)
    for f in range(0, features, 4):
        p = x + f * row
        q = p + min(1, features - 1 - f) * row
        r = p + min(2, features - 1 - f) * row
        s = p + min(3, features - 1 - f) * row
        o = out + f // 4 * block_bytes(V)
        for t in range(0, row, _WIDTH):
            store_four(
                o + t,
                row,
                _gelu_rounded(p + t, scale, inverse, zero_point),
                _gelu_rounded(q + t, scale, inverse, zero_point),
                _gelu_rounded(r + t, scale, inverse, zero_point),
                _gelu_rounded(s + t, scale, inverse, zero_point),
                zero_point,
            )


@jit
def _relu_rounded(x, scale, inverse, zero_point):
    y = mul(to_f32(load_i32(W, x)), splat(W, scale))
    return rounded(maximum(y, splat(W, 0.0)), inverse, zero_point)


@jit
def relu_quantize(V, x, features, scale, inverse, zero_point, out):
    """The same of max(0, scale * x), where x is int32 [features][T]."""
    row = row_bytes(V)
    for f in range(0, features, 4):
        p = x + f * row
        q = p + min(1, features - 1 - f) * row
        r = p + min(2, features - 1 - f) * row
        s = p + min(3, features - 1 - f) * row
        o = out + f // 4 * block_bytes(V)
        for t in range(0, row, _WIDTH):
            store_four(
                o + t,
                row,
                _relu_rounded(p + t, scale, inverse, zero_point),
                _relu_rounded(q + t, scale, inverse, zero_point),
                _relu_rounded(r + t, scale, inverse, zero_point),
                _relu_rounded(s + t, scale, inverse, zero_point),
                zero_point,
            )
