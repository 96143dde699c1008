"""Several sums at once, each of a vector times numbers of its own, as a tuple that LLVM keeps in registers."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from obert.sparse.vectors import F32, I64, constant, emit_call, emit_load, emit_splat, emit_store, f32x


@intrinsic
def f32_zeros(typingctx, kind, count):
    """A tuple of vectors of zeros; `count` is a literal."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    vector = f32x(kind)

    def code(context, builder, signature, arguments):
        return ir.Constant(
            ir.ArrayType(vector.llvm, count.literal_value), [constant(vector.llvm, 0)] * count.literal_value
        )

    return types.UniTuple(vector, count.literal_value)(kind, count), code


@intrinsic
def multiply_each(typingctx, sums, x, address, step):
    """sums[i] + x * the float32 at address + i * step."""

    def code(context, builder, signature, arguments):
        total, vector, place, gap = arguments
        for i in range(sums.count):
            number = emit_load(builder, builder.add(place, builder.mul(gap, I64(i))), F32)
            product = emit_call(
                builder,
                "llvm.fma",
                emit_splat(builder, number, x.lanes),
                vector,
                builder.extract_value(total, i),
            )
            total = builder.insert_value(total, product, i)
        return total

    return sums(sums, x, types.int64, types.int64), code


@intrinsic
def store_each(typingctx, address, vectors):
    """Put vectors one after the other."""

    def code(context, builder, signature, arguments):
        size = vectors.dtype.lanes * 4
        for i in range(vectors.count):
            emit_store(builder, builder.add(arguments[0], I64(i * size)), builder.extract_value(arguments[1], i))
        return context.get_dummy_value()

    return types.void(types.int64, vectors), code
