"""Products of four 8-bit activations and four 8-bit weights, added to int32 lanes, exact on every processor.

`vnni512` and `vnni256` multiply uint8 by int8 in one instruction. `pmaddwd` (AVX2) takes pairs of int16, which never
saturate. `plain` is the same in operations that LLVM knows for every processor. Without VNNI activations are int16.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from obert.sparse import processor
from obert.sparse.vectors import (
    I8,
    I16,
    I32,
    I64,
    emit_load,
    emit_splat,
)

DOT = processor.dot
BYTES = DOT.startswith("vnni")  # activations are uint8 with their zero point, else int16 without it
WEIGHT = np.int8 if BYTES else np.int16
BLOCK = 4  # neighbouring columns whose weights are multiplied at once
REGISTER = {"vnni512": 16, "vnni256": 8, "pmaddwd": 8, "plain": 4}[DOT]  # int32 lanes


def _pieces(builder: ir.IRBuilder, vector: ir.Value) -> list[ir.Value]:
    """A vector cut into registers."""
    undefined = ir.Constant(vector.type, ir.Undefined)
    indices = ir.VectorType(I32, REGISTER)
    return [
        builder.shuffle_vector(vector, undefined, ir.Constant(indices, list(range(first, first + REGISTER))))
        for first in range(0, vector.type.count, REGISTER)
    ]


def _joined(builder: ir.IRBuilder, parts: list[ir.Value]) -> ir.Value:
    """The vector whose registers these are."""
    while len(parts) > 1:
        size = 2 * parts[0].type.count
        mask = ir.Constant(ir.VectorType(I32, size), list(range(size)))
        parts = [builder.shuffle_vector(*parts[i : i + 2], mask) for i in range(0, len(parts), 2)]
    return parts[0]


def _vnni(builder: ir.IRBuilder, sum_: ir.Value, x: ir.Value, weights: ir.Value) -> ir.Value:
    octets = ir.VectorType(I8, REGISTER * 4)
    signature = ir.FunctionType(sum_.type, [sum_.type, octets, octets])
    function = get_or_insert_function(builder.module, signature, f"llvm.x86.avx512.vpdpbusd.{REGISTER * 32}")
    return builder.call(function, [sum_, builder.bitcast(x, octets), builder.bitcast(weights, octets)])


def _pmaddwd(builder: ir.IRBuilder, sum_: ir.Value, x: ir.Value, weights: ir.Value) -> ir.Value:
    words = ir.VectorType(I16, REGISTER * 2)
    signature = ir.FunctionType(sum_.type, [words, words])
    function = get_or_insert_function(builder.module, signature, "llvm.x86.avx2.pmadd.wd")
    product = builder.call(function, [builder.bitcast(x, words), builder.bitcast(weights, words)])
    return builder.add(sum_, product)


def _plain(builder: ir.IRBuilder, sum_: ir.Value, x: ir.Value, weights: ir.Value) -> ir.Value:
    shift = ir.Constant(sum_.type, [16] * REGISTER)
    for half in ("low", "high"):
        a, w = (builder.ashr(builder.shl(v, shift) if half == "low" else v, shift) for v in (x, weights))
        sum_ = builder.add(sum_, builder.mul(a, w))
    return sum_


_MULTIPLY = {"vnni512": _vnni, "vnni256": _vnni, "pmaddwd": _pmaddwd, "plain": _plain}[DOT]


@intrinsic
def block_bytes(typingctx, kind):
    """Bytes of four features of a tile: [T][4] uint8, or [2][T][2] int16."""
    return types.int64(kind), lambda c, b, s, a: I64(kind.lanes * 4 * np.dtype(WEIGHT).itemsize)


@intrinsic
def dot(typingctx, sums, activations, weights):
    """sums + the products of four features of a tile, at an address, with four weights, at another."""

    def code(c, b, s, a):
        parts, lanes = _pieces(b, a[0]), sums.lanes
        vector = ir.VectorType(I32, REGISTER)
        for pair in range(1 if BYTES else 2):
            weight = emit_splat(b, emit_load(b, b.add(a[2], I64(pair * 4)), I32), REGISTER)
            for n, part in enumerate(parts):
                x = emit_load(b, b.add(a[1], I64((pair * lanes + n * REGISTER) * 4)), vector)
                parts[n] = _MULTIPLY(b, part, x, weight)
        return _joined(b, parts)

    return sums(sums, types.int64, types.int64), code
