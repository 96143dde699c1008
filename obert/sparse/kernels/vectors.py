"""Vectors of float32 and int32 as Numba types, which LLVM makes the processor's instructions of.

A kernel takes a `Kind` first, and the compiler makes one version of it for each: as with a template, one source serves
vectors of 16, 32 and 64 lanes. Addresses are int64. LLVM splits a vector that is wider than a register.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.cgutils import get_or_insert_function
from numba.core.imputils import lower_constant
from numba.extending import (
    NativeValue,
    intrinsic,
    models,
    register_model,
    typeof_impl,
    unbox,
)

from obert.sparse.kernels.bounds import checked_address
from obert.sparse.kernels.cache import inner, jit  # noqa: F401 - every file of kernels takes them with the vectors

F32, I8, I16, I32, I64 = ir.FloatType(), ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
_BYTES = {F32: 4, I8: 1, I16: 2, I32: 4, I64: 8}


class Kind:
    """A number of lanes, and whether products are of 8-bit integers, as an argument of kernels."""

    def __init__(self, lanes: int, eight_bits: bool = False):
        self.lanes, self.eight_bits = lanes, eight_bits


class KindType(types.Type):
    """Numba's type of a `Kind`: a type of its own for each."""

    def __init__(self, lanes: int, eight_bits: bool):
        self.lanes, self.eight_bits = lanes, eight_bits
        super().__init__(name=f"Kind({lanes}, {eight_bits})")


register_model(KindType)(models.OpaqueModel)


@typeof_impl.register(Kind)
def _typeof_kind(kind: Kind, context: Any) -> KindType:
    return KindType(kind.lanes, kind.eight_bits)


@unbox(KindType)
def _unbox_kind(typ: KindType, value: Any, context: Any) -> NativeValue:
    return NativeValue(context.context.get_dummy_value())


@lower_constant(KindType)
def _constant_kind(context: Any, builder: ir.IRBuilder, typ: KindType, value: Any) -> ir.Value:
    return context.get_dummy_value()


class Vector(types.Type):
    """Numba's type of a vector: `element` is f32 or i32."""

    def __init__(self, element: str, lanes: int):
        self.element, self.lanes = element, lanes
        self.llvm = ir.VectorType(F32 if element == "f32" else I32, lanes)
        super().__init__(name=f"{element}x{lanes}")

    def __reduce__(self):
        return Vector, (self.element, self.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, typ: Vector):
        super().__init__(manager, typ, typ.llvm)


def f32x(kind: KindType) -> Vector:
    """The type of a vector of float32 with that many lanes."""
    return Vector("f32", kind.lanes)


def i32x(kind: KindType) -> Vector:
    """The type of a vector of int32 with that many lanes."""
    return Vector("i32", kind.lanes)


def _of_kind(compute: Callable[[int], int]) -> Any:
    """An intrinsic that gives a number of a kind, a constant to the compiler."""

    @intrinsic
    def number(typingctx, kind):
        return types.int64(kind), lambda c, b, s, a: I64(compute(kind.lanes))

    return number


lanes_of = _of_kind(lambda lanes: lanes)
row_bytes = _of_kind(lambda lanes: 4 * lanes)  # of one feature of a tile, in float32 or int32


# What intrinsics are made of


def size_of(typ: ir.Type) -> int:
    """Bytes of an LLVM type."""
    return _BYTES[typ.element] * typ.count if isinstance(typ, ir.VectorType) else _BYTES[typ]


def emit_load(builder: ir.IRBuilder, address: ir.Value, typ: ir.Type, align: int | None = None) -> ir.Value:
    """What is at an address, aligned as its elements are."""
    align = align or _BYTES[getattr(typ, "element", typ)]
    pointer = builder.inttoptr(checked_address(builder, address, size_of(typ)), typ.as_pointer())
    return builder.load(pointer, align=align)


def emit_store(builder: ir.IRBuilder, address: ir.Value, value: ir.Value, align: int | None = None) -> None:
    """Put a value at an address, aligned as its elements are."""
    align = align or _BYTES[getattr(value.type, "element", value.type)]
    pointer = builder.inttoptr(checked_address(builder, address, size_of(value.type)), value.type.as_pointer())
    builder.store(value, pointer, align=align)


