"""Linear layers in float32: a nonzero weight times a row of activations, which are T tokens of one feature."""

from __future__ import annotations

from obert.sparse.packing import COLUMNS, ENTRY, GROUP, ROWS
from obert.sparse.vectors import (
    add,
    f32_at,
    fma,
    i32_at,
    i64_at,
    jit,
    load,
    prefetch,
    row_bytes,
    splat,
    store,
    u16_at,
)

_GROUP, _ROWS, _COLUMNS, _ENTRY = GROUP, ROWS, COLUMNS, ENTRY * 8


@jit
def _block(V, entry, x, out):
    """Add a block's product: out [ROWS][T] += W [ROWS, COLUMNS] x [COLUMNS][T]."""
    scale = row_bytes(V) // 64
    runs = i64_at(entry + 8)
    rows = i64_at(entry + 16)
    offsets = i64_at(entry + 24)
    weights = i64_at(entry + 32)
    for run in range(i64_at(entry)):
        units = i32_at(runs + run * 8)
        steps = i32_at(runs + run * 8 + 4)
        for _ in range(units):
            out0 = out + u16_at(rows) * scale
            out1 = out + u16_at(rows + 2) * scale
            next0 = out + u16_at(rows + 4) * scale
            next1 = out + u16_at(rows + 6) * scale
            for line in range(0, row_bytes(V), 64):
                prefetch(next0 + line)
                prefetch(next1 + line)
            sum0 = load(V, out0)
            sum1 = load(V, out1)
            for step in range(steps):
                x0 = load(V, x + u16_at(offsets + step * 4) * scale)
                x1 = load(V, x + u16_at(offsets + step * 4 + 2) * scale)
                sum0 = fma(splat(V, f32_at(weights + step * 8)), x0, sum0)
                sum1 = fma(splat(V, f32_at(weights + step * 8 + 4)), x1, sum1)
            store(out0, sum0)
            store(out1, sum1)
            rows += 4
            offsets += steps * 4
            weights += steps * 8


@jit
def linear(V, table, x, residual, out, first, last):
    """Row blocks first to last of W x + bias, and + residual if its address is not 0.

    Args:
        V: the kind; T is its number of lanes.
        table: address of a `PackedLinear`.
        x: address of [columns][T].
        residual, out: addresses of [rows][T].
    """
    size = row_bytes(V)
    rows = i64_at(table)
    column_blocks = i64_at(table + 24)
    bias = i64_at(table + 32)
    entries = i64_at(table + 40)
    for start in range(first, last, _GROUP):
        stop = min(start + _GROUP, last)
        for row in range(start * _ROWS, min(stop * _ROWS, rows)):
            value = splat(V, f32_at(bias + row * 4))
            if residual != 0:
                value = add(value, load(V, residual + row * size))
            store(out + row * size, value)
        for column_block in range(column_blocks):
            for row_block in range(start, stop):
                entry = entries + (row_block * column_blocks + column_block) * _ENTRY
                _block(V, entry, x + column_block * _COLUMNS * size, out + row_block * _ROWS * size)
