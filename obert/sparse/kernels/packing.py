"""Float32 weights of a linear layer as its kernels read them: nonzeros and their places, block by block."""

from __future__ import annotations

import numpy as np

from obert.sparse.kernels.arrays import keep
from obert.sparse.kernels.processor import lanes

SIDES = 4  # rows that a kernel computes at a time: a unit
ROW = 64  # bytes of a row of 16 lanes: offsets are multiples of it, which kernels scale to wider kinds
ENTRY = 32  # bytes of a block's entry in the table
UNIT = 10  # bytes of a unit's four rows and its number of steps
_BLOCK_COLUMNS = {64: 128, 32: 192}[lanes()]  # 32 KB or 24 KB of activations
_BLOCK_ROWS = 96  # at most; more would gain 1 %, but fewer threads could share a layer
_GROUP_ROWS = 768  # of the row blocks that share inputs in the first cache: their outputs stay in the second
_DENSE = 0.9  # share of nonzeros from which on zeros are stored too


class PackedLinear:
    """A matrix of weights and its bias, for kernels of any kind.

    The matrix is cut into blocks, so that a block's inputs stay in the first cache and its outputs in the second. In a
    block, rows are sorted by their number of nonzeros, and four make a unit. A unit has as many steps as its longest
    row, and a step has one weight of each row, with the place of its column.

    Attributes:
        address: of a table of int64: rows, columns, rows of a block, columns of a block, row blocks, column blocks, row
            blocks that share inputs in the first cache, whether zeros are left out, and addresses of the bias and of
            the blocks' entries. An entry has its number of units, and the addresses of units, offsets and weights.
        blocks: how many ranges of rows there are that can be computed apart.
        nbytes: what all of it takes in memory.
    """

    def __init__(self, values: np.ndarray, bias: np.ndarray):
        """Pack values, [rows, columns], and bias, [rows], both float32."""
        rows, columns = values.shape
        density = np.count_nonzero(values) / max(values.size, 1)
        block_columns = _BLOCK_COLUMNS if density > 0.06 else _BLOCK_COLUMNS * 3 // 2
        self.blocks = max(1, -(-rows // _BLOCK_ROWS))
        block_rows = -(-rows // (self.blocks * SIDES)) * SIDES
        group = max(1, _GROUP_ROWS // block_rows)
        column_blocks = -(-columns // block_columns)
        dense = density >= _DENSE
        # cells: [group of row blocks, column block, row block], which is their order in memory
        cells = -(-self.blocks // group), column_blocks, group
        stored = np.ones(values.shape, bool) if dense else values != 0
        units, target, starts = _arrange(stored, block_rows, block_columns, cells)
        weights = np.zeros(SIDES * int(units[:, SIDES].sum(dtype=np.int64)), np.float32)
        weights[target] = values[stored]
        offsets = np.zeros(0 if dense else len(weights), np.uint16)
        if not dense:
            offsets[target] = np.nonzero(stored)[1] % block_columns * ROW
        self._arrays = [keep(units), keep(offsets), keep(weights), keep(bias, np.float32)]
        addresses = [array.ctypes.data for array in self._arrays]
        starts[:, 1:] += addresses[:3]
        if dense:
            starts[:, 2] = 0
        self._entries = keep(starts.reshape(*cells, -1).transpose(0, 2, 1, 3))
        sizes = rows, columns, block_rows, block_columns, self.blocks, column_blocks, group, not dense
        self._table = keep([*sizes, addresses[3], self._entries.ctypes.data], np.int64)
        self.address = self._table.ctypes.data
        self.nbytes = sum(array.nbytes for array in (self._table, self._entries, *self._arrays))


def _arrange(
    stored: np.ndarray, block_rows: int, block_columns: int, cells: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where weights go, of which `stored` says which there are.

    Returns:
        Units, [units, places of the rows and number of steps]; the place of each weight, row by row; and of each cell
        how many units it has, and where its units, offsets and weights begin, in bytes.
    """
    _, column_blocks, group = cells
    counts = np.add.reduceat(stored, np.arange(0, stored.shape[1], block_columns), axis=1, dtype=np.int64)
    # Rows of cells: all of the first column block, whose kernel begins the sums, and else those that have weights.
    row, block = np.nonzero((counts > 0) | (np.arange(column_blocks) == 0))
    count = counts[row, block]
    cell = (row // block_rows // group * column_blocks + block) * group + row // block_rows % group
    order = np.lexsort((count, cell))
    cell, place = cell[order], row[order] % block_rows * ROW
    size = np.bincount(cell, minlength=int(np.prod(cells)))
    missing = -size % SIDES  # in the first unit
    rank = np.arange(len(cell)) - _starts(size)[cell] + missing[cell]
    number = (size + missing) // SIDES
    unit, side = _starts(number)[cell] + rank // SIDES, rank % SIDES
    units = np.zeros((int(number.sum()), SIDES + 1), np.uint16)
    units[unit, side] = place
    last = side == SIDES - 1
    units[unit[last], SIDES] = count[order][last]
    # A missing row is the same as one that is stored after it, so that what it adds to is of no account.
    of_first, absent = _starts(number)[missing > 0], missing[missing > 0]
    twin = np.where(absent == 1, 1, SIDES - 1)
    for side_ in range(SIDES - 1):
        lacks = absent > side_
        units[of_first[lacks], side_] = units[of_first[lacks], twin[lacks]]
    steps = units[:, SIDES].astype(np.int64)
    begin = np.empty(len(row), np.int64)
    begin[order] = _starts(steps)[unit] * SIDES + side
    target = np.repeat(begin - SIDES * _starts(count), count) + SIDES * np.arange(count.sum())
    first = np.append(_starts(steps), steps.sum())[_starts(number)] * SIDES
    return units, target, np.stack([number, _starts(number) * UNIT, first * 2, first * 4], 1)


def _starts(sizes: np.ndarray) -> np.ndarray:
    """Where each of things that lie one after the other begins."""
    return np.cumsum(sizes) - sizes
