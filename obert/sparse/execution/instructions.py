"""A program as instructions for the interpreter: what is done together, in which order, and where each value lies.

Between two attentions every operation is on one token at a time, so a tile of tokens goes through all of them while it
is near the processor: a *segment*. A value that a later segment reads has a place in the tile's lasting memory, any
other in the scratch memory. Places are counted in rows, one feature of a tile, and used again when a value is read no
more.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from obert.foundation.errors import UserError
from obert.sparse.execution.places import (
    ACTIVATE,
    ADD,
    AFFINE,
    ATTENTION,
    EMBED,
    FIRST,
    LINEAR,
    NORM,
    QUANTIZE,
    TILES,
    Instruction,
    Segment,
    Value,
    place,
)
from obert.sparse.program import (
    Activate,
    Add,
    Affine,
    Attention,
    Embed,
    Linear,
    Norm,
    Operation,
    Program,
    Rounding,
)

ROUNDED = ("gelu", "relu")  # what an integer product goes through on the way to 8 bits, in one step


@dataclass(eq=False)
class Schedule:
    """A program that is ready to be packed.

    Attributes:
        lasting: rows that a tile of each of the two streams keeps.
        scratch: rows that a tile needs while it goes through a segment.
        outputs: the values that the program's outputs are columns of, by name.
        eight_bits: whether linear layers and attention are of integers.
    """

    segments: list[Segment]
    lasting: tuple[int, int]
    scratch: int
    outputs: dict[str, Value]
    eight_bits: bool


def schedule(program: Program, rows_of_four: int) -> Schedule:
    """Order and fuse the operations of a program.

    Args:
        rows_of_four: rows that four features take as 8-bit integers, 1 or 2, by what the processor multiplies.

    Raises:
        UserError: some products are in 8 bits and others are not.
    """
    products = [op for op in program.operations if isinstance(op, Linear | Attention)]
    rounded = {(op.weight.rounding if isinstance(op, Linear) else op.roundings) is not None for op in products}
    if len(rounded) != 1:
        raise UserError("the sparse engine takes models whose products are all in float32, or all in 8 bits")
    builder = _Builder(program)
    for operation in program.operations:
        builder.add(operation)
    kept = {output.x: builder.float_of(output.x) for output in program.outputs}
    lasting, scratch = place(builder.segments, list(kept.values()), rows_of_four)
    return Schedule(builder.segments, lasting, scratch, kept, rounded.pop())


class _Builder:
    """Instructions as they are made, operation by operation."""

    def __init__(self, program: Program):
        self.segments: list[Segment] = []
        self.values: dict[str, Value] = {}
        self.sums: dict[str, tuple[str, str]] = {}  # additions that wait for what reads them
        self.activations: dict[str, Activate] = {}  # likewise
        self.roundings: dict[tuple[str, Rounding], Value] = {}
        self.uses: dict[str, int] = defaultdict(int)
        self.readers: dict[str, set[Rounding | None]] = defaultdict(set)  # how those round a value that read it
        for operation in program.operations:
            for name in _reads(operation):
                self.uses[name] += 1
                self.readers[name].add(operation.weight.rounding if isinstance(operation, Linear) else None)
        for output in program.outputs:
            self.uses[output.x] += 1
            self.readers[output.x].add(None)

    def add(self, operation: Operation) -> None:
        """Make the instructions of an operation, or keep it until its reader comes."""
        out = operation.out
        if isinstance(operation, Embed):
            widths = [lookup.table.shape[1] for lookup in operation.lookups]
            value = Value(sum(widths) if operation.joined else widths[0], 0)
            self._emit(EMBED, operation, None, out, value)
        elif isinstance(operation, Linear):
            self._linear(operation)
        elif isinstance(operation, Add):
            self.sums[out] = operation.x, operation.y
            if self.uses[out] != 1:
                self.float_of(out)
        elif isinstance(operation, Norm):
            x, y = self._sum_of(operation.x)
            self._emit(NORM, operation, x, out, Value(x.features, x.stream), y)
        elif isinstance(operation, Affine):
            x = self.float_of(operation.x)
            self._emit(AFFINE, operation, x, out, Value(x.features, x.stream))
        elif isinstance(operation, Activate):
            self.activations[out] = operation
            if self.uses[out] != 1:
                self.float_of(out)
        elif isinstance(operation, Attention):
            read = [operation.query, operation.key, operation.value]
            if operation.roundings is None:
                operands = tuple(self.float_of(name) for name in read)
            else:
                query, key, _, value = operation.roundings
                operands = tuple(map(self._rounded, read, (query, key, value)))
            self.values[out] = value = Value(operands[2].features, 0)
            if len(self.readers[out]) == 1 and value.features // operation.heads % 4 == 0:
                (value.rounding,) = self.readers[out]  # heads then lie in whole blocks of four features
                self.roundings[out, value.rounding] = value
            self.segments.append(Segment(ATTENTION, 0, attention=operation, operands=operands, out=value))
        else:
            x = self.float_of(operation.x)
            self.values[out] = value = Value(x.features, 1)
            self.segments.append(Segment(FIRST, 0, operands=(x,), out=value))

    def float_of(self, name: str) -> Value:
        """A value as float32, made now if it is not there yet."""
        if name in self.sums:
            operation = Add(name, *self.sums.pop(name))
            x, y = self._terms(operation.x, operation.y)
            if y is None:
                self.values[name] = x
            else:
                self._emit(ADD, operation, x, name, Value(x.features, x.stream), y)
        elif name in self.activations:
            operation = self.activations.pop(name)
            x = self._operand(operation.x)
            self._emit(ACTIVATE, operation, x, name, Value(x.features, x.stream), activation=operation.kind)
        elif self.values[name].scale is not None:
            x = self.values[name]
            self._emit(ACTIVATE, Activate(name, name, "none"), x, name, Value(x.features, x.stream))
        return self.values[name]

    def _operand(self, name: str) -> Value:
        """A value as float32, or as int32 where a product left it so."""
        return self.float_of(name) if name in self.sums or name in self.activations else self.values[name]

    def _sum_of(self, name: str) -> tuple[Value, Value | None]:
        """The two terms of a sum that nobody else reads, the first perhaps in int32; or a value alone."""
        return self._terms(*self.sums.pop(name)) if name in self.sums else (self._operand(name), None)

    def _terms(self, one: str, other: str) -> tuple[Value, Value | None]:
        """Two values, of which the first may be in int32; or one alone, if the product that makes it adds the other."""
        x, y = self._operand(one), self._operand(other)
        for name, product, added in ((one, x, y), (other, y, x)):
            if self.uses[name] == 1 and added.scale is None and self._adds(product, added):
                return product, None
        if y.scale is not None:
            x, y, other = y, x, one
        return x, y if y.scale is None else self.float_of(other)

    def _adds(self, product: Value, added: Value) -> bool:
        """Whether the last instruction makes this product in float32; then it adds the other value as well."""
        last = self.segments[-1].instructions[-1] if self.segments[-1].instructions else None
        if last is None or last.code != LINEAR or last.out is not product or product.scale is not None:
            return False
        last.y = added
        return True

    def _linear(self, operation: Linear) -> None:
        weight = operation.weight
        rounding = weight.rounding
        x = self.float_of(operation.x) if rounding is None else self._rounded(operation.x, rounding)
        scale = None if weight.scale is None else float(weight.scale)
        self._emit(LINEAR, operation, x, operation.out, Value(len(weight.values), x.stream, scale))

    def _rounded(self, name: str, rounding: Rounding) -> Value:
        """A value in 8 bits, made once for all that read it so."""
        key = name, rounding
        if key not in self.roundings:
            activation, waiting = None, self.activations.get(name)
            if waiting and waiting.kind in ROUNDED and self._operand(waiting.x).scale is not None:
                del self.activations[name]
                activation, x = waiting.kind, self._operand(waiting.x)
            else:
                x = self._operand(name)
            value = Value(x.features, x.stream, rounding=rounding)
            self._instruction(QUANTIZE, Activate(name, name, activation or "none"), x, value, None, activation)
            self.roundings[key] = value
        return self.roundings[key]

    def _emit(self, code: int, operation: Operation, x: Value | None, name: str, out: Value, y=None, activation=None):
        self.values[name] = out
        self._instruction(code, operation, x, out, y, activation)

    def _instruction(self, code, operation, x, out, y, activation) -> None:
        if not self.segments or self.segments[-1].kind != TILES or self.segments[-1].stream != out.stream:
            self.segments.append(Segment(TILES, out.stream))
        self.segments[-1].instructions.append(Instruction(code, operation, x, out, y, activation))


def _reads(operation: Operation) -> list[str]:
    if isinstance(operation, Embed):
        return []
    if isinstance(operation, Attention):
        return [operation.query, operation.key, operation.value]
    return [operation.x, operation.y] if isinstance(operation, Add) else [operation.x]
