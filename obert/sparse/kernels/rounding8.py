"""Rounding to 8 bits, and the layout that `dots` reads activations in."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from obert.sparse.kernels.dots import BYTES, DOT, REGISTER, pieces
from obert.sparse.kernels.vectors import F32, I8, I16, I32, I64, constant, emit_call, emit_splat, emit_store

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


def _saturated_sum(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    signature = ir.FunctionType(x.type, [x.type, x.type])
    return b.call(get_or_insert_function(b.module, signature, f"llvm.sadd.sat.v{x.type.count}i16"), [x, y])


def emit_activations(
    b: ir.IRBuilder, address: ir.Value, stride: ir.Value, values: list[ir.Value], zero_point: ir.Value
) -> None:
    """Four features of some tokens, rounded, to an address; see `store_rounded`."""
    for n, parts in enumerate(zip(*(pieces(b, value) for value in values), strict=True)):
        place = b.add(address, I64(n * REGISTER * 4))
        (_store_octets if BYTES else _store_words)(b, place, stride, [_integers(b, part) for part in parts], zero_point)


def _store_octets(b: ir.IRBuilder, address: ir.Value, stride: ir.Value, rows: list, zero_point: ir.Value) -> None:
    zero_points = emit_splat(b, b.trunc(zero_point, I16), 2 * REGISTER)
    pairs = [_saturated_sum(b, _words(b, *rows[n : n + 2]), zero_points) for n in (0, 2)]
    octets = _x86(b, 2, _OCTETS, *pairs)
    order = [16 * (n // 16) + 4 * (n % 4) + n // 4 % 4 for n in range(4 * REGISTER)]
    emit_store(b, address, b.bitcast(_shuffled(b, octets, octets, order), _INTEGERS))


def _store_words(b: ir.IRBuilder, address: ir.Value, stride: ir.Value, rows: list, zero_point: ir.Value) -> None:
    low = emit_splat(b, b.trunc(b.neg(zero_point), I16), 2 * REGISTER)
    high = emit_splat(b, b.trunc(b.sub(I64(255), zero_point), I16), 2 * REGISTER)
    order = [8 * (n // 8) + 4 * (n % 2) + n // 2 % 4 for n in range(2 * REGISTER)]
    for n in range(2):
        pair = _words(b, *rows[2 * n : 2 * n + 2])
        pair = b.select(b.icmp_signed(">", pair, low), pair, low)
        pair = b.select(b.icmp_signed("<", pair, high), pair, high)
        place = b.add(address, b.mul(stride, I64(n)))
        emit_store(b, place, b.bitcast(_shuffled(b, pair, pair, order), _INTEGERS))


@intrinsic
def store_rounded(typingctx, address, stride, first, second, third, fourth, zero_point):
    """Four features of some tokens, rounded half to even, plus the zero point, within 0..255, to uint8 [tokens][4].

    NaN becomes 0, as in ONNX Runtime. Without VNNI: less the zero point, as int16 [tokens][2] of two features, `stride`
    bytes further on of the others.
    """

    def code(c, b, s, a):
        emit_activations(b, a[0], a[1], list(a[2:6]), a[6])
        return c.get_dummy_value()

    return types.void(types.int64, types.int64, first, first, first, first, types.int64), code
