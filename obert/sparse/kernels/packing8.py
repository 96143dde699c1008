"""Weights of a linear layer in 8 bits, as the kernel reads them.

A matrix is cut into strips of columns, whose activations stay in the processor's nearest cache. Four neighbouring
columns of a row are a block of weights, and blocks of zeros are left out. Rows are taken by fours (by twos, where
registers are few): a unit. Two rows of it share the activations of blocks that both have; of the others each row reads
its own. Threads that share a layer take blocks of units.
"""

from __future__ import annotations

import numpy as np

from obert.sparse.kernels import dots
from obert.sparse.kernels.arrays import aligned, keep
from obert.sparse.kernels.pairing8 import fill, units
from obert.sparse.program import Weight

ROWS, ROWS_OF_STRIPS = 96, 192  # of a block, in layers of one strip and of more
COLUMNS = 768 // dots.WORDS  # of a strip: 24 KiB for 32 tokens
# Of a block and strip, in the table: the strip's first block of columns, how many units; addresses of units, biases,
# and of columns and weights, first those that rows share, then their own.
FIELDS = 8


class PackedLinear8:
    """A linear layer as `linear8` reads it.

    Attributes:
        address: of its table: how many strips; then the FIELDS of each block of rows, strip by strip.
        blocks: how many ranges of rows there are that can be computed apart.
        nbytes: what it takes in memory.
    """

    def __init__(self, weight: Weight):
        rows, columns = weight.values.shape
        values = np.zeros((rows, max(1, -(-columns // dots.BLOCK)) * dots.BLOCK), np.int8)
        values[:, :columns] = weight.values
        bias = weight.bias.astype(np.int64)
        if dots.BYTES and weight.rounding is not None:
            bias = bias - weight.rounding.zero_point * values.sum(1, dtype=np.int64)
        bias = bias.astype(np.int32)  # sums are exact modulo 2**32
        strips = [values[:, first : first + COLUMNS] for first in range(0, values.shape[1], COLUMNS)]
        self.blocks = -(-rows // (ROWS if len(strips) == 1 else ROWS_OF_STRIPS))
        self._arrays: list[np.ndarray] = []
        fields = []
        for number, strip in enumerate(strips):
            packed = self._strip(strip, bias if number == 0 else np.zeros_like(bias), len(strips) > 1)
            fields.append([[number * COLUMNS // dots.BLOCK, *block] for block in packed])
        self._table = keep([len(strips), *np.transpose(fields, (1, 0, 2)).ravel()], np.int64)
        self.address = self._table.ctypes.data
        self.nbytes = self._table.nbytes + sum(array.nbytes for array in self._arrays)

    def _strip(self, values: np.ndarray, bias: np.ndarray, keeps_rows: bool) -> list[list[int]]:
        """The fields of each block but the first; `keeps_rows`: a block's rows are the same in every strip."""
        blocks = np.ascontiguousarray(values).reshape(len(values), -1, dots.BLOCK)
        count = blocks.shape[1]
        blocks = _in_small_pairs(blocks)
        used = (blocks.view(np.int32) != 0)[..., 0]
        if keeps_rows:
            of_blocks = np.array_split(np.arange(len(values)), self.blocks)
            taken = [units(used, rows, dots.ROWS) for rows in of_blocks]
        else:
            every = units(used, np.arange(len(values)), dots.ROWS)
            taken = [every[block :: self.blocks] for block in range(self.blocks)]
        rows = np.concatenate(taken)
        pairs = rows.reshape(-1, 2)
        common = (used[pairs[:, 0]] & used[pairs[:, 1]]).sum(1)
        shared = common.reshape(len(rows), -1).min(1)
        single = used.sum(1)[rows].max(1) - shared

        listed = aligned((len(rows) + 1, 2 + dots.ROWS), np.uint16)  # the kernel looks one unit ahead
        listed[:-1] = np.concatenate([shared[:, None], single[:, None], rows], 1)
        steps = shared.sum(), single.sum()
        columns = tuple(
            aligned((n, width), np.uint16) for n, width in zip(steps, (dots.ROWS // 2, dots.ROWS), strict=True)
        )
        weights = tuple(aligned((n, dots.ROWS, dots.BLOCK), dots.WEIGHT) for n in steps)
        fill(blocks, used, rows, shared, single, count, dots.UNIT, columns, weights)
        arrays = [listed, keep(bias[rows]), columns[0], weights[0], columns[1], weights[1]]
        self._arrays += arrays

        counts = np.array([len(block) for block in taken])
        first = np.cumsum(counts) - counts
        before = [np.concatenate([[0], np.cumsum(n)])[first] for n in (shared, single)]
        places = [first, first, before[0], before[0], before[1], before[1]]
        addresses = [array.ctypes.data + place * array.strides[0] for array, place in zip(arrays, places, strict=True)]
        return np.stack([counts, *addresses], 1).tolist()


def _in_small_pairs(blocks: np.ndarray) -> np.ndarray:
    """int8 [rows, blocks, 4], and once more as many behind them where a block is too large to be multiplied at once.

    Such a block is halved: one half is in its place, the other so many blocks further on.
    """
    if dots.LARGEST_PAIR is None:
        return blocks
    pairs = blocks.reshape(*blocks.shape[:2], 2, 2).astype(np.int16)
    sums = np.maximum(np.maximum(pairs, 0).sum(3), np.maximum(-pairs, 0).sum(3))
    large = (sums > dots.LARGEST_PAIR).any(2)
    if not large.any():
        return blocks
    halves = np.where(large[..., None], blocks // 2, 0).astype(np.int8)
    return np.concatenate([blocks - halves, halves], 1)
