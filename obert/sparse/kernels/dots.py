"""Products of four 8-bit activations and four 8-bit weights, added to int32 lanes, exact on every processor.

`vnni512` and `vnni256` multiply uint8 by int8 in one instruction. `pmaddwd` (AVX2) multiplies pairs of int16, to which
8-bit integers are widened; or of 8 bits, to pairs' sums in int16, where weights are so small that no sum saturates.
`plain` does it in operations that LLVM knows for every processor, and its activations and weights are int16.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from obert.sparse.kernels import processor
from obert.sparse.kernels.vectors import (
    I8,
    I16,
    I32,
    I64,
    Vector,
    emit_load,
    emit_splat,
    emit_store,
)

DOT = processor.dot
BYTES = DOT != "plain"  # activations are uint8 with their zero point, else int16 without it
WEIGHT = np.int8 if BYTES else np.int16
LARGEST_PAIR = 128 if DOT == "pmaddwd" else None  # what two neighbours of one sign may sum to in `step_of_...`
BLOCK = 4  # neighbouring columns whose weights are multiplied at once
WORDS = np.dtype(WEIGHT).itemsize  # 32-bit words of a block of weights, and of a token's activations for it
ROWS = 4 if DOT == "vnni512" else 2  # whose sums are kept in registers at once: 32 tokens in half of the registers
UNIT = 16 * 4 * WORDS  # bytes that a column's offset is counted in: those of a block for the smallest tile
REGISTER = {"vnni512": 16, "vnni256": 8, "pmaddwd": 8, "plain": 4}[DOT]  # int32 lanes


def pieces(builder: ir.IRBuilder, vector: ir.Value) -> list[ir.Value]:
    """A vector cut into registers."""
    undefined = ir.Constant(vector.type, ir.Undefined)
    indices = ir.VectorType(I32, REGISTER)
    return [
        builder.shuffle_vector(vector, undefined, ir.Constant(indices, list(range(first, first + REGISTER))))
        for first in range(0, vector.type.count, REGISTER)
    ]


def _joined(builder: ir.IRBuilder, parts: list[ir.Value]) -> ir.Value:
    """The vector whose registers these are."""
    while len(parts) > 1:
        size = 2 * parts[0].type.count
        mask = ir.Constant(ir.VectorType(I32, size), list(range(size)))
        parts = [builder.shuffle_vector(*parts[i : i + 2], mask) for i in range(0, len(parts), 2)]
    return parts[0]


def _vnni(builder: ir.IRBuilder, sum_: ir.Value, x: ir.Value, weights: ir.Value) -> ir.Value:
    octets = ir.VectorType(I8, REGISTER * 4)
    signature = ir.FunctionType(sum_.type, [sum_.type, octets, octets])
    function = get_or_insert_function(builder.module, signature, f"llvm.x86.avx512.vpdpbusd.{REGISTER * 32}")
    return builder.call(function, [sum_, builder.bitcast(x, octets), builder.bitcast(weights, octets)])


def _avx2(builder: ir.IRBuilder, name: str, x: ir.Value, y: ir.Value) -> ir.Value:
    """Sums of neighbours' products: pmadd.wd of int16 to int32, pmadd.ub.sw of uint8 and int8 to int16, saturated."""
    words = ir.VectorType(I16, REGISTER * 2)
    of, to = (words, ir.VectorType(I32, REGISTER)) if name == "pmadd.wd" else (ir.VectorType(I8, REGISTER * 4), words)
    function = get_or_insert_function(builder.module, ir.FunctionType(to, [of, of]), f"llvm.x86.avx2.{name}")
    return builder.call(function, [builder.bitcast(x, of), builder.bitcast(y, of)])


def _pmaddwd(builder: ir.IRBuilder, sum_: ir.Value, x: ir.Value, weights: ir.Value) -> ir.Value:
    words = ir.VectorType(I16, REGISTER * 2)
    eight = ir.Constant(words, [8] * REGISTER * 2)
    x, weights = builder.bitcast(x, words), builder.bitcast(weights, words)
    even = builder.and_(x, ir.Constant(words, [0xFF] * REGISTER * 2)), builder.ashr(builder.shl(weights, eight), eight)
    odd = builder.lshr(x, eight), builder.ashr(weights, eight)
    for pair in (even, odd):
        sum_ = builder.add(sum_, _avx2(builder, "pmadd.wd", *pair))
    return sum_


def _pmaddubsw(builder: ir.IRBuilder, sum_: ir.Value, x: ir.Value, weights: ir.Value) -> ir.Value:
    ones = ir.Constant(ir.VectorType(I16, REGISTER * 2), [1] * REGISTER * 2)
    pairs = _avx2(builder, "pmadd.ub.sw", x, weights)
    return builder.add(sum_, _avx2(builder, "pmadd.wd", pairs, ones))


def _plain(builder: ir.IRBuilder, sum_: ir.Value, x: ir.Value, weights: ir.Value) -> ir.Value:
    shift = ir.Constant(sum_.type, [16] * REGISTER)
    for half in ("low", "high"):
        a, w = (builder.ashr(builder.shl(v, shift) if half == "low" else v, shift) for v in (x, weights))
        sum_ = builder.add(sum_, builder.mul(a, w))
    return sum_


_MULTIPLY = {"vnni512": _vnni, "vnni256": _vnni, "pmaddwd": _pmaddwd, "plain": _plain}[DOT]
_MULTIPLY_SMALL = _pmaddubsw if LARGEST_PAIR else _MULTIPLY


@intrinsic
def block_bytes(typingctx, kind):
    """Bytes of four features of a tile: [T][4] uint8, or [2][T][2] int16."""
    return types.int64(kind), lambda c, b, s, a: I64(kind.lanes * 4 * WORDS)


