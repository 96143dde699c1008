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
        stored = np.ones(values.shape, bool) if dense else values != 0
        # cells: [group of row blocks, column block, row block], which is their order in memory
        cells = -(-self.blocks // group), column_blocks, group
        units, offsets, weights, counts, starts = _pack(values, stored, block_rows, block_columns, cells)
        self._arrays = [keep(units), keep(offsets[:0] if dense else offsets), keep(weights), keep(bias, np.float32)]
        addresses = [array.ctypes.data for array in self._arrays]
        entries = np.stack([counts, *(a + s for a, s in zip(addresses, starts, strict=False))], 1).astype(np.int64)
        if dense:
            entries[:, 2] = 0
        entries = entries.reshape(*cells, -1).transpose(0, 2, 1, 3).reshape(cells[0] * group, column_blocks, -1)
        self._entries = keep(entries)
        sizes = rows, columns, block_rows, block_columns, self.blocks, column_blocks, group, not dense
        self._table = keep([*sizes, addresses[3], self._entries.ctypes.data], np.int64)
        self.address = self._table.ctypes.data
        self.nbytes = sum(array.nbytes for array in (self._table, self._entries, *self._arrays))


def _pack(
    values: np.ndarray, stored: np.ndarray, block_rows: int, block_columns: int, cells: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """Units, offsets and weights; how many units each cell has; and where in each of the three it begins, in bytes.

    Rows that are missing in the first unit of a cell are the same as its last row, which is stored last, so that what
    they add to is of no account.
    """
    _, column_blocks, group = cells
    row, column = np.nonzero(stored)
    segment = row * column_blocks + column // block_columns  # a row of a block
    begin = np.flatnonzero(np.diff(segment, prepend=-1))
    count = np.diff(begin, append=len(segment))
    step = np.arange(len(segment)) - np.repeat(begin, count)
    # Segments: all of the first column block, whose kernel begins the sums, and else those that have nonzeros.
    empty = np.flatnonzero(~stored[:, :block_columns].any(1))
    at_row, at_block = np.append(row[begin], empty), np.append(column[begin] // block_columns, 0 * empty)
    lengths = np.append(count, 0 * empty)
    # Segments in the order of memory.
    cell = _cell(at_row // block_rows, at_block, column_blocks, group)
    order = np.lexsort((lengths, cell))
    cell, lengths, place = cell[order], lengths[order], at_row[order] % block_rows * ROW
    size = np.bincount(cell, minlength=int(np.prod(cells)))
    missing = -size % SIDES
    rank = np.arange(len(cell)) - _starts(size)[cell] + missing[cell]
    units = (size + missing) // SIDES
    unit, side = _starts(units)[cell] + rank // SIDES, rank % SIDES
    table = np.zeros((int(units.sum()), UNIT // 2), np.uint16)
    table[unit, side] = place
    last = side == SIDES - 1
    table[unit[last], SIDES] = lengths[last]
    for absent in range(SIDES - 1):
        at = (rank // SIDES == 0) & last & (missing[cell] > absent)
        table[unit[at], absent] = place[at]
    # Nonzeros.
    unit_start = _starts(table[:, SIDES].astype(np.int64))
    total = int(table[:, SIDES].sum(dtype=np.int64)) * SIDES
    target = np.empty(len(order), np.int64)
    target[order] = unit_start[unit] * SIDES + side
    target = np.repeat(target[: len(begin)], count) + step * SIDES
    offsets, weights = np.zeros(total, np.uint16), np.zeros(total, np.float32)
    offsets[target] = column % block_columns * ROW
    weights[target] = values[row, column]
    first = _starts(units)
    nonzeros = np.append(unit_start, total // SIDES)[first] * SIDES
    return table, offsets, weights, units, [first * UNIT, nonzeros * 2, nonzeros * 4]


def _cell(row_block: np.ndarray, column_block: np.ndarray, column_blocks: int, group: int) -> np.ndarray:
    return (row_block // group * column_blocks + column_block) * group + row_block % group


def _starts(sizes: np.ndarray) -> np.ndarray:
    """Where each of things that lie one after the other begins."""
    return np.cumsum(sizes) - sizes
