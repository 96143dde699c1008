"""Squares of float32 transposed in registers."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from obert.sparse.kernels.vectors import F32, I32, I64, emit_load, emit_store


@intrinsic
def transpose(typingctx, kind, address, step):
    """Transpose a square in place: as many rows as the kind has lanes, `step` bytes from one to the next.

    With each stage the square is halved into four and two of them change places, down to single numbers.
    """
    lanes = kind.lanes

    def code(context, builder, signature, arguments):
        places = [builder.add(arguments[1], builder.mul(arguments[2], I64(i))) for i in range(lanes)]
        rows = [emit_load(builder, place, ir.VectorType(F32, lanes)) for place in places]
        half = lanes // 2
        while half:
            for upper in (i for i in range(lanes) if not i & half):
                rows[upper], rows[upper + half] = _exchange(builder, rows[upper], rows[upper + half], half)
            half //= 2
        for place, row in zip(places, rows, strict=True):
            emit_store(builder, place, row)
        return context.get_dummy_value()

    return types.void(kind, types.int64, types.int64), code


def _exchange(builder: ir.IRBuilder, x: ir.Value, y: ir.Value, half: int) -> tuple[ir.Value, ir.Value]:
    """Swap the second of each two runs of x with the first of y; a run is `half` long."""
    lanes = range(x.type.count)
    masks = [
        [i if not i & half else x.type.count + i - half for i in lanes],
        [i + half if not i & half else x.type.count + i for i in lanes],
    ]
    first, second = (ir.Constant(ir.VectorType(I32, len(lanes)), mask) for mask in masks)
    return builder.shuffle_vector(x, y, first), builder.shuffle_vector(x, y, second)
