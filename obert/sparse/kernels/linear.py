"""Linear layers in float32: a weight times a row of activations, which are T tokens of one feature."""

from __future__ import annotations

import numpy as np

from obert.sparse.kernels.packing import ENTRY, SIDES, UNIT
from obert.sparse.kernels.sides import (
    add_sides,
    begin_sides,
    load_sides,
    multiply_row,
    multiply_sides,
    sides_of,
    store_sides,
)
from obert.sparse.kernels.vectors import add, fma, i64_at, jit, load, row_bytes, splat, u16_at

_ENTRY, _SIDES, _UNIT = ENTRY, SIDES, UNIT


@jit
def _block(V, entry, x, out, bias, residual, zeros):
    """A block's product: out [block_rows][T] += W [block_rows, block_columns] x [block_columns][T].

    If the address of the bias is not 0, then out begins as bias + zeros, + residual if that address is not 0.
    """
    unit, offsets, weights = i64_at(entry + 8), i64_at(entry + 16), i64_at(entry + 24)
    for _ in range(i64_at(entry)):
        steps = u16_at(unit + 2 * _SIDES)
        for side in range(0, _SIDES, sides_of(V)):
            places = i64_at(unit) >> (16 * side)
            if sides_of(V) < _SIDES and side == 0 and (places >> 16) & 65535 == (places >> 48) & 65535:
                continue  # none of these rows is there
            if bias == 0:
                sums = load_sides(V, out, places)
            else:
                sums = begin_sides(V, bias, places, zeros)
                if residual != 0:
                    sums = add_sides(sums, load_sides(V, residual, places))
            numbers = weights + 4 * side
            if offsets != 0:
                for step in range(steps):
                    rows = load_sides(V, x, i64_at(offsets + 8 * step) >> (16 * side))
                    sums = multiply_sides(sums, numbers + 16 * step, rows)
            else:
                for step in range(steps):
                    sums = multiply_row(sums, numbers + 16 * step, load(V, x + step * row_bytes(V)))
            store_sides(out, places, sums)
        if offsets != 0:
            offsets += 8 * steps
        weights += 16 * steps
        unit += _UNIT


@jit
def _no_numbers(V, x, columns):
    """0, and NaN where an activation is infinite or NaN: what weights of 0 add to a dense product."""
    zero = splat(V, np.float32(0))
    even, odd = zero, zero
    for column in range(0, columns - 1, 2):
        even = fma(zero, load(V, x + column * row_bytes(V)), even)
        odd = fma(zero, load(V, x + (column + 1) * row_bytes(V)), odd)
    return fma(zero, load(V, x + (columns - 1) * row_bytes(V)), add(even, odd))


@jit
def linear(V, table, x, residual, out, first, last):
    """Row blocks first to last of W x + bias, and + residual if its address is not 0.

    If the layer has zeros, then a token with an activation that is infinite or NaN is NaN in every row.

    Args:
        V: the kind; T is its number of lanes.
        table: address of a `PackedLinear`.
        x: address of [columns][T].
        residual: address of [rows][T], or 0.
        out: address of [rows][T], apart from both.
    """
    size = row_bytes(V)
    block_rows = i64_at(table + 16)
    block_columns = i64_at(table + 24)
    column_blocks = i64_at(table + 40)
    group = i64_at(table + 48)
    bias = i64_at(table + 64)
    entries = i64_at(table + 72)
    zeros = splat(V, np.float32(0))
    if i64_at(table + 56) != 0:
        zeros = _no_numbers(V, x, i64_at(table + 8))
    while first < last:
        stop = min((first // group + 1) * group, last)
        for column_block in range(column_blocks):
            for row_block in range(first, stop):
                row = row_block * block_rows
                _block(
                    V,
                    entries + (row_block * column_blocks + column_block) * _ENTRY,
                    x + column_block * block_columns * size,
                    out + row * size,
                    bias + row * 4 if column_block == 0 else 0,
                    residual + row * size if residual != 0 else 0,
                    zeros,
                )
        first = stop
