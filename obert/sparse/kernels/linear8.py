"""The linear layer in 8 bits: only blocks of four columns that have a weight are multiplied."""

from __future__ import annotations

from obert.sparse.kernels.dots import (
    BLOCK,
    ROWS,
    WORDS,
    add_sums,
    begin_sums,
    block_bytes,
    step_of_pairs,
    step_of_rows,
    store_sums,
)
from obert.sparse.kernels.packing8 import FIELDS
from obert.sparse.kernels.vectors import i64_at, jit, prefetch, row_bytes, u16_at

_WEIGHTS = ROWS * BLOCK * WORDS  # bytes of a step
_PAIRS, _OWN = ROWS, ROWS * 2  # bytes of the columns of a step
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
            entry = table + 8 + (block * strips + strip) * _ENTRY
            _block(V, entry, x + i64_at(entry) * block_bytes(V), out, strip == 0)


@jit
def _block(V, entry, x, out, begins):
    """One block: rows are begun with the bias, or added to."""
    units = i64_at(entry + 8)
    unit = i64_at(entry + 16)
    biases = i64_at(entry + 24)
    pairs = i64_at(entry + 32)
    pair_weights = i64_at(entry + 40)
    own = i64_at(entry + 48)
    own_weights = i64_at(entry + 56)
    for _unit in range(units):
        shared = u16_at(unit)
        single = u16_at(unit + 2)
        rows = unit + 4
        unit += 4 + ROWS * 2
        for row in range(ROWS):
            following = out + u16_at(unit + 4 + row * 2) * row_bytes(V)
            for line in range(0, row_bytes(V), 64):
                prefetch(following + line)
        sums = begin_sums(V, biases)
        both = min(shared, single)
        for s in range(both):  # what one wants of loads, the other wants of products
            sums = step_of_pairs(V, sums, x, pairs + s * _PAIRS, pair_weights + s * _WEIGHTS)
            sums = step_of_rows(V, sums, x, own + s * _OWN, own_weights + s * _WEIGHTS)
        for s in range(both, shared):
            sums = step_of_pairs(V, sums, x, pairs + s * _PAIRS, pair_weights + s * _WEIGHTS)
        for s in range(both, single):
            sums = step_of_rows(V, sums, x, own + s * _OWN, own_weights + s * _WEIGHTS)
        if not begins:
            sums = add_sums(V, sums, out, rows)
        store_sums(V, sums, out, rows)
        biases += ROWS * 4
        pairs += shared * _PAIRS
        pair_weights += shared * _WEIGHTS
        own += single * _OWN
        own_weights += single * _WEIGHTS
