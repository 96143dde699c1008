"""Several rows of a matrix at once, its sides: as many vectors as registers hold, in tuples that LLVM keeps there.

Places of rows come as four uint16 in an int64, the first in its lowest bits, in units of `ROW` bytes; kinds of more
lanes scale them.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from obert.sparse.kernels.bounds import checked_address
from obert.sparse.kernels.packing import ROW, SIDES
from obert.sparse.kernels.processor import REGISTER, REGISTERS, SHUFFLES
from obert.sparse.kernels.vectors import (
    F32,
    I32,
    I64,
    KindType,
    emit_call,
    emit_load,
    emit_splat,
    emit_store,
    f32x,
)


def _sides(kind: KindType) -> int:
    """How many rows' sums half of the registers hold."""
    return SIDES if SIDES * kind.lanes <= REGISTERS // 2 * REGISTER else SIDES // 2


def _rows(kind: KindType) -> types.UniTuple:
    return types.UniTuple(f32x(kind), _sides(kind))


def _pack(builder: ir.IRBuilder, typ: types.UniTuple, element: Callable[[int], ir.Value]) -> ir.Value:
    tuple_ = ir.Constant(ir.ArrayType(typ.dtype.llvm, typ.count), ir.Undefined)
    for side in range(typ.count):
        tuple_ = builder.insert_value(tuple_, element(side), side)
    return tuple_


def _place(builder: ir.IRBuilder, base: ir.Value, places: ir.Value, side: int, numerator: int, denominator: int = 1):
    """The address of a side, whose place is worth numerator / denominator bytes."""
    place = builder.and_(builder.lshr(places, I64(16 * side)), I64(65535))
    return builder.add(base, builder.udiv(builder.mul(place, I64(numerator)), I64(denominator)))


class _LoadAsItIs(ir.instructions.LoadInstr):
    """A load of a vector that stays one: LLVM would load each element apart, and loads are what bounds the kernels."""

    def descr(self, buf: list[str]) -> None:
        text: list[str] = []
        super().descr(text)
        buf.append("".join(text).replace("load ", "load volatile ", 1))


@intrinsic
def sides_of(typingctx, kind):
    """How many rows a kernel takes at once, a constant to the compiler."""
    return types.int64(kind), lambda c, b, s, a: I64(_sides(kind))


@intrinsic
def load_sides(typingctx, kind, base, places):
    """Rows at places from an address on."""
    rows = _rows(kind)

    def code(c, b, s, a):
        scale = kind.lanes * 4 // ROW
        return _pack(b, rows, lambda side: emit_load(b, _place(b, a[1], a[2], side, scale), rows.dtype.llvm))

    return rows(kind, types.int64, types.int64), code


@intrinsic
def store_sides(typingctx, base, places, rows):
    """Put rows at places from an address on."""

    def code(c, b, s, a):
        scale = rows.dtype.lanes * 4 // ROW
        for side in range(rows.count):
            emit_store(b, _place(b, a[0], a[1], side, scale), b.extract_value(a[2], side))
        return c.get_dummy_value()

    return types.void(types.int64, types.int64, rows), code


@intrinsic
def begin_sides(typingctx, kind, numbers, places, row):
    """For each place the number that an array of float32 has for it, added to a row."""
    rows = _rows(kind)

    def code(c, b, s, a):
        def begin(side: int) -> ir.Value:
            number = emit_load(b, _place(b, a[1], a[2], side, 4, ROW), F32)
            return b.fadd(a[3], emit_splat(b, number, kind.lanes))

        return _pack(b, rows, begin)

    return rows(kind, types.int64, types.int64, rows.dtype), code


@intrinsic
def add_sides(typingctx, rows, others):
    def code(c, b, s, a):
        return _pack(b, rows, lambda side: b.fadd(*(b.extract_value(x, side) for x in a)))

    return rows(rows, rows), code


def _by_loads(builder: ir.IRBuilder, address: ir.Value, lanes: int, count: int) -> list[ir.Value]:
    """So many float32 from an address on, each in every lane."""
    addresses = (builder.add(address, I64(4 * side)) for side in range(count))
    return [emit_splat(builder, emit_load(builder, place, F32), lanes) for place in addresses]


def _by_shuffles(builder: ir.IRBuilder, address: ir.Value, lanes: int, count: int) -> list[ir.Value]:
    """The same by one load."""
    pointer = builder.inttoptr(checked_address(builder, address, 4 * count), ir.VectorType(F32, count).as_pointer())
    vector = _LoadAsItIs(builder.block, pointer)
    vector.align = 4
    builder._insert(vector)
    masks = (ir.Constant(ir.VectorType(I32, lanes), [side] * lanes) for side in range(count))
    return [builder.shuffle_vector(vector, vector, mask) for mask in masks]


def _multiply(spread: Callable[..., list[ir.Value]], shared: bool) -> Callable:
    def code(context, builder, signature, arguments):
        sums, rows = signature.args[0], arguments[2]
        weights = spread(builder, arguments[1], sums.dtype.lanes, sums.count)

        def multiply(side: int) -> ir.Value:
            row = rows if shared else builder.extract_value(rows, side)
            return emit_call(builder, "llvm.fma", weights[side], row, builder.extract_value(arguments[0], side))

        return _pack(builder, sums, multiply)

    return code


@intrinsic
def multiply_sides(typingctx, sums, weights, rows):
    """sums + the weight of each side, which lie one after the other, times its row."""
    return sums(sums, types.int64, sums), _multiply(_by_shuffles if SHUFFLES else _by_loads, shared=False)


@intrinsic
def multiply_row(typingctx, sums, weights, row):
    """The same with one row for all sides: loads are few."""
    return sums(sums, types.int64, row), _multiply(_by_loads, shared=True)
