"""The linear layer in 8 bits: only groups of four columns that have a weight are multiplied."""

from __future__ import annotations

from obert.sparse.dots import BLOCK, WEIGHT, block_bytes, dot
from obert.sparse.packing8 import FIELDS
from obert.sparse.vectors import (
    i32_at,
    i64_at,
    jit,
    load_i32,
    row_bytes,
    splat_i32,
    store,
    u16_at,
)

_WEIGHTS = BLOCK * WEIGHT().itemsize  # bytes of a group
_ENTRY = FIELDS * 8


@jit
def linear8(V, table, x, out, first, last):
    """int32 rows of a tile: bias + weights . (x - zero point), for blocks of rows from `first` to before `last`.

    Args:
        table: address of a PackedLinear8.
        x: address of activations as `quantize` writes them.
        out: address of [outputs][T].
    """
    strips = i64_at(table)
    for block in range(first, last):
        for strip in range(strips):
            _block(V, table + 8 + (block * strips + strip) * _ENTRY, x, out, strip == 0)


@jit
def _block(V, entry, x, out, begins):
    """One block: rows are begun with the bias, or added to."""
    row = row_bytes(V)
    step = block_bytes(V)
    run = i64_at(entry)
    rows = i64_at(entry + 16)
    biases = i64_at(entry + 24)
    columns = i64_at(entry + 32)
    weights = i64_at(entry + 40)
    for _run in range(i64_at(entry + 8)):
        steps = i32_at(run)
        pairs = i32_at(run + 4)
        run += 8
        for _pair in range(pairs):
            p = out + u16_at(rows) * row
            q = out + u16_at(rows + 2) * row
            if begins:
                a = splat_i32(V, i32_at(biases))
                b = splat_i32(V, i32_at(biases + 4))
            else:
                a = load_i32(V, p)
                b = load_i32(V, q)
            for s in range(steps):
                a = dot(a, x + u16_at(columns + s * 4) * step, weights + s * 2 * _WEIGHTS)
                b = dot(b, x + u16_at(columns + s * 4 + 2) * step, weights + (s * 2 + 1) * _WEIGHTS)
            store(p, a)
            store(q, b)
            rows += 4
            biases += 8
            columns += steps * 4
            weights += steps * 2 * _WEIGHTS
