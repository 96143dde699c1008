"""Weights of a linear layer in 8 bits, as the kernel reads them.

A matrix is cut into blocks of rows and strips of columns, whose activations stay in the processor's nearest cache. Four
neighbouring columns of a row are a block of weights, and blocks of zeros are left out. Rows are sorted by how many they
have and taken by fours (by twos, where registers are few): a unit. Two rows of it share the activations of blocks that
both have; of the others each row reads its own.
"""

from __future__ import annotations

import numpy as np

from obert.sparse import dots
from obert.sparse.arrays import keep
from obert.sparse.program import Weight

ROWS = 128  # of a block
COLUMNS = 768 // dots.WORDS  # of a strip: 24 KiB for 32 tokens
# Of a block, in the table: its strip's first block of columns, how many units; addresses of units, biases, and columns
# and weights, first those that rows share, then their own.
FIELDS = 8


class PackedLinear8:
    """A linear layer as `linear8` reads it.

    Attributes:
        address: of its table: how many strips; then the FIELDS of each block of rows, strip by strip.
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
        bias = bias.astype(np.int32)  # sums are exact modulo 2**32
        self._arrays: list[np.ndarray] = []
        strips = range(0, max(columns, 1), COLUMNS)
        table = [len(strips)]
        for row in range(0, rows, ROWS):
            of_rows = slice(row, row + ROWS)
            for strip in strips:
                used = bias[of_rows] if strip == 0 else np.zeros_like(bias[of_rows])
                arrays = [keep(array) for array in _packed(values[of_rows, strip : strip + COLUMNS], used, row)]
                table += [strip // dots.BLOCK, len(arrays[1]) // dots.ROWS, *(array.ctypes.data for array in arrays)]
                self._arrays += arrays
        self.blocks = -(-rows // ROWS)
        self._table = keep(table, np.int64)
        self.address = self._table.ctypes.data
        self.nbytes = self._table.nbytes + sum(array.nbytes for array in self._arrays)


def _packed(values: np.ndarray, bias: np.ndarray, first: int) -> tuple[np.ndarray, ...]:
    """The arrays of a block, whose first row is `first`."""
    blocks = values.reshape(len(values), -1, dots.BLOCK)
    used = (blocks != 0).any(2)
    order = np.argsort(used.sum(1), kind="stable")
    order = np.append(order, np.repeat(order[-1:], -len(order) % dots.ROWS))  # computed again, to the same place
    blocks, used, bias = blocks[order], used[order], bias[order]

    both = used.reshape(-1, 2, used.shape[1]).all(1)
    shared = both.sum(1).reshape(-1, dots.ROWS // 2).min(1)
    both &= both.cumsum(1) <= np.repeat(shared, dots.ROWS // 2)[:, None]
    own = used & ~np.repeat(both, 2, 0)
    single = own.sum(1).reshape(-1, dots.ROWS).max(1)
    found = np.argsort(np.where(own, 1, 2) - 2 * np.repeat(both, 2, 0), axis=1, kind="stable")

    units = np.lexsort((shared, single))
    numbers = (order + first).reshape(-1, dots.ROWS)[units]
    listed = np.concatenate([shared[units, None], single[units, None], numbers], 1)
    parts: list[np.ndarray] = []
    for kind, steps in (("shared", shared), ("own", single)):
        start = np.repeat(shared, dots.ROWS)[:, None] if kind == "own" else 0
        places = np.minimum(start + np.arange(steps.max()), used.shape[1] - 1)
        columns = np.take_along_axis(found, np.broadcast_to(places, (len(found), steps.max())), 1)
        weights = np.take_along_axis(blocks, columns[..., None], 1)
        if kind == "own":
            live = np.arange(steps.max()) < own.sum(1)[:, None]
            weights = np.where(live[..., None], weights, 0)
        picked = np.arange(steps.max()) < steps[units, None]
        every = 2 if kind == "shared" else 1
        parts += [
            _by_steps(columns[::every] * dots.UNIT, units, picked).astype(np.uint16),
            _by_steps(weights, units, picked).astype(dots.WEIGHT),
        ]
    padded = np.append(listed, np.zeros((1, listed.shape[1]), int), 0)  # the kernel looks one unit ahead
    return padded.astype(np.uint16), bias.reshape(-1, dots.ROWS)[units].ravel(), *parts


def _by_steps(values: np.ndarray, units: np.ndarray, picked: np.ndarray) -> np.ndarray:
    """[rows, steps, ...] unit by unit, step by step of those picked, row by row."""
    of_units = values.reshape(len(units), len(values) // len(units), *values.shape[1:])[units]
    return of_units.swapaxes(1, 2)[picked]
