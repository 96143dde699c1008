"""Several vectors at once, each combined with a number of its own, as a tuple that LLVM keeps in registers."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from obert.sparse.kernels.vectors import F32, I64, constant, emit_call, emit_load, emit_splat, emit_store, f32x


@intrinsic
def zeros_each(typingctx, kind, count):
    """So many vectors of zeros; `count` is a constant to the compiler."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    vectors = types.UniTuple(f32x(kind), count.literal_value)

    def code(context, builder, signature, arguments):
        zero = constant(vectors.dtype.llvm, 0)
        return ir.Constant(ir.ArrayType(zero.type, vectors.count), [zero] * vectors.count)

    return vectors(kind, count), code


@intrinsic
def multiply_each(typingctx, sums, x, address, step):
    """sums[i] + x * the float32 at address + i * step."""

    def code(context, builder, signature, arguments):
        total, vector, start, gap = arguments
        for i in range(sums.count):
            number = emit_load(builder, builder.add(start, builder.mul(gap, I64(i))), F32)
            spread = emit_splat(builder, number, x.lanes)
            added = emit_call(builder, "llvm.fma", spread, vector, builder.extract_value(total, i))
            total = builder.insert_value(total, added, i)
        return total

    return sums(sums, x, types.int64, types.int64), code


@intrinsic
def store_each(typingctx, address, step, vectors, factor):
    """Put vectors[i] * factor at address + i * step."""

    def code(context, builder, signature, arguments):
        start, gap, tuple_, number = arguments
        for i in range(vectors.count):
            product = builder.fmul(builder.extract_value(tuple_, i), number)
            emit_store(builder, builder.add(start, builder.mul(gap, I64(i))), product)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, vectors, vectors.dtype), code
