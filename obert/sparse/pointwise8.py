"""Float32 or int32 rows of a tile to the 8-bit activations that `linear8` reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from obert.sparse.dots import BYTES, DOT, REGISTER, block_bytes
from obert.sparse.gelu8 import emit_near_gelu
from obert.sparse.vectors import (
    F32,
    I8,
    I16,
    I32,
    I64,
    constant,
    emit_call,
    emit_load,
    emit_splat,
    emit_store,
    jit,
    row_bytes,
)

_STEP = REGISTER * 4  # bytes of a row at a time
_HUGE = 1e9  # beyond every 8-bit integer, and still an int32
_FLOATS, _INTEGERS = ir.VectorType(F32, REGISTER), ir.VectorType(I32, REGISTER)
_WORDS, _OCTETS = ir.VectorType(I16, 2 * REGISTER), ir.VectorType(I8, 4 * REGISTER)
_X86 = {  # instructions of a register's width: round half to even, and pack with saturation
    16: ("avx512.mask.cvtps2dq.512", "avx512.packssdw.512", "avx512.packuswb.512"),
    8: ("avx.cvt.ps2dq.256", "avx2.packssdw", "avx2.packuswb"),
}


def _x86(b: ir.IRBuilder, which: int, result: ir.Type, *arguments: ir.Value) -> ir.Value:
    signature = ir.FunctionType(result, [argument.type for argument in arguments])
    name = f"llvm.x86.{_X86[REGISTER][which]}"
    return b.call(get_or_insert_function(b.module, signature, name), arguments)


def _integers(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """The nearest integers, half to even; the lowest one of NaN, as x86 converts it."""
    high = constant(_FLOATS, _HUGE)
    x = b.select(b.fcmp_ordered(">", x, high), high, x)
    if DOT == "plain":
        low = constant(_FLOATS, -_HUGE)
        x = b.select(b.fcmp_ordered(">", x, low), x, low)
        return b.fptosi(emit_call(b, "llvm.roundeven", x), _INTEGERS)
    if REGISTER == 16:  # no lane is masked; rounded as the processor is set
        return _x86(b, 0, _INTEGERS, x, constant(_INTEGERS, 0), ir.Constant(I16, 0xFFFF), I32(4))
    return _x86(b, 0, _INTEGERS, x)


def _shuffled(b: ir.IRBuilder, vector: ir.Value, other: ir.Value, indices: list[int]) -> ir.Value:
    return b.shuffle_vector(vector, other, ir.Constant(ir.VectorType(I32, len(indices)), indices))


def _words(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    """int32 of both as int16 with saturation: four of x, four of y, and so on."""
    if DOT != "plain":
        return _x86(b, 1, _WORDS, x, y)
    parts = []
    for v in (x, y):
        for name, bound in (("<", 32767), (">", -32768)):
            v = b.select(b.icmp_signed(name, v, constant(_INTEGERS, bound)), v, constant(_INTEGERS, bound))
        parts.append(b.trunc(v, ir.VectorType(I16, REGISTER)))
    return _shuffled(b, *parts, list(range(2 * REGISTER)))


def _emit_packed(b: ir.IRBuilder, address: ir.Value, lanes: int, values: list[ir.Value], zero_point: ir.Value) -> None:
    """Put four features of REGISTER tokens at an address of a block of a tile, rounded, within 0..255."""
    rows = [_integers(b, value) for value in values]
    pairs = [_words(b, *rows[:2]), _words(b, *rows[2:])]
    if BYTES:
        zero_points = emit_splat(b, b.trunc(zero_point, I16), 2 * REGISTER)
        shifted = [_saturated_sum(b, pair, zero_points) for pair in pairs]
        octets = _x86(b, 2, _OCTETS, *shifted)
        order = [16 * (n // 16) + 4 * (n % 4) + n // 4 % 4 for n in range(4 * REGISTER)]
        emit_store(b, address, b.bitcast(_shuffled(b, octets, octets, order), _INTEGERS))
        return
    low = emit_splat(b, b.trunc(b.neg(zero_point), I16), 2 * REGISTER)
    high = emit_splat(b, b.trunc(b.sub(I64(255), zero_point), I16), 2 * REGISTER)
    for n, pair in enumerate(pairs):
        pair = b.select(b.icmp_signed(">", pair, low), pair, low)
        pair = b.select(b.icmp_signed("<", pair, high), pair, high)
        order = [8 * (n // 8) + 4 * (n % 2) + n // 2 % 4 for n in range(2 * REGISTER)]
        place = b.add(address, I64(n * lanes * 4))
        emit_store(b, place, b.bitcast(_shuffled(b, pair, pair, order), _INTEGERS))


def _saturated_sum(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    signature = ir.FunctionType(x.type, [x.type, x.type])
    return b.call(get_or_insert_function(b.module, signature, f"llvm.sadd.sat.v{x.type.count}i16"), [x, y])


def _packing(row_type: ir.Type, compute: Callable) -> Any:
    """An intrinsic that computes four rows of a register's tokens and packs them.

    Args:
        compute: (builder, row, scale, inverse): what is rounded.
    """

    @intrinsic
    def pack(typingctx, kind, first, second, third, fourth, scale, inverse, zero_point, address):
        def code(c, b, s, a):
            scale, inverse = (emit_splat(b, number, REGISTER) for number in a[5:7])
            values = [compute(b, emit_load(b, row, row_type), scale, inverse) for row in a[1:5]]
            _emit_packed(b, a[8], kind.lanes, values, a[7])
            return c.get_dummy_value()

        i64, f32 = types.int64, types.float32
        return types.void(kind, i64, i64, i64, i64, f32, f32, i64, i64), code

    @jit
    def pack_rows(V, x, features, scale, inverse, zero_point, out):
        row = row_bytes(V)
        for f in range(0, features, 4):
            p = x + f * row
            q = p + min(1, features - 1 - f) * row  # features beyond the last have weights 0
            r = p + min(2, features - 1 - f) * row
            s = p + min(3, features - 1 - f) * row
            block = out + f // 4 * block_bytes(V)
            for t in range(0, row, _STEP):
                pack(V, p + t, q + t, r + t, s + t, scale, inverse, zero_point, block + t)

    return pack_rows


def _scaled(b: ir.IRBuilder, x: ir.Value, scale: ir.Value) -> ir.Value:
    return b.fmul(b.sitofp(x, _FLOATS), scale)


def _emit_relu(b: ir.IRBuilder, x: ir.Value) -> ir.Value:
    zero = constant(_FLOATS, 0)
    return b.select(b.fcmp_ordered(">", x, zero), x, zero)


_pack_floats = _packing(_FLOATS, lambda b, x, scale, inverse: b.fmul(x, inverse))
_pack_scaled = _packing(_INTEGERS, lambda b, x, scale, inverse: b.fmul(_scaled(b, x, scale), inverse))
_pack_gelu = _packing(_INTEGERS, lambda b, x, scale, inverse: b.fmul(emit_near_gelu(b, _scaled(b, x, scale)), inverse))
_pack_relu = _packing(_INTEGERS, lambda b, x, scale, inverse: b.fmul(_emit_relu(b, _scaled(b, x, scale)), inverse))


@jit
def quantize(V, x, features, inverse, zero_point, out):
    """Round half to even of x * inverse, plus the zero point, within 0..255; NaN becomes 0, as in ONNX Runtime.

    Args:
        x: address of float32 [features][T].
        inverse: float32, 1 / scale.
        out: address of [ceil(features / 4)] blocks, as `dots` has them: where there is VNNI, the uint8 integers; else
            int16, without the zero point.
    """
    _pack_floats(V, x, features, inverse, inverse, zero_point, out)


@jit
def scaled_quantize(V, x, features, scale, inverse, zero_point, out):
    """The same of scale * x, where x is int32 [features][T]."""
    _pack_scaled(V, x, features, scale, inverse, zero_point, out)


@jit
def gelu_quantize(V, x, features, scale, inverse, zero_point, out):
    """The same of gelu(scale * x), where x is int32 [features][T]."""
    _pack_gelu(V, x, features, scale, inverse, zero_point, out)


@jit
def relu_quantize(V, x, features, scale, inverse, zero_point, out):
    """The same of max(0, scale * x), where x is int32 [features][T]."""
    _pack_relu(V, x, features, scale, inverse, zero_point, out)
