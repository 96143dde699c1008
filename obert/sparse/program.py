"""What an encoder computes, as a list of operations on named values; the engine runs it, the ONNX reader writes it.

A value is a matrix of float32, one row a token (`Tokens`) or one row a sequence, after `First`. Attention alone mixes
rows. Everything that an 8-bit graph rounds is rounded inside the operation that multiplies it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rounding:
    """uint8 integers of a float: round half to even of value / scale, plus zero_point, between 0 and 255."""

    scale: np.float32
    zero_point: int


@dataclass(frozen=True, eq=False)
class Weight:
    """A linear layer.

    Attributes:
        name: of the layer in PyTorch.
        values: [outputs, inputs], float32, or int8 in an integer graph.
        bias: [outputs], float32, or int32, in units of `scale`; zeros where the layer has none.
        rounding: of the inputs; None in float32.
        scale: of the integer product: that of the inputs times that of the weights; None in float32.
    """

    name: str
    values: np.ndarray
    bias: np.ndarray
    rounding: Rounding | None = None
    scale: np.float32 | None = None


@dataclass(frozen=True, eq=False)
class Lookup:
    """Rows of a table of float32, [entries, width], one for each token.

    Attributes:
        index: `words`, `types` (the inputs `input_ids` and `token_type_ids`), or `positions`; `first`: always row 0.
        shift: the row of the token that many places further on; zeros beyond the ends of the padded sequence.
    """

    table: np.ndarray
    index: str
    shift: int = 0


@dataclass(frozen=True, eq=False)
class Embed:
    """The sum of lookups, or, `joined`, their rows one after the other."""

    out: str
    lookups: tuple[Lookup, ...]
    joined: bool = False


@dataclass(frozen=True, eq=False)
class Linear:
    """out = weight values . x + bias."""

    out: str
    x: str
    weight: Weight


@dataclass(frozen=True, eq=False)
class Add:
    out: str
    x: str
    y: str


@dataclass(frozen=True, eq=False)
class Norm:
    """LayerNorm over features: (x - mean) / sqrt(variance + epsilon) * weight + bias."""

    out: str
    x: str
    weight: np.ndarray
    bias: np.ndarray
    epsilon: np.float32


@dataclass(frozen=True, eq=False)
class Affine:
    """x * weight + bias, feature by feature (MobileBERT's NoNorm)."""

    out: str
    x: str
    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class Activate:
    """`kind` is gelu (by erf), gelu_tanh, relu or tanh."""

    out: str
    x: str
    kind: str


@dataclass(frozen=True, eq=False)
class Attention:
    """softmax(scale * query . key + mask) . value, head by head; values have heads * head_size features.

    Attributes:
        roundings: of query, key, probabilities and value; None in float32.
    """

    out: str
    query: str
    key: str
    value: str
    heads: int
    scale: np.float32
    roundings: tuple[Rounding, Rounding, Rounding, Rounding] | None = None


@dataclass(frozen=True, eq=False)
class First:
    """Of each sequence the row of its first token."""

    out: str
    x: str


Operation = Embed | Linear | Add | Norm | Affine | Activate | Attention | First


@dataclass(frozen=True, eq=False)
class Output:
    """Columns [start, stop) of a value as an output of the file; without its last axis if `squeezed`."""

    name: str
    x: str
    start: int
    stop: int
    squeezed: bool = False


@dataclass(frozen=True, eq=False)
class Program:
    """An encoder with its head.

    Attributes:
        operations: each reads values that were made before.
        inputs: names of the inputs that the file declares.
        positions: how many a sequence may have; None if no table limits them.
        pad_token: where positions count the tokens that are none of this number, and begin after it (RoBERTa); else
            None, and positions count from 0.
    """

    operations: tuple[Operation, ...]
    outputs: tuple[Output, ...]
    inputs: tuple[str, ...]
    positions: int | None
    pad_token: int | None
