"""Float32 weights of a linear layer as the kernels read them: nonzeros and their places, in blocks."""

from __future__ import annotations

import numpy as np

from obert.sparse.arrays import keep

ROWS, COLUMNS = 96, 96  # of a block
GROUP = 8  # row blocks that share a column block's activations while these are in the nearest cache
HEADER, ENTRY = 7, 5  # numbers in the table, and of each block in it
UNIT = 64  # bytes: offsets are of rows of 16 lanes of float32, and wider kinds multiply them


class PackedLinear:
    """A matrix of weights and its bias.

    Attributes:
        address: of a table of int64: rows, columns, row blocks, column blocks, addresses of the bias and of the entries
            [row block, column block], and 1 if there are zeros. An entry has the number of runs, and the addresses of
            runs (units, and nonzeros of each row of a unit), rows, offsets and weights.
        blocks: how many ranges of rows there are that can be computed apart.
        nbytes: what all of it takes in memory.
    """

    def __init__(self, values: np.ndarray, bias: np.ndarray):
        self.rows, self.columns = values.shape
        self.blocks = -(-self.rows // ROWS)
        column_blocks = -(-self.columns // COLUMNS)
        self._bias = keep(bias, np.float32)
        arrays, entries = _pack(np.asarray(values, np.float32), self.blocks, column_blocks)
        self._arrays = [keep(array) for array in arrays]
        self._entries = keep(entries)
        self._entries[..., 1:] += [array.ctypes.data for array in self._arrays]
        zeros = np.count_nonzero(values) < values.size
        addresses = self._bias.ctypes.data, self._entries.ctypes.data
        self._table = keep((self.rows, self.columns, self.blocks, column_blocks, *addresses, zeros), np.int64)
        self.address = self._table.ctypes.data
        self.nbytes = sum(array.nbytes for array in (self._table, self._entries, self._bias, *self._arrays))


def _pack(values: np.ndarray, row_blocks: int, column_blocks: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Runs, rows, offsets and weights; entries [row block, column block, (runs, four offsets in bytes)].

    In a block rows are sorted by their number of nonzeros and taken in pairs, the units. A row without a partner is its
    own: the first half of the unit adds nothing, and what the second stores remains.
    """
    row, column = np.nonzero(values)
    block = column // COLUMNS
    # Rows of blocks ("segments"), in the order of memory: groups of row blocks, column blocks, row blocks, then counts.
    segment = row * column_blocks + block
    starts = np.flatnonzero(np.diff(segment, prepend=-1))
    count = np.diff(starts, append=len(segment))
    place = np.arange(len(segment)) - np.repeat(starts, count)  # of a nonzero in its segment
    at_row, at_block = row[starts], block[starts]
    row_block = at_row // ROWS
    cell = (row_block // GROUP * column_blocks + at_block) * GROUP + row_block % GROUP
    order = np.lexsort((count, cell))
    cell, sorted_count, sorted_row = cell[order], count[order], at_row[order] % ROWS
    # Units: from the top, so that it is the row with fewest nonzeros that stays alone.
    size = np.bincount(cell, minlength=0)
    first = np.repeat(np.cumsum(size) - size, size)
    odd = np.repeat(size % 2, size)
    rank = np.arange(len(order)) - first + odd
    units = (size + 1) // 2
    unit = np.repeat(np.cumsum(units) - units, size) + rank // 2
    side = rank % 2
    total = int(units.sum())
    steps = np.zeros(total, np.int64)
    np.maximum.at(steps, unit, sorted_count)
    rows = np.zeros((total + 1, 2), np.uint16)
    rows[unit, side] = sorted_row * UNIT
    alone = np.flatnonzero((rank == 1) & (odd == 1))
    rows[unit[alone], 0] = sorted_row[alone] * UNIT
    unit_start = np.cumsum(steps) - steps
    # Where each nonzero goes.
    destination = np.empty(len(starts), np.int64)
    destination[order] = unit_start[unit] * 2 + side
    target = np.repeat(destination, count) + place * 2
    stored = 2 * int(steps.sum())
    offsets, weights = np.zeros(stored, np.uint16), np.zeros(stored, np.float32)
    offsets[target] = column % COLUMNS * UNIT
    weights[target] = values[row, column]
    # Runs of units with one number of steps, in one cell.
    cells = -(-row_blocks // GROUP) * column_blocks * GROUP
    units = np.bincount(cell, minlength=cells)
    units = (units + 1) // 2
    unit_cell = np.repeat(np.arange(cells), units)
    begins = np.flatnonzero((np.diff(unit_cell, prepend=-1) != 0) | (np.diff(steps, prepend=-1) != 0))
    runs = np.stack([np.diff(begins, append=total), steps[begins]], 1).astype(np.int32).reshape(-1, 2)
    run_cell = unit_cell[begins]
    numbers = np.bincount(run_cell, minlength=cells)
    first_run, first_unit = np.cumsum(numbers) - numbers, np.cumsum(units) - units
    first_step = np.concatenate([np.cumsum(steps) - steps, [steps.sum()]])[first_unit]
    entries = np.stack([numbers, first_run * 8, first_unit * 4, first_step * 4, first_step * 8], 1)
    of_block = np.arange(row_blocks)
    at = (of_block[:, None] // GROUP * column_blocks + np.arange(column_blocks)) * GROUP + of_block[:, None] % GROUP
    return [runs, rows, offsets, weights], entries[at].astype(np.int64)
