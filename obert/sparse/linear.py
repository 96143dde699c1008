"""Linear layers in float32: a weight times a row of activations, which are T tokens of one feature.

One load fetches the places of four nonzeros, and one their weights, which shuffles then spread over the lanes: loads are
what bounds the kernels, and the activations take one for each multiplication.
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
def _sparse(V, units, unit, offsets, weights, x, out):
    """Add a block's product: out [block_rows][T] += W [block_rows, block_columns] x [block_columns][T]."""
    scale = row_bytes(V) // _ROW
    for _ in range(units):
        rows = i64_at(unit)
        out0 = out + (rows & 65535) * scale
        out1 = out + ((rows >> 16) & 65535) * scale
        out2 = out + ((rows >> 32) & 65535) * scale
        out3 = out + ((rows >> 48) & 65535) * scale
        sum0 = load(V, out0)
        sum1 = load(V, out1)
        sum2 = load(V, out2)
        sum3 = load(V, out3)
        for _ in range(u16_at(unit + 8)):
            o = i64_at(offsets)
            w = _quad_at(weights)
            sum0 = fma(_spread0(V, w), load(V, x + (o & 65535) * scale), sum0)
            sum1 = fma(_spread1(V, w), load(V, x + ((o >> 16) & 65535) * scale), sum1)
            sum2 = fma(_spread2(V, w), load(V, x + ((o >> 32) & 65535) * scale), sum2)
            sum3 = fma(_spread3(V, w), load(V, x + ((o >> 48) & 65535) * scale), sum3)
            offsets += 8
            weights += 16
        store(out0, sum0)
        store(out1, sum1)
        store(out2, sum2)
        store(out3, sum3)
        unit += _UNIT


@jit
def _dense(V, units, unit, weights, x, out):
    """The same with all weights, so that four rows share the loads of activations."""
    scale = row_bytes(V) // _ROW
    for _ in range(units):
        rows = i64_at(unit)
        out0 = out + (rows & 65535) * scale
        out1 = out + ((rows >> 16) & 65535) * scale
        out2 = out + ((rows >> 32) & 65535) * scale
        out3 = out + ((rows >> 48) & 65535) * scale
        sum0 = load(V, out0)
        sum1 = load(V, out1)
        sum2 = load(V, out2)
        sum3 = load(V, out3)
        steps = u16_at(unit + 8)
        for step in range(steps):
            w = _quad_at(weights)
            row = load(V, x + step * row_bytes(V))
            sum0 = fma(_spread0(V, w), row, sum0)
            sum1 = fma(_spread1(V, w), row, sum1)
            sum2 = fma(_spread2(V, w), row, sum2)
            sum3 = fma(_spread3(V, w), row, sum3)
            weights += 16
        store(out0, sum0)
        store(out1, sum1)
        store(out2, sum2)
        store(out3, sum3)
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
    rows = i64_at(table)
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
        for row in range(first * block_rows, min(stop * block_rows, rows)):
            value = add(zeros, splat(V, f32_at(bias + row * 4)))
            if residual != 0:
                value = add(value, load(V, residual + row * size))
            store(out + row * size, value)
        for column_block in range(column_blocks):
            activations = x + column_block * block_columns * size
            for row_block in range(first, stop):
                entry = entries + (row_block * column_blocks + column_block) * _ENTRY
                units, unit, offsets, weights = i64_at(entry), i64_at(entry + 8), i64_at(entry + 16), i64_at(entry + 24)
                sums = out + row_block * block_rows * size
                if offsets != 0:
                    _sparse(V, units, unit, offsets, weights, activations, sums)
                else:
                    _dense(V, units, unit, weights, activations, sums)
        first = stop
