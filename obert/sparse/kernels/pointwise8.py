"""Float32 or int32 rows of a tile to the 8-bit activations that `linear8` reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from obert.sparse.kernels.dots import REGISTER, block_bytes
from obert.sparse.kernels.gelu8 import emit_near_gelu
from obert.sparse.kernels.rounding8 import emit_activations
from obert.sparse.kernels.vectors import F32, I32, I64, constant, emit_load, emit_splat, jit, row_bytes

_STEP = REGISTER * 4  # bytes of a row at a time
_FLOATS, _INTEGERS = ir.VectorType(F32, REGISTER), ir.VectorType(I32, REGISTER)


def _packing(row_type: ir.Type, compute: Callable) -> Any:
    """An intrinsic that computes four rows of a register's tokens and packs them.

    Args:
        compute: (builder, row, scale, inverse): what is rounded.
    """

    @intrinsic
    def pack(typingctx, kind, first, second, third, fourth, scale, inverse, zero_point, address):
        def code(c, b, s, a):
            scale, inverse = (emit_splat(b, number, REGISTER) for number in a[5:7])
            values = [compute(b, emit_load(b, row, row_type), scale, inverse) for row in a[1:5]]
            emit_activations(b, a[8], I64(kind.lanes * 4), values, a[7])
            return c.get_dummy_value()

        i64, f32 = types.int64, types.float32
        return types.void(kind, i64, i64, i64, i64, f32, f32, i64, i64), code

    @jit
    def pack_rows(V, x, features, scale, inverse, zero_point, out):
        row = row_bytes(V)
        for f in range(0, features, 4):
            p = x + f * row
            q = p + min(1, features - 1 - f) * row  # features beyond the last have weights 0
            r = p + min(2, features - 1 - f) * row
            s = p + min(3, features - 1 - f) * row
            block = out + f // 4 * block_bytes(V)
            for t in range(0, row, _STEP):
                pack(V, p + t, q + t, r + t, s + t, scale, inverse, zero_point, block + t)

    return pack_rows


def _emit_scaled(b: ir.IRBuilder, x: ir.Value, scale: ir.Value, inverse: ir.Value) -> ir.Value:
    return b.fmul(b.fmul(b.sitofp(x, _FLOATS), scale), inverse)


def _emit_gelu(b: ir.IRBuilder, x: ir.Value, scale: ir.Value, inverse: ir.Value) -> ir.Value:
    return emit_near_gelu(b, b.sitofp(x, _FLOATS), scale, inverse)


def _emit_relu(b: ir.IRBuilder, x: ir.Value, scale: ir.Value, inverse: ir.Value) -> ir.Value:
    positive = b.select(b.icmp_signed(">", x, constant(_INTEGERS, 0)), x, constant(_INTEGERS, 0))
    return _emit_scaled(b, positive, scale, inverse)


_pack_floats = _packing(_FLOATS, lambda b, x, scale, inverse: b.fmul(x, inverse))
_pack_scaled = _packing(_INTEGERS, _emit_scaled)
_pack_gelu = _packing(_INTEGERS, _emit_gelu)
_pack_relu = _packing(_INTEGERS, _emit_relu)


@jit
def quantize(V, x, features, inverse, zero_point, out):
    """Round half to even of x * inverse, plus the zero point, within 0..255; NaN becomes 0, as in ONNX Runtime.

    Args:
        x: address of float32 [features][T].
        inverse: float32, 1 / scale.
        out: address of [ceil(features / 4)] blocks, as `dots` has them: where there is VNNI, the uint8 integers; else
            int16, without the zero point.
    """
    _pack_floats(V, x, features, inverse, inverse, zero_point, out)


@jit
def scaled_quantize(V, x, features, scale, inverse, zero_point, out):
    """The same of scale * x, where x is int32 [features][T]."""
    _pack_scaled(V, x, features, scale, inverse, zero_point, out)


@jit
def gelu_quantize(V, x, features, scale, inverse, zero_point, out):
    """The same of gelu(scale * x), where x is int32 [features][T]."""
    _pack_gelu(V, x, features, scale, inverse, zero_point, out)


@jit
def relu_quantize(V, x, features, scale, inverse, zero_point, out):
    """The same of max(0, scale * x), where x is int32 [features][T]."""
    _pack_relu(V, x, features, scale, inverse, zero_point, out)
