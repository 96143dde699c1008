"""Memory for one call of a model, and how its work is cut into pieces."""

from __future__ import annotations

import math

import numpy as np

from obert.sparse.execution import interpreter as at
from obert.sparse.execution.layout import Layout
from obert.sparse.execution.places import PARTS
from obert.sparse.execution.threads import Team
from obert.sparse.execution.tokens import COLUMN, Stream
from obert.sparse.kernels import attention, attention8
from obert.sparse.kernels.arrays import CACHE_LINE, aligned
from obert.sparse.kernels.bounds import raise_if_violated
from obert.sparse.kernels.cache import announce
from obert.sparse.kernels.processor import lanes as widest
from obert.sparse.kernels.vectors import Kind
from obert.sparse.program import Output

# Relative time of a token in tiles of so many: a narrow tile uses each weight for fewer of them, and of 8-bit integers
# those of more than 32 are not near the processor for as long.
_COSTS = {64: 1.0, 32: 1.25, 16: 1.9}
_COSTS_OF_8_BITS = {32: 1.0, 16: 1.2}
_SPLIT_COST = 1.15  # of instructions that threads share, for waiting and for what is not split
_QUERIES = 2 * COLUMN  # that attention takes at once
_FEWEST_ITEMS = 4  # attentions a thread, below which queries are shared between threads


class Run:
    """Memory for one call at a time."""

    def __init__(self, layout: Layout):
        self._layout = layout
        self._memory: dict[str, np.ndarray] = {}
        self._job = aligned(at.JOB // 8, np.int64)
        self._lanes = 0

    def compute(self, team: Team, batch: Stream, indices: list[np.ndarray], measured: bool) -> None:
        """Run all segments on a batch; `indices`: rows of each table, [places]."""
        layout, places = self._layout, len(batch.source)
        lanes, split = _cut(places, team.threads, _COSTS_OF_8_BITS if layout.eight_bits else _COSTS)
        row = 4 * lanes
        tiles, sequence_tiles = -(-places // lanes), -(-len(batch.starts) // lanes)
        self._lanes = lanes
        padded = np.full((max(1, len(indices)), tiles * lanes), -1, np.int64)
        for number, index in enumerate(indices):
            padded[number, :places] = index
        scratch_stride = max(1, layout.scratch) * row
        needed = attention8.scratch_bytes if layout.eight_bits else attention.scratch_bytes
        attention_stride = -(-needed(int(batch.kept.max()), layout.head_size) // CACHE_LINE) * CACHE_LINE
        items = len(batch.starts) * layout.heads
        queries = -(-int(batch.kept.max()) // _QUERIES)
        chunks = min(queries, max(1, _FEWEST_ITEMS * team.threads // items)) if team.threads > 1 else 1
        chunk = -(-queries // chunks) * _QUERIES
        scratches = max(team.threads, tiles if split else 0, sequence_tiles)
        counters = self._array("counters", 16, np.int64)
        counters[:] = 0
        self._ticks = self._array("ticks", len(PARTS), np.int64)
        self._ticks[:] = 0
        addresses = {
            at.J_SEGMENTS: layout.segments.ctypes.data,
            at.J_SEGMENT_COUNT: len(layout.segments),
            at.J_INSTRUCTIONS: layout.instructions.ctypes.data,
            at.J_COUNTERS: counters.ctypes.data,
            at.J_SPLIT: split,
            at.J_TILES: tiles,
            at.J_SEQUENCE_TILES: sequence_tiles,
            at.J_LASTING: self._bytes("lasting", tiles * layout.lasting[0] * row),
            at.J_LASTING_STRIDE: layout.lasting[0] * row,
            at.J_SEQUENCE_LASTING: self._bytes("sequences", sequence_tiles * layout.lasting[1] * row),
            at.J_SEQUENCE_STRIDE: layout.lasting[1] * row,
            at.J_SCRATCH: self._bytes("scratch", scratches * scratch_stride),
            at.J_SCRATCH_STRIDE: scratch_stride,
            at.J_ATTENTION: self._bytes("attention", team.threads * attention_stride),
            at.J_ATTENTION_STRIDE: attention_stride,
            at.J_INDICES: self._copied("indices", padded),
            at.J_TOKENS: padded.shape[1],
            at.J_SEQUENCES: len(batch.starts),
            at.J_STARTS: self._copied("starts", batch.starts),
            at.J_KEPT: self._copied("kept", batch.kept),
            at.J_MASKED: self._copied("masked", batch.masked.astype(np.int64)),
            at.J_MASK: 0 if batch.mask is None else self._copied("mask", batch.mask),
            at.J_CHUNK: chunk,
            at.J_CHUNKS: chunks,
            at.J_TICKS: self._ticks.ctypes.data if measured else 0,
        }
        for column, value in addresses.items():
            self._job[column // 8] = value
        kind = Kind(lanes, layout.eight_bits)
        announce(f"{'8-bit' if layout.eight_bits else 'float32'} tiles of {lanes} tokens")
        team.run(lambda thread: at.work(kind, self._job.ctypes.data, thread))
        raise_if_violated()

    def output(self, output: Output, batch: Stream) -> np.ndarray:
        """What the last call has left of an output."""
        value = self._layout.outputs[output.x]
        rows = self._layout.lasting[value.stream]
        name = "sequences" if value.stream else "lasting"
        tiles = -(-(len(batch.starts) if value.stream else len(batch.source)) // self._lanes)
        memory = self._memory[name][: tiles * rows * self._lanes * 4].view(np.float32).reshape(tiles, rows, self._lanes)
        found = memory[:, value.place + output.start : value.place + output.stop]
        found = np.moveaxis(found, 1, 2).reshape(-1, output.stop - output.start)
        found = found[: len(batch.starts)] if value.stream else batch.scatter(found[: len(batch.source)])
        found = found.copy()  # a single column would be a view of what the next call overwrites
        return found[..., 0] if output.squeezed else found

    def seconds_by_part(self, seconds: float) -> dict[str, float]:
        """A call's seconds by what they were spent on, in the proportion of the threads' ticks."""
        shares = self._ticks / max(1, self._ticks.sum())
        return dict(zip(PARTS, (seconds * shares).tolist(), strict=True)) | {"total": seconds}

    def _array(self, name: str, size: int, dtype: type) -> np.ndarray:
        """An array of at least that size, kept from call to call."""
        if name not in self._memory or self._memory[name].size < size:
            self._memory[name] = aligned(size, dtype)
        return self._memory[name]

    def _bytes(self, name: str, size: int) -> int:
        return self._array(name, size, np.uint8).ctypes.data

    def _copied(self, name: str, values: np.ndarray) -> int:
        array = self._array(name, values.size, values.dtype.type)
        array[: values.size] = values.ravel()
        return array.ctypes.data


def _cut(places: int, threads: int, costs: dict[int, float]) -> tuple[int, bool]:
    """Tokens of a tile, and whether threads share its instructions, for the least time by a simple model of it."""
    best = (math.inf, COLUMN, False)
    for lanes, cost in costs.items():
        if lanes > widest():
            continue
        tiles = -(-places // lanes)
        whole = -(-tiles // threads) * lanes * cost
        shared = tiles * lanes * cost / threads * _SPLIT_COST
        best = min(best, (whole, lanes, False), *([(shared, lanes, True)] if threads > 1 else []))
    return best[1], best[2]
