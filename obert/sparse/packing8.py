"""Weights of a linear layer in 8 bits, as the kernel reads them.

A matrix is cut into blocks of rows and of columns. In a block, rows are sorted by how many groups of four neighbouring
columns have a weight, and paired: the kernel takes both rows' groups at once, with one count for a run of pairs.
"""

from __future__ import annotations

import numpy as np

from obert.sparse import dots
from obert.sparse.arrays import keep
from obert.sparse.program import Weight

ROWS = 128  # of a block
COLUMNS = 384  # of a block
FIELDS = 6  # of a block, in the table: runs, how many, rows, biases, columns, weights


class PackedLinear8:
    """A linear layer as `linear8` reads it.

    Attributes:
        address: of its table: how many blocks of columns; then the FIELDS of each block, blocks of columns innermost.
        blocks: how many blocks of rows.
        nbytes: what it takes in memory.
    """

    def __init__(self, weight: Weight):
        rows, columns = weight.values.shape
        values = np.zeros((rows, -(-columns // dots.BLOCK) * dots.BLOCK), np.int8)
        values[:, :columns] = weight.values
        bias = weight.bias.astype(np.int64)
        if dots.BYTES and weight.rounding is not None:
            bias = bias - weight.rounding.zero_point * values.sum(1, dtype=np.int64)
        bias = bias.astype(np.uint64).astype(np.uint32).view(np.int32)  # sums are exact modulo 2**32
        self._arrays: list[np.ndarray] = []
        table = [max(1, -(-columns // COLUMNS))]
        for row in range(0, rows, ROWS):
            for column in range(0, max(columns, 1), COLUMNS):
                block = values[row : row + ROWS, column : column + COLUMNS]
                table += self._block(block, bias[row : row + ROWS], row, column // dots.BLOCK)
        self.blocks = -(-rows // ROWS)
        self._table = keep(table, np.int64)
        self.address = self._table.ctypes.data
        self.nbytes = self._table.nbytes + sum(array.nbytes for array in self._arrays)

    def _block(self, values: np.ndarray, bias: np.ndarray, row: int, group: int) -> list[int]:
        """The fields of a block, whose first row is `row` and whose first group of columns is `group`."""
        groups = values.reshape(len(values), -1, dots.BLOCK)
        used = (groups != 0).any(2)
        counts = used.sum(1)
        order = np.argsort(counts, kind="stable")
        if len(order) % 2:
            order = np.append(order, order[-1])  # computed twice, to the same place
        pairs = order.reshape(-1, 2)
        steps = counts[pairs].max(1)
        width = max(int(counts.max(initial=0)), 1)
        found = np.argsort(~used, axis=1, kind="stable")[:, :width]  # columns that are used first
        live = np.arange(found.shape[1]) < counts[:, None]
        weights = np.where(live[..., None], np.take_along_axis(groups, found[..., None], 1), 0)
        indices = np.where(live, found, 0) + group
        picked = np.arange(found.shape[1]) < steps[:, None]
        lengths, runs = np.unique(steps, return_counts=True)
        arrays = (
            keep(np.stack([lengths, runs], 1), np.int32),
            keep(pairs + row, np.uint16),
            keep(bias[pairs], np.int32),
            keep(indices[pairs].transpose(0, 2, 1)[picked], np.uint16),
            keep(weights[pairs].transpose(0, 2, 1, 3)[picked], dots.WEIGHT),
        )
        self._arrays += arrays
        first, *others = (array.ctypes.data for array in arrays)
        return [first, len(lengths), *others]