def emit_splat(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    """A number in every lane."""
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    zeros = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
    return builder.shuffle_vector(builder.insert_element(undefined, value, I32(0)), undefined, zeros)


def constant(typ: ir.VectorType, value: float) -> ir.Constant:
    """A constant in every lane."""
    return ir.Constant(typ, [float(value) if typ.element == F32 else int(value)] * typ.count)


def emit_call(builder: ir.IRBuilder, name: str, *arguments: ir.Value) -> ir.Value:
    """LLVM's intrinsic of vectors of one type, by its name without the type."""
    typ = arguments[0].type
    suffix = f".v{typ.count}{'f32' if typ.element == F32 else 'i32'}"
    function = ir.FunctionType(typ, [typ] * len(arguments))
    return builder.call(get_or_insert_function(builder.module, function, name + suffix), arguments)


def emit_exp(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """exp(x) for x <= 0 to 2 units in the last place; 0 below -87.3, and NaN of NaN (Cephes' expf)."""
    typ, integers = x.type, ir.VectorType(I32, x.type.count)
    tiny = builder.fcmp_ordered("<", x, constant(typ, -87.33))
    bounded = builder.select(tiny, constant(typ, -87.33), x)
    magic = constant(typ, 12582912)  # adding it rounds to an integer, in the lowest bits
    shifted = emit_call(builder, "llvm.fma", bounded, constant(typ, 1.44269504088896341), magic)
    power = builder.fsub(shifted, magic)
    rest = emit_call(builder, "llvm.fma", power, constant(typ, -0.693359375), bounded)
    rest = emit_call(builder, "llvm.fma", power, constant(typ, 2.12194440e-4), rest)
    p = constant(typ, 1.9875691500e-4)
    for c in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = emit_call(builder, "llvm.fma", p, rest, constant(typ, c))
    p = builder.fadd(emit_call(builder, "llvm.fma", builder.fmul(p, rest), rest, rest), constant(typ, 1))
    exponent = builder.shl(
        builder.add(builder.bitcast(shifted, integers), constant(integers, 127)), constant(integers, 23)
    )
    return builder.select(tiny, constant(typ, 0), builder.fmul(p, builder.bitcast(exponent, typ)))


# Memory


@intrinsic
def load(typingctx, kind, address):
    """float32 lanes from an address on."""
    vector = f32x(kind)
    return vector(kind, types.int64), lambda c, b, s, a: emit_load(b, a[1], vector.llvm)


@intrinsic
def store(typingctx, address, vector):
    """Lanes of either type to an address and on."""

    def code(c, b, s, a):
        emit_store(b, a[0], a[1])
        return c.get_dummy_value()

    return types.void(types.int64, vector), code


@intrinsic
def splat(typingctx, kind, number):
    """A float32 in every lane."""
    return f32x(kind)(kind, types.float32), lambda c, b, s, a: emit_splat(b, a[1], kind.lanes)


@intrinsic
def load_i32(typingctx, kind, address):
    """int32 lanes from an address on."""
    vector = i32x(kind)
    return vector(kind, types.int64), lambda c, b, s, a: emit_load(b, a[1], vector.llvm)


@intrinsic
def splat_i32(typingctx, kind, number):
    """An integer in every lane, as int32."""
    return i32x(kind)(kind, types.int64), lambda c, b, s, a: emit_splat(b, b.trunc(a[1], I32), kind.lanes)


def _scalar(typ: ir.Type, numba_type: types.Type, widen: Callable | None = None) -> Any:
    @intrinsic
    def read(typingctx, address):
        def code(c, b, s, a):
            value = emit_load(b, a[0], typ)
            return widen(b, value) if widen else value

        return numba_type(types.int64), code

    return read


f32_at = _scalar(F32, types.float32)
i64_at = _scalar(I64, types.int64)
i32_at = _scalar(I32, types.int64, lambda b, value: b.sext(value, I64))
u16_at = _scalar(I16, types.int64, lambda b, value: b.zext(value, I64))


@intrinsic
def f32_to(typingctx, address, value):
    """Put a float32 at an address."""

    def code(c, b, s, a):
        emit_store(b, a[0], a[1])
        return c.get_dummy_value()

    return types.void(types.int64, types.float32), code


def _prefetch(writes: bool) -> Any:
    @intrinsic
    def fetch(typingctx, address):
        def code(c, b, s, a):
            pointer = I8.as_pointer()
            function = ir.FunctionType(ir.VoidType(), [pointer, I32, I32, I32])
            call = get_or_insert_function(b.module, function, "llvm.prefetch.p0")
            b.call(call, [b.inttoptr(a[0], pointer), I32(int(writes)), I32(3), I32(1)])
            return c.get_dummy_value()

        return types.void(types.int64), code

    return fetch


# Bring the cache line of an address near. Any address will do. What is written, other cores lose.
prefetch = _prefetch(True)
prefetch_to_read = _prefetch(False)


# Arithmetic, lane by lane


def lanewise(count: int, emit: Callable) -> Any:
    """An intrinsic of `count` vectors of one type, whose result is of that type."""
    if count == 1:

        @intrinsic
        def operation(typingctx, x):
            return x(x), lambda c, b, s, a: emit(b, *a)

    elif count == 2:

        @intrinsic
        def operation(typingctx, x, y):
            return x(x, y), lambda c, b, s, a: emit(b, *a)

    else:

        @intrinsic
        def operation(typingctx, x, y, z):
            return x(x, y, z), lambda c, b, s, a: emit(b, *a)

    return operation


# The maximum is the second operand where either is NaN, as on x86.
fma = lanewise(3, lambda b, x, y, z: emit_call(b, "llvm.fma", x, y, z))
add = lanewise(2, lambda b, x, y: b.fadd(x, y))
sub = lanewise(2, lambda b, x, y: b.fsub(x, y))
mul = lanewise(2, lambda b, x, y: b.fmul(x, y))
div = lanewise(2, lambda b, x, y: b.fdiv(x, y))
maximum = lanewise(2, lambda b, x, y: b.select(b.fcmp_ordered(">", x, y), x, y))
sqrt = lanewise(1, lambda b, x: emit_call(b, "llvm.sqrt", x))
add_i32 = lanewise(2, lambda b, x, y: b.add(x, y))


@intrinsic
def to_f32(typingctx, x):
    """int32 lanes as float32."""
    vector = Vector("f32", x.lanes)
    return vector(x), lambda c, b, s, a: b.sitofp(a[0], vector.llvm)


# Between threads


@intrinsic
def fetch_add(typingctx, address, value):
    """Add to the int64 at an address in one step; what was there."""

    def code(c, b, s, a):
        pointer = b.inttoptr(checked_address(b, a[0], 8), I64.as_pointer())
        return b.atomic_rmw("add", pointer, a[1], "seq_cst")

    return types.int64(types.int64, types.int64), code


@intrinsic
def atomic_load(typingctx, address):
    """The int64 at an address, as other threads have left it."""

    def code(c, b, s, a):
        return b.load_atomic(b.inttoptr(checked_address(b, a[0], 8), I64.as_pointer()), "seq_cst", 8)

    return types.int64(types.int64), code


@intrinsic
def ticks(typingctx):
    """The processor's clock, in units of its own. ARM lets programs read the steady one alone."""

    def code(c, b, s, a):
        name = "llvm.readcyclecounter" if "x86" in b.module.triple else "llvm.readsteadycounter"
        return b.call(get_or_insert_function(b.module, ir.FunctionType(I64, []), name), [])

    return types.int64(), code


@intrinsic
def pause(typingctx):
    """A moment's rest in a loop that waits for another thread."""

    def code(c, b, s, a):
        if "x86" in b.module.triple:
            b.call(get_or_insert_function(b.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause"), [])
        return c.get_dummy_value()

    return types.void(), code


@intrinsic
def give_way(typingctx):
    """Let the system run another thread on this core."""

    def code(c, b, s, a):
        name = "SwitchToThread" if os.name == "nt" else "sched_yield"
        b.call(get_or_insert_function(b.module, ir.FunctionType(I32, []), name), [])
        return c.get_dummy_value()

    return types.void(), code
