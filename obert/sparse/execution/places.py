"""Instructions for the interpreter, and where in memory each value lies that they read and write.

A value that a later segment reads has a place in the tile's lasting memory, any other in the scratch memory. Places are
counted in rows, one feature of a tile, and are used again when a value has been read for the last time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from obert.sparse.program import Attention, Operation, Rounding

# Segments
TILES, ATTENTION, FIRST = range(3)
# Instructions
EMBED, LINEAR, NORM, AFFINE, ADD, ACTIVATE, QUANTIZE = range(7)
PARTS = ("embeddings", "linear", "norm", "affine", "add", "activation", "rounding", "attention")
_IN_PLACE = (NORM, AFFINE, ADD, ACTIVATE)  # what writes a row after it has read it for the last time


@dataclass(eq=False)
class Value:
    """A matrix of one tile.

    Attributes:
        features: how many rows of float32 it has, or of int32 if `scale` is what its units are worth.
        stream: 0 if its columns are tokens, 1 if they are sequences.
        rounding: where it holds 8-bit integers.
        place: its first row; of the tile's lasting memory or of the scratch memory.
    """

    features: int
    stream: int
    scale: float | None = None
    rounding: Rounding | None = None
    lasting: bool = False
    place: int = 0


@dataclass(eq=False)
class Instruction:
    """One operation on a tile, as fused.

    Attributes:
        code: one of the constants above.
        source: the operation of the program that it does last.
        x, y: what it reads: y is added to x, where it is not None.
        out: what it writes.
        activation: of x before it is rounded.
    """

    code: int
    source: Operation
    x: Value | None
    out: Value
    y: Value | None = None
    activation: str | None = None


@dataclass(eq=False)
class Segment:
    """Instructions that each tile goes through, or one attention, or the taking of first tokens."""

    kind: int
    stream: int
    instructions: list[Instruction] = field(default_factory=list)
    attention: Attention | None = None
    operands: tuple[Value, ...] = ()
    out: Value | None = None


class _Memory:
    """Rows that are taken and given back; the lowest that will do are taken."""

    def __init__(self):
        self.rows = 0
        self._taken: dict[int, int] = {}

    def take(self, size: int) -> int:
        start = 0
        for place, other in sorted(self._taken.items()):
            if start + size <= place:
                break
            start = place + other
        self._taken[start] = size
        self.rows = max(self.rows, start + size)
        return start

    def give(self, place: int) -> None:
        del self._taken[place]


def place(segments: list[Segment], kept: list[Value], rows_of_four: int) -> tuple[tuple[int, int], int]:
    """Give every value its place.

    Args:
        kept: values that are read at the end.
        rows_of_four: rows that four features take as 8-bit integers.

    Returns:
        How many rows the tiles of each stream keep, and how many rows of scratch memory there are.
    """
    steps: list[tuple[int, list[Value], Value, bool]] = []
    for number, segment in enumerate(segments):
        if segment.kind == TILES:
            for instruction in segment.instructions:
                read = [value for value in (instruction.x, instruction.y) if value is not None]
                steps.append((number, read, instruction.out, instruction.code in _IN_PLACE))
        else:
            steps.append((number, list(segment.operands), segment.out, False))
    last: dict[Value, int] = {}
    written: dict[Value, int] = {}
    for time, (number, read, out, _) in enumerate(steps):
        tiles = segments[number].kind == TILES
        written[out] = number
        last.update(dict.fromkeys((*read, out), time))
        out.lasting |= not tiles
        for value in read:
            value.lasting |= written[value] != number or not tiles
    for value in kept:
        last[value], value.lasting = len(steps), True
    memories = {0: _Memory(), 1: _Memory(), "scratch": _Memory()}
    for time, (_, read, out, in_place) in enumerate(steps):
        done = [value for value in dict.fromkeys((*read, out)) if last[value] == time]
        heir = next((v for v in done if in_place and v is not out and _alike(v, out)), None)
        if heir is not None:
            out.place = heir.place
            done.remove(heir)
        else:
            size = -(-out.features // 4) * rows_of_four if out.rounding else out.features
            out.place = memories[_memory_of(out)].take(size)
        for value in done:
            memories[_memory_of(value)].give(value.place)
    return (memories[0].rows, memories[1].rows), memories["scratch"].rows


def _memory_of(value: Value) -> int | str:
    return value.stream if value.lasting else "scratch"


def _alike(one: Value, other: Value) -> bool:
    return one.features == other.features and _memory_of(one) == _memory_of(other)
