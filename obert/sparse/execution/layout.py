"""A schedule as the tables that the interpreter reads, with packed weights; and the memory that a run of it needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from obert.sparse.execution import interpreter as at
from obert.sparse.execution.instructions import Schedule
from obert.sparse.execution.places import (
    ADD,
    AFFINE,
    ATTENTION,
    EMBED,
    LINEAR,
    NORM,
    QUANTIZE,
    TILES,
    Instruction,
    Segment,
    Value,
)
from obert.sparse.kernels.arrays import keep
from obert.sparse.kernels.attention8 import attention_table
from obert.sparse.kernels.packing import PackedLinear
from obert.sparse.kernels.packing8 import PackedLinear8
from obert.sparse.kernels.pointwise import ACTIVATIONS
from obert.sparse.program import Embed, Weight

ROWS_A_PART = 64  # features that a thread takes at once of what is done feature by feature
_NO_VALUE = -1
_SMALLEST = float(np.finfo(np.float32).tiny)


class Layout:
    """Tables of segments and instructions, and all that they refer to.

    It keeps nothing of the program, whose weights are in the file's memory.

    Attributes:
        outputs, eight_bits, lasting, scratch: as in the schedule.
        segments, instructions: int64 tables of the columns that `interpreter` names.
        indices: of each row of a run's indices, in the tables' order: `words`, `types`, `positions` or `first`; shift;
            how many entries its table has.
        heads, head_size: of the attention that has most.
        nbytes: of the packed weights, biases, and tables of embeddings.
    """

    def __init__(self, schedule: Schedule, threads: int):
        self.outputs, self.eight_bits = schedule.outputs, schedule.eight_bits
        self.lasting, self.scratch = schedule.lasting, schedule.scratch
        self._threads = threads
        self.indices: list[tuple[str, int, int]] = []
        self.nbytes = 0
        self._kept: list[Any] = []
        self._tables: dict[int, np.ndarray] = {}
        attentions = [segment for segment in schedule.segments if segment.kind == ATTENTION]
        self.heads = max((segment.attention.heads for segment in attentions), default=1)
        self.head_size = max((s.out.features // s.attention.heads for s in attentions), default=1)
        rows: list[list[int]] = []
        segments = []
        for segment in schedule.segments:
            segments.append(self._segment(segment, len(rows)))
            rows += [self._instruction(instruction) for instruction in segment.instructions]
        self.segments = keep(segments, np.int64)
        self.instructions = keep(rows, np.int64)

    def _segment(self, segment: Segment, first: int) -> list[int]:
        row = [segment.kind, segment.stream, first, len(segment.instructions), 0, 0, 0, 0, 0, 0, 0]
        if segment.kind == TILES:
            return row
        operands = [_operand(value) for value in segment.operands]
        row[at.S_QUERY // 8 : at.S_QUERY // 8 + len(operands)] = operands
        row[at.S_OUT // 8] = _operand(segment.out)
        if segment.kind != ATTENTION:
            row[at.S_HEAD_SIZE // 8] = segment.out.features
            return row
        attention = segment.attention
        row[at.S_HEADS // 8] = attention.heads
        row[at.S_HEAD_SIZE // 8] = segment.out.features // attention.heads
        if attention.roundings is None:
            row[at.S_TABLE // 8] = self._keep([float(attention.scale)], np.float32)
        else:
            table = attention_table(attention, segment.out.rounding)
            self._kept.append(table)
            row[at.S_TABLE // 8] = table.ctypes.data
        return row

    def _instruction(self, instruction: Instruction) -> list[int]:
        x, y, out, source = instruction.x, instruction.y, instruction.out, instruction.source
        features, part, table, second, number = out.features, ROWS_A_PART, 0, 0, 0
        parts = -(-features // part)
        # A scale of 0 says that x is float32; one that is 0 itself is as good as the smallest.
        floats = [0.0 if x is None or x.scale is None else max(x.scale, _SMALLEST), 0.0, 0.0]
        if instruction.code == LINEAR:
            packed = self._packed(source.weight)
            features, parts, part, table = packed.blocks, packed.blocks, 1, packed.address
        elif instruction.code == NORM:
            parts = 1
            table, second = self._keep(source.weight, np.float32), self._keep(source.bias, np.float32)
            floats[1] = float(source.epsilon)
        elif instruction.code == AFFINE:
            table, second = self._keep(source.weight, np.float32), self._keep(source.bias, np.float32)
        elif instruction.code == EMBED:
            parts, part, number, second = 1, len(self.indices), int(source.joined), len(source.lookups)
            table = self._lookups(source)
        elif instruction.code == QUANTIZE:
            number, second = _number(instruction), out.rounding.zero_point
            floats[2] = float(np.float32(1) / np.float32(out.rounding.scale))
        elif instruction.code != ADD:
            number = _number(instruction)
        operands = [_NO_VALUE if value is None else _operand(value) for value in (x, y, out)]
        places = table, second, number, self._keep(floats, np.float32)
        return [instruction.code, parts, part, *operands, features, *places]

    def _packed(self, weight: Weight) -> PackedLinear | PackedLinear8:
        if weight.rounding is None:
            packed = PackedLinear(weight.values, weight.bias, self._threads)
        else:
            packed = PackedLinear8(weight)
        self._kept.append(packed)
        self.nbytes += packed.nbytes
        return packed

    def _lookups(self, operation: Embed) -> int:
        """A row for each lookup: address of its table, and features."""
        self.indices += [(lookup.index, lookup.shift, len(lookup.table)) for lookup in operation.lookups]
        rows = [[self._table(lookup.table), lookup.table.shape[1]] for lookup in operation.lookups]
        return self._keep(rows, np.int64)

    def _table(self, values: np.ndarray) -> int:
        """The address of a table of embeddings, which is kept once whatever looks it up."""
        if id(values) not in self._tables:
            self._tables[id(values)] = keep(values, np.float32)
            self.nbytes += self._tables[id(values)].nbytes
        return self._tables[id(values)].ctypes.data

    def _keep(self, values: Any, dtype: type) -> int:
        array = keep(values, dtype)
        self._kept.append(array)
        self.nbytes += array.nbytes
        return array.ctypes.data


def _operand(value: Value) -> int:
    return 2 * value.place + (not value.lasting)


def _number(instruction: Instruction) -> int:
    """Of the activation of an instruction, -1 if it has none."""
    return ACTIVATIONS.index(instruction.activation) if instruction.activation else -1
