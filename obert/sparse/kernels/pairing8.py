"""Which rows of a layer are multiplied together: those that have many blocks in common, and as many blocks each."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from obert.sparse.kernels.cache import jit
from obert.sparse.kernels.vectors import I64


@intrinsic
def _ones(typingctx, number):
    """How many bits are set."""

    def code(c, b, s, a):
        function = get_or_insert_function(b.module, ir.FunctionType(I64, [I64]), "llvm.ctpop.i64")
        return b.call(function, [b.bitcast(a[0], I64)])

    return types.int64(types.uint64), code


@jit
def _match(bits, counts, order, pairs):
    """Pairs of rows, to `pairs`, and how many blocks each has in common: from the fullest on, the best that is left.

    A pair is worth its blocks in common, less the blocks that one row has more than the other.

    Args:
        bits: uint64 [rows, words]: which blocks a row has.
        counts: of them.
        order: rows by falling counts, an even number.
    """
    left, n = order.copy(), len(order)
    for pair in range(len(pairs)):
        row = left[0]
        best, place = np.int64(-1 << 40), 1
        for i in range(1, n):
            other = left[i]
            less = counts[row] - counts[other]
            if counts[other] - less <= best:
                break  # no later one is worth more
            common = 0
            for word in range(bits.shape[1]):
                common += _ones(bits[row, word] & bits[other, word])
            if common - less > best:
                best, place = common - less, i
        pairs[pair, 0], pairs[pair, 1] = row, left[place]
        for i in range(1, place):
            left[i - 1] = left[i]
        for i in range(place + 1, n):
            left[i - 2] = left[i]
        n -= 2


def units(used: np.ndarray, rows: np.ndarray, size: int) -> np.ndarray:
    """Rows by units of `size`, [units, size], of which each two neighbours are a pair.

    Where rows don't go up, the unit that has least repeats its last row: that is computed again, to the same place.

    Args:
        used: bool [all rows, blocks]: which blocks a row has.
        rows: numbers of those to take.
    """
    counts = used.sum(1)
    rows = rows[np.argsort(-counts[rows], kind="stable")]
    whole = len(rows) // size * size
    rows, rest = rows[:whole], rows[whole:]
    bits = np.packbits(used, axis=1)
    bits = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))).view(np.uint64)
    pairs = np.empty((whole // 2, 2), np.int64)
    _match(bits, counts, rows, pairs)
    common = (used[pairs[:, 0]] & used[pairs[:, 1]]).sum(1)
    found = pairs[np.lexsort((common, counts[pairs].max(1)))].reshape(-1, size)
    if len(rest):
        last = np.append(rest, np.repeat(rest[-1:], size - len(rest)))
        found = np.concatenate([last[None], found])
    return found


@jit
def fill(blocks, used, rows, shared, single, count, unit, columns, weights):
    """Write what the kernel reads of units: offsets of columns, and weights; [shared, own] of each.

    Args:
        blocks: int8 [all rows, blocks, 4].
        used: bool [all rows, blocks].
        rows: [units, rows of one].
        shared: of each unit, how many blocks each pair shares.
        single: of each unit, how many others a row has at most.
        count: how many blocks there are before they repeat.
        unit: bytes from a block's activations to the next one's.
        columns: of shared blocks [steps, pairs], and of others [steps, rows]; zeros.
        weights: of them, [steps, rows, 4]; zeros.
    """
    pair_step, own_step = 0, 0
    size = rows.shape[1]
    for u in range(len(rows)):
        for first in range(0, size, 2):
            a, b = rows[u, first], rows[u, first + 1]
            step, others_a, others_b = 0, 0, 0
            for block in range(used.shape[1]):
                in_a, in_b = used[a, block], used[b, block]
                if in_a and in_b and step < shared[u]:
                    columns[0][pair_step + step, first // 2] = block % count * unit
                    for n in range(4):
                        weights[0][pair_step + step, first, n] = blocks[a, block, n]
                        weights[0][pair_step + step, first + 1, n] = blocks[b, block, n]
                    step += 1
                    continue
                if in_a:
                    columns[1][own_step + others_a, first] = block % count * unit
                    for n in range(4):
                        weights[1][own_step + others_a, first, n] = blocks[a, block, n]
                    others_a += 1
                if in_b:
                    columns[1][own_step + others_b, first + 1] = block % count * unit
                    for n in range(4):
                        weights[1][own_step + others_b, first + 1, n] = blocks[b, block, n]
                    others_b += 1
        pair_step += shared[u]
        own_step += single[u]