@intrinsic
def dot(typingctx, sums, activations, weights):
    """sums + the products of four features of a tile, at an address, with four weights, at another."""

    def code(c, b, s, a):
        parts, lanes = pieces(b, a[0]), sums.lanes
        vector = ir.VectorType(I32, REGISTER)
        for word in range(WORDS):
            weight = emit_splat(b, emit_load(b, b.add(a[2], I64(word * 4)), I32), REGISTER)
            for n, part in enumerate(parts):
                x = emit_load(b, b.add(a[1], I64((word * lanes + n * REGISTER) * 4)), vector)
                parts[n] = _MULTIPLY(b, part, x, weight)
        return _joined(b, parts)

    return sums(sums, types.int64, types.int64), code


# ROWS sums of a tile's tokens, in registers


def _sums(kind) -> types.UniTuple:
    return types.UniTuple(Vector("i32", kind.lanes), ROWS)


def _row_address(builder: ir.IRBuilder, out: ir.Value, rows: ir.Value, n: int, lanes: int) -> ir.Value:
    row = emit_load(builder, builder.add(rows, I64(2 * n)), I16)
    return builder.add(out, builder.mul(builder.zext(row, I64), I64(lanes * 4)))


@intrinsic
def begin_sums(typingctx, kind, numbers):
    """Sums that begin with the int32 numbers at an address, one a row."""

    def code(c, b, s, a):
        numbers = [emit_load(b, b.add(a[1], I64(4 * n)), I32) for n in range(ROWS)]
        return c.make_tuple(b, s.return_type, [emit_splat(b, number, kind.lanes) for number in numbers])

    return _sums(kind)(kind, types.int64), code


@intrinsic
def add_sums(typingctx, kind, sums, out, rows):
    """Add to sums what is in their rows of `out`; uint16 numbers of the rows are at the address `rows`."""

    def code(c, b, s, a):
        vector = Vector("i32", kind.lanes).llvm
        found = [emit_load(b, _row_address(b, a[2], a[3], n, kind.lanes), vector) for n in range(ROWS)]
        added = [b.add(b.extract_value(a[1], n), found[n]) for n in range(ROWS)]
        return c.make_tuple(b, s.return_type, added)

    return sums(kind, sums, types.int64, types.int64), code


@intrinsic
def store_sums(typingctx, kind, sums, out, rows):
    """Put sums in their rows of `out`."""

    def code(c, b, s, a):
        for n in range(ROWS):
            emit_store(b, _row_address(b, a[2], a[3], n, kind.lanes), b.extract_value(a[1], n))
        return c.get_dummy_value()

    return types.void(kind, sums, types.int64, types.int64), code


def _weights(builder: ir.IRBuilder, address: ir.Value) -> list[ir.Value]:
    """WORDS words of each row, every one in all lanes of a register, from one load: loads are what is scarce."""
    count = ROWS * WORDS
    words = emit_load(builder, address, ir.VectorType(I32, count))
    if count == REGISTER:
        lanes = words
    else:
        repeat = ir.Constant(ir.VectorType(I32, REGISTER), [n % count for n in range(REGISTER)])
        lanes = builder.shuffle_vector(words, ir.Constant(words.type, ir.Undefined), repeat)
    if DOT != "plain":  # LLVM would make a load of each shuffle
        opaque = ir.InlineAsm(ir.FunctionType(lanes.type, [lanes.type]), "", "=v,0")
        lanes = builder.call(opaque, [lanes])
    undefined = ir.Constant(lanes.type, ir.Undefined)
    quarter = min(count, 4)
    return [
        builder.shuffle_vector(
            lanes, undefined, ir.Constant(ir.VectorType(I32, REGISTER), [n - n % quarter + k for n in range(REGISTER)])
        )
        for k in range(count)
    ]


def _offsets(builder: ir.IRBuilder, address: ir.Value, count: int) -> list[ir.Value]:
    """uint16 numbers, from one load."""
    typ = ir.IntType(16 * count)
    packed = emit_load(builder, address, typ, align=2)
    shifted = [builder.lshr(packed, typ(16 * n)) if n else packed for n in range(count)]
    return [builder.zext(builder.trunc(number, I16), I64) for number in shifted]


def _step(shared: int):
    """An intrinsic that adds a block's products to each sum; `shared` rows have a block of columns in common.

    Two neighbouring weights of one sign sum to LARGEST_PAIR at most.
    """

    @intrinsic
    def step(typingctx, kind, sums, x, columns, weights):
        def code(c, b, s, a):
            sums = [pieces(b, b.extract_value(a[1], n)) for n in range(ROWS)]
            weights = _weights(b, a[4])
            vector = ir.VectorType(I32, REGISTER)
            for n, offset in enumerate(_offsets(b, a[3], ROWS // shared)):
                base = b.add(a[2], b.mul(offset, I64(kind.lanes // 16)))
                for word in range(WORDS):
                    for part in range(kind.lanes // REGISTER):
                        place = I64((word * kind.lanes + part * REGISTER) * 4)
                        activations = emit_load(b, b.add(base, place), vector)
                        for row in range(n * shared, (n + 1) * shared):
                            weight = weights[row * WORDS + word]
                            sums[row][part] = _MULTIPLY_SMALL(b, sums[row][part], activations, weight)
            return c.make_tuple(b, s.return_type, [_joined(b, parts) for parts in sums])

        return sums(kind, sums, types.int64, types.int64, types.int64), code

    return step


step_of_pairs = _step(2)  # columns: a uint16 for each two rows
step_of_rows = _step(1)  # columns: a uint16 for each row
