"""An ONNX file read without the onnx package: nodes, constants, inputs and outputs, and nothing else.

ONNX is protobuf, https://protobuf.dev/programming-guides/encoding: a message is a run of fields, each a key (number and
wire type) and a value. The numbers below are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. Of a
message within a message only those are read that have a meaning here, so nothing recurses, however deep a file nests.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from obert.foundation.errors import UserError

TYPES = {
    1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_,
    10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64,
}  # fmt: skip
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Fields of a tensor that hold its elements: number, and how they lie there; None where they are varints.
_FLOATS, _INTEGERS, _LONGS, _DOUBLES, _UNSIGNED = 4, 5, 7, 10, 11
_STORED = {_FLOATS: "<f4", _INTEGERS: None, _LONGS: None, _DOUBLES: "<f8", _UNSIGNED: None}


@dataclass(frozen=True, eq=False)
class Node:
    """An operator; `kind` has its domain before it where that is none of ONNX's own. Inputs left out are ''."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute]


Attribute = int | float | str | np.ndarray | tuple[int, ...] | tuple[float, ...]


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """What a file says.

    Attributes:
        nodes: in the order in which they run.
        constants: by name; read-only, mapped from the file where it stores them as they are, and then not aligned.
        inputs: names of what the caller gives.
        opset: version of ONNX's own operators.
        size: of the file, in bytes.
    """

    path: Path
    nodes: tuple[Node, ...]
    constants: dict[str, np.ndarray]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    size: int


def load(path: Path) -> OnnxFile:
    """Read a file, and map its weights.

    Raises:
        UserError: it cannot be read, or is no ONNX model with its weights inside.
    """
    path = Path(path)
    try:
        if not path.is_file():  # and no pipe, which would be waited for
            raise UserError(f"{path} is no file: give an exported ONNX model")
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if not size:
                raise _Malformed("it is empty")
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return _model(path, mapped)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except _Malformed as error:
        raise UserError(
            f"{path} is not a readable ONNX model: {error}. Give a complete file, with its weights inside"
        ) from None


def shown(name: str) -> str:
    """A name from a file as a message may show it: on one line, and not too long."""
    return " ".join(name.split())[:200]


class _Malformed(Exception):
    """What is wrong with a file."""


