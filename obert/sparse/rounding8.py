"""Rounding to 8 bits, and the layout that `dot` reads activations in."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from obert.sparse.dots import BYTES, REGISTER
from obert.sparse.vectors import F32, I8, I16, I32, I64, constant, emit_splat, emit_store

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


@intrinsic
def store_rounded(typingctx, address, stride, first, second, third, fourth, zero_point):
    """Four features of some tokens, rounded half to even, plus the zero point, within 0..255, to uint8 [tokens][4].

    Without VNNI: less the zero point, as int16 [tokens][2] of two features, `stride` bytes further on of the others.
    """

    def code(c, b, s, a):
        _emit_activations(b, a[0], a[1], list(a[2:6]), b.trunc(a[6], I32))
        return c.get_dummy_value()

    return types.void(types.int64, types.int64, first, first, first, first, types.int64), code
