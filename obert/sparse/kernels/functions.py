"""Activation functions of vectors of float32."""

from __future__ import annotations

from llvmlite import ir

from obert.sparse.kernels.vectors import I32, constant, emit_call, emit_exp, lanewise


def _integers(typ: ir.VectorType) -> ir.VectorType:
    return ir.VectorType(I32, typ.count)


def _emit_polynomial(builder: ir.IRBuilder, x: ir.Value, coefficients: tuple[float, ...]) -> ir.Value:
    """A polynomial by Horner's rule, the highest power's coefficient first."""
    total = constant(x.type, coefficients[0])
    for coefficient in coefficients[1:]:
        total = emit_call(builder, "llvm.fma", total, x, constant(x.type, coefficient))
    return total


def _emit_relu(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """max(x, 0), NaN of NaN. The sum keeps LLVM from a store of some lanes alone, which takes AMD's cores 16 times."""
    zero = constant(x.type, 0)
    return builder.fadd(builder.select(builder.fcmp_ordered("<", x, zero), zero, x), zero)


relu = lanewise(1, _emit_relu)

_POWER_OF_TWO = (1.3276471e-3, 9.6755413e-3, 5.5507133e-2, 2.402212e-1, 6.9314697e-1, 1.0000001)  # least error, 7.5e-8


def _emit_exp2(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """2 to the power x for x <= 0, to 2e-7 of it; 0 from -127 on, and NaN of NaN."""
    typ, least = x.type, constant(x.type, -127)
    x = builder.select(builder.fcmp_ordered("<", x, least), least, x)
    magic = constant(typ, 12582912 + 127)  # adding it rounds to an integer, in the lowest bits, plus 127
    shifted = builder.fadd(x, magic)
    fraction = builder.fsub(x, builder.fsub(shifted, magic))
    exponent = builder.shl(builder.bitcast(shifted, _integers(typ)), constant(_integers(typ), 23))
    return builder.fmul(_emit_polynomial(builder, fraction, _POWER_OF_TWO), builder.bitcast(exponent, typ))


exp2 = lanewise(1, _emit_exp2)


# (1 - erf(a / sqrt(2))) / 2 is this polynomial of a to the power -8. The largest error of gelu that it makes is the
# least that a polynomial of its degree can make: 4.2e-8.
_GELU_TAIL = (3.3545998e-06, -2.0382515e-05, 1.1809625e-04, 8.7481923e-05, 1.1256253e-03, 9.3158074e-03, 4.8870396e-02)
_GELU_TAIL = (*_GELU_TAIL, 1.0875200e-01, 1.0905083)


def _emit_gelu(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """x (1 + erf(x / sqrt(2))) / 2 as max(x, 0) - a * tail(a), where a = |x|, to 2e-7; NaN of NaN and of -inf."""
    typ, end = x.type, constant(x.type, 5.8)  # where a * tail(a) is 2e-8
    a = emit_call(builder, "llvm.fabs", x)
    bounded = builder.select(builder.fcmp_ordered(">", a, end), end, a)
    power = _emit_polynomial(builder, bounded, _GELU_TAIL)
    for _ in range(3):
        power = builder.fmul(power, power)
    tail = builder.fdiv(bounded, power)
    return emit_call(builder, "llvm.fma", builder.fadd(x, a), constant(typ, 0.5), builder.fneg(tail))


gelu = lanewise(1, _emit_gelu)

_TANH = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)


def _emit_tanh(builder: ir.IRBuilder, x: ir.Value) -> ir.Value:
    """tanh to 2 units in the last place: a polynomial near 0, else of exp(-2 |x|) (Cephes' tanhf)."""
    typ = x.type
    a = emit_call(builder, "llvm.fabs", x)
    square = builder.fmul(x, x)
    near = builder.fmul(_emit_polynomial(builder, square, _TANH), square)
    near = emit_call(builder, "llvm.fma", near, x, x)
    power = emit_exp(builder, builder.fmul(a, constant(typ, -2)))
    ratio = builder.fdiv(power, builder.fadd(power, constant(typ, 1)))
    far = emit_call(builder, "llvm.fma", ratio, constant(typ, -2), constant(typ, 1))
    far = emit_call(builder, "llvm.copysign", far, x)
    return builder.select(builder.fcmp_ordered("<", a, constant(typ, 0.625)), near, far)


tanh = lanewise(1, _emit_tanh)