class _Field(NamedTuple):
    """Of a message: `value` is an integer (of varints), or the bytes of anything else."""

    number: int
    wire: int
    value: int | memoryview

    def integer(self) -> int:
        """A varint as ONNX means it: int64 in two's complement."""
        if self.wire != _VARINT:
            raise _Malformed(f"field {self.number} is no integer")
        return self.value - (1 << 64) if self.value >> 63 else self.value

    def bytes(self) -> memoryview:
        """The content of a string, of packed numbers, or of a message."""
        if self.wire != _BYTES:
            raise _Malformed(f"field {self.number} is no string of bytes")
        return self.value

    def text(self) -> str:
        """A string of UTF-8."""
        try:
            return str(self.bytes(), "utf-8")
        except UnicodeDecodeError:
            raise _Malformed(f"field {self.number} is no text") from None

    def number32(self) -> float:
        """A float."""
        if self.wire != _FIXED32:
            raise _Malformed(f"field {self.number} is no float")
        return struct.unpack("<f", self.value)[0]


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """An integer, and where what follows it begins."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _Malformed("it ends too early")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & ((1 << 64) - 1), at
    raise _Malformed("an integer has more than 64 bits")


def _fields(data: memoryview) -> Iterator[_Field]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if not number:
            raise _Malformed("a field has number 0")
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield _Field(number, wire, value)
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise _Malformed(f"a field has wire type {wire}")
        if size > len(data) - at:
            raise _Malformed("it ends too early")
        yield _Field(number, wire, data[at : at + size])
        at += size


def _model(path: Path, data: memoryview) -> OnnxFile:
    graphs, opsets = [], []
    for field in _fields(data):
        if field.number == 7:
            graphs.append(field.bytes())
        elif field.number == 8:
            domain, version = "", 0
            for part in _fields(field.bytes()):
                if part.number == 1:
                    domain = part.text()
                elif part.number == 2:
                    version = part.integer()
            if domain in _OWN:
                opsets.append(version)
    if len(graphs) != 1 or not opsets:
        raise _Malformed("it has no graph" if not graphs else "it has several graphs or no opset")
    nodes, constants, inputs, outputs = [], {}, [], []
    for field in _fields(graphs[0]):
        if field.number == 1:
            nodes.append(_node(field.bytes()))
        elif field.number == 5:
            name, array = _tensor(field.bytes())
            constants[name] = array
        elif field.number in (11, 12):
            declared = [part.text() for part in _fields(field.bytes()) if part.number == 1]
            (inputs if field.number == 11 else outputs).extend(declared)
        elif field.number == 15:
            raise _Malformed("it has a sparse initializer")
    given = tuple(name for name in inputs if name not in constants)
    return OnnxFile(path, tuple(nodes), constants, given, tuple(outputs), max(opsets), len(data))


_OWN = ("", "ai.onnx")


def _node(data: memoryview) -> Node:
    inputs, outputs, name, kind, domain, attributes = [], [], "", "", "", {}
    for field in _fields(data):
        match field.number:
            case 1:
                inputs.append(field.text())
            case 2:
                outputs.append(field.text())
            case 3:
                name = field.text()
            case 4:
                kind = field.text()
            case 5:
                attributes |= _attribute(field.bytes())
            case 7:
                domain = field.text()
    kind = kind if domain in _OWN else f"{domain}.{kind}"
    return Node(kind, name, tuple(inputs), tuple(outputs), attributes)


def _attribute(data: memoryview) -> dict[str, Attribute]:
    """By name its value; without one if it is of a kind that no operator here has, such as a graph."""
    name, value, floats, integers, kind = "", None, [], [], 0
    for field in _fields(data):
        match field.number:
            case 1:
                name = field.text()
            case 2:
                value = field.number32()
            case 3:
                value = field.integer()
            case 4:
                value = str(field.bytes(), "utf-8", "replace")
            case 5:
                value = _tensor(field.bytes())[1]
            case 7:
                floats.append(_numbers(field, "<f4"))
            case 8:
                integers.append(_numbers(field, None))
            case 20:
                kind = field.integer()
    if kind in (6, 7):  # FLOATS, INTS: of no elements too
        value = tuple(np.concatenate([*(floats if kind == 6 else integers), np.zeros(0, np.int8)]).tolist())
    return {} if value is None else {name: value}


def _numbers(field: _Field, stored: str | None) -> np.ndarray:
    """Elements of a repeated field, packed or one alone. `stored` is how they lie there; None for varints."""
    if field.wire == _VARINT and stored is None:
        return np.array([field.integer()], np.int64)
    if stored is None:
        return _varints(field.bytes())
    item = np.dtype(stored).itemsize
    if field.wire not in (_BYTES, _FIXED32 if item == 4 else _FIXED64) or len(field.value) % item:
        raise _Malformed(f"field {field.number} holds no whole numbers of {item} bytes")
    return np.frombuffer(field.value, stored)


def _varints(data: memoryview) -> np.ndarray:
    """All integers of a run of varints, int64."""
    coded = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(coded < 128)
    if len(coded) and (not len(ends) or ends[-1] != len(coded) - 1):
        raise _Malformed("it ends too early")
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    lengths = ends - starts + 1
    if lengths.max(initial=0) > 10:
        raise _Malformed("an integer has more than 64 bits")
    values = np.zeros(len(ends), np.uint64)
    for place in range(lengths.max(initial=0)):
        longer = lengths > place
        values[longer] |= (coded[starts[longer] + place] & 127).astype(np.uint64) << np.uint64(7 * place)
    return values.view(np.int64)


def _tensor(data: memoryview) -> tuple[str, np.ndarray]:
    """Name and values of a tensor."""
    name, kind, dims, raw, typed, elsewhere = "", 0, [], None, [], False
    for field in _fields(data):
        if field.number == 1:
            dims.append(_numbers(field, None))
        elif field.number == 2:
            kind = field.integer()
        elif field.number == 8:
            name = field.text()
        elif field.number == 9:
            raw = field.bytes()
        elif field.number in _STORED:
            typed.append(_numbers(field, _STORED[field.number]))
        elif field.number in (3, 13) or (field.number == 14 and field.integer()):
            elsewhere = True
    where = f"tensor '{shown(name)}'"
    if elsewhere:
        raise _Malformed(f"{where} lies in another file")
    if kind not in TYPES:
        raise _Malformed(f"{where} has data type {kind}")
    shape = tuple(np.concatenate(dims).tolist()) if dims else ()
    kind = np.dtype(TYPES[kind])
    if min(shape, default=0) < 0 or len(shape) > 8 or math.prod(filter(None, shape)) >= 1 << 48:
        raise _Malformed(f"{where} has shape {shape}")
    if raw is not None:
        values = np.frombuffer(raw, kind) if len(raw) % kind.itemsize == 0 else None
    else:
        values = _as_stored(np.concatenate(typed) if typed else np.zeros(0, np.int64), kind)
    if values is None or values.size != math.prod(shape):
        raise _Malformed(f"{where} of shape {list(shape)} has not the bytes that it says")
    return name, values.reshape(shape)


def _as_stored(values: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Elements of typed fields in a tensor's own type: those of float16 are there by their bits."""
    if kind == np.float16:
        return values.astype(np.uint16).view(kind)
    return values.astype(kind)
