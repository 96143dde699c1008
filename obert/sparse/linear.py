"""Linear layers in float32: a weight times a row of activations, which are T tokens of one feature.

One load fetches the places of four nonzeros, and one their weights, which shuffles then spread over the lanes: what
bounds the kernels is loads, and activations take one for each multiplication.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from obert.sparse.bounds import checked_address
from obert.sparse.packing import ENTRY, ROW, UNIT
from obert.sparse.vectors import (
    I32,
    Vector,
    add,
    f32_at,
    f32x,
    fma,
    i64_at,
    jit,
    load,
    row_bytes,
    splat,
    store,
    u16_at,
)

_ENTRY, _ROW, _UNIT = ENTRY, ROW, UNIT
_QUAD = Vector("f32", 4)


class _VolatileLoad(ir.instructions.LoadInstr):
    """A load that LLVM leaves as it is; else it makes four loads of single weights of it."""

    def descr(self, buf: list[str]) -> None:
        text: list[str] = []
        super().descr(text)
        buf.append("".join(text).replace("load ", "load volatile ", 1))


@intrinsic
def _quad_at(typingctx, address):
    """Four float32 from an address on."""

    def code(c, b, s, a):
        pointer = b.inttoptr(checked_address(b, a[0], 16), _QUAD.llvm.as_pointer())
        instruction = _VolatileLoad(b.block, pointer)
        instruction.align = 4
        b._insert(instruction)
        return instruction

    return _QUAD(types.int64), code


def _spread(element: int):
    @intrinsic
    def spread(typingctx, kind, quad):
        """One of four numbers in every lane."""

        def code(c, b, s, a):
            lanes = ir.Constant(ir.VectorType(I32, kind.lanes), [element] * kind.lanes)
            return b.shuffle_vector(a[1], a[1], lanes)

        return f32x(kind)(kind, quad), code

    return spread


_spread0, _spread1, _spread2, _spread3 = (_spread(element) for element in range(4))


@jit
def _begin(V, place, out, bias, residual, zeros):
    """A row's sum before a block's product."""
    scale = row_bytes(V) // _ROW
    if bias == 0:
        return load(V, out + place * scale)
    value = add(zeros, splat(V, f32_at(bias + place // (_ROW // 4))))
    if residual != 0:
        value = add(value, load(V, residual + place * scale))
    return value


@jit
def _sparse(V, units, unit, offsets, weights, x, out, bias, residual, zeros):
    """Add a block's product: out [block_rows][T] += W [block_rows, block_columns] x [block_columns][T]."""
    scale = row_bytes(V) // _ROW
    for _ in range(units):
        rows = i64_at(unit)
        place0 = rows & 65535
        place1 = (rows >> 16) & 65535
        place2 = (rows >> 32) & 65535
        place3 = (rows >> 48) & 65535
        sum0 = _begin(V, place0, out, bias, residual, zeros)
        sum1 = _begin(V, place1, out, bias, residual, zeros)
        sum2 = _begin(V, place2, out, bias, residual, zeros)
        sum3 = _begin(V, place3, out, bias, residual, zeros)
        for _ in range(u16_at(unit + 8)):
            o = i64_at(offsets)
            w = _quad_at(weights)
            sum0 = fma(_spread0(V, w), load(V, x + (o & 65535) * scale), sum0)
            sum1 = fma(_spread1(V, w), load(V, x + ((o >> 16) & 65535) * scale), sum1)
            sum2 = fma(_spread2(V, w), load(V, x + ((o >> 32) & 65535) * scale), sum2)
            sum3 = fma(_spread3(V, w), load(V, x + ((o >> 48) & 65535) * scale), sum3)
            offsets += 8
            weights += 16
        store(out + place0 * scale, sum0)
        store(out + place1 * scale, sum1)
        store(out + place2 * scale, sum2)
        store(out + place3 * scale, sum3)
        unit += _UNIT


@jit
def _dense(V, units, unit, weights, x, out, bias, residual, zeros):
    """The same with all weights, so that four rows share the loads of activations."""
    scale = row_bytes(V) // _ROW
    for _ in range(units):
        rows = i64_at(unit)
        place0 = rows & 65535
        place1 = (rows >> 16) & 65535
        place2 = (rows >> 32) & 65535
        place3 = (rows >> 48) & 65535
        sum0 = _begin(V, place0, out, bias, residual, zeros)
        sum1 = _begin(V, place1, out, bias, residual, zeros)
        sum2 = _begin(V, place2, out, bias, residual, zeros)
        sum3 = _begin(V, place3, out, bias, residual, zeros)
        steps = u16_at(unit + 8)
        for step in range(steps):
            w = _quad_at(weights)
            row = load(V, x + step * row_bytes(V))
            sum0 = fma(_spread0(V, w), row, sum0)
            sum1 = fma(_spread1(V, w), row, sum1)
            sum2 = fma(_spread2(V, w), row, sum2)
            sum3 = fma(_spread3(V, w), row, sum3)
            weights += 16
        store(out + place0 * scale, sum0)
        store(out + place1 * scale, sum1)
        store(out + place2 * scale, sum2)
        store(out + place3 * scale, sum3)
        unit += _UNIT


@jit
def _no_numbers(V, x, columns):
    """0, and NaN where an activation is infinite or NaN: what weights of 0 add to a dense product."""
    zero = splat(V, np.float32(0))
    sum0 = zero
    sum1 = zero
    for column in range(0, columns - 1, 2):
        sum0 = fma(zero, load(V, x + column * row_bytes(V)), sum0)
        sum1 = fma(zero, load(V, x + (column + 1) * row_bytes(V)), sum1)
    if columns % 2:
        sum0 = fma(zero, load(V, x + (columns - 1) * row_bytes(V)), sum0)
    return add(sum0, sum1)


@jit
def linear(V, table, x, residual, out, first, last):
    """Row blocks first to last of W x + bias, and + residual if its address is not 0.

    A token with an activation that is infinite or NaN is NaN in every row, if there are weights of 0.

    Args:
        V: the kind; T is its number of lanes.
        table: address of a `PackedLinear`.
        x: address of [columns][T].
        residual: address of [rows][T], or 0.
        out: address of [rows][T], apart from both.
    """
    size = row_bytes(V)
    columns = i64_at(table + 8)
    block_rows = i64_at(table + 16)
    block_columns = i64_at(table + 24)
    column_blocks = i64_at(table + 40)
    group = i64_at(table + 48)
    bias = i64_at(table + 64)
    entries = i64_at(table + 72)
    zeros = splat(V, np.float32(0))
    if i64_at(table + 56) != 0:
        zeros = _no_numbers(V, x, columns)
    while first < last:
        stop = min((first // group + 1) * group, last)
        for column_block in range(column_blocks):
            activations = x + column_block * block_columns * size
            for row_block in range(first, stop):
                entry = entries + (row_block * column_blocks + column_block) * _ENTRY
                units, unit, offsets, weights = i64_at(entry), i64_at(entry + 8), i64_at(entry + 16), i64_at(entry + 24)
                row = row_block * block_rows
                sums = out + row * size
                biases = bias + row * 4 if column_block == 0 else 0
                residuals = residual + row * size if residual != 0 else 0
                if offsets != 0:
                    _sparse(V, units, unit, offsets, weights, activations, sums, biases, residuals, zeros)
                else:
                    _dense(V, units, unit, weights, activations, sums, biases, residuals, zeros)
        first = stop
