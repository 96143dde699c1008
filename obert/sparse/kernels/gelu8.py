"""GELU to 1e-6, which is enough before its result is rounded to 8 bits, and a third of the work of the exact one.

gelu(x) = x / 2 + h(|x|), where h(a) = a erf(a / sqrt(2)) / 2 is straight beyond 5.75. With AVX-512, h is a quartic in
each of 16 intervals, whose coefficients are looked up in registers; elsewhere it is one polynomial in the square.
"""

from __future__ import annotations

from math import erf, sqrt

import numpy as np
from llvmlite import ir
from numba.core.cgutils import get_or_insert_function
from numpy.polynomial import Chebyshev, Polynomial

from obert.sparse.kernels.vectors import I32, constant, emit_call

_INTERVALS, _ORDER = 16, 4
_SCALE = (_INTERVALS - 0.5) / 5.75  # intervals a unit of |x|; interval i is about i / _SCALE
_BOUND, _DEGREE = 5.25, 14
_MAGIC = 12582912.0  # adding it rounds to an integer, in the lowest bits


def _h(a: np.ndarray) -> np.ndarray:
    return np.array([x * erf(x / sqrt(2)) / 2 for x in a])


def _fitted(values: np.ndarray, at: np.ndarray, bound: float, degree: int) -> np.ndarray:
    """Coefficients, lowest first, of the polynomial nearest to values, nearly so in the largest error."""
    fit = Chebyshev.fit(at, values, degree, domain=[-bound, bound])
    return fit.convert(kind=Polynomial, domain=[-1, 1], window=[-1, 1]).coef


def _nodes(count: int) -> np.ndarray:
    return np.cos(np.pi * (np.arange(count) + 0.5) / count)


def _quartics() -> np.ndarray:
    """[coefficients, intervals]"""
    table = np.zeros((_ORDER + 1, _INTERVALS))
    for i in range(_INTERVALS - 1):
        at = _nodes(4 * (_ORDER + 1)) / 2
        table[:, i] = _fitted(_h(np.abs(i + at) / _SCALE), at, 0.5, _ORDER)
    table[:2, -1] = np.array([_INTERVALS - 1, 1]) / _SCALE / 2
    return table.astype(np.float32)


def _polynomial() -> np.ndarray:
    """In t = 2 (x / _BOUND)^2 - 1."""
    at = _nodes(4 * _DEGREE)
    return _fitted(_h(_BOUND * np.sqrt((at + 1) / 2)), at, 1, _DEGREE).astype(np.float32)


def _by_intervals(b: ir.IRBuilder, x: ir.Value, scale: ir.Value, factor: ir.Value) -> ir.Value:
    """For vectors of one AVX-512 register. Constants are multiplied by the scales before the loop that this is in."""
    typ, integers = x.type, ir.VectorType(I32, x.type.count)
    a, scale_to_places = emit_call(b, "llvm.fabs", x), b.fmul(scale, constant(typ, _SCALE))
    interval = b.bitcast(emit_call(b, "llvm.fma", a, scale_to_places, constant(typ, _MAGIC)), integers)
    last = b.bitcast(constant(typ, _MAGIC + _INTERVALS - 1), integers)
    interval = b.select(b.icmp_signed("<", interval, last), interval, last)  # as floats would compare, and cheaper
    middle = b.fsub(b.bitcast(interval, typ), constant(typ, _MAGIC))
    rest = emit_call(b, "llvm.fma", a, scale_to_places, b.fneg(middle))
    signature = ir.FunctionType(typ, [typ, integers])
    look_up = get_or_insert_function(b.module, signature, "llvm.x86.avx512.permvar.sf.512")
    y = None
    for row in _quartics()[::-1]:
        table = b.fmul(factor, ir.Constant(typ, [float(c) for c in row]))
        coefficient = b.call(look_up, [table, interval])
        y = coefficient if y is None else emit_call(b, "llvm.fma", y, rest, coefficient)
    return emit_call(b, "llvm.fma", x, b.fmul(b.fmul(scale, factor), constant(typ, 0.5)), y)


def _by_polynomial(b: ir.IRBuilder, x: ir.Value, scale: ir.Value, factor: ir.Value) -> ir.Value:
    typ = x.type
    x = b.fmul(x, scale)
    a = emit_call(b, "llvm.fabs", x)
    bound = constant(typ, _BOUND)
    near = b.select(b.fcmp_ordered("<", a, bound), a, bound)
    t = emit_call(b, "llvm.fma", b.fmul(near, near), constant(typ, 2 / _BOUND**2), constant(typ, -1))
    first, *others = _polynomial()[::-1]
    y = constant(typ, first)
    for c in others:
        y = emit_call(b, "llvm.fma", y, t, constant(typ, c))
    half = constant(typ, 0.5)
    beyond = emit_call(b, "llvm.fma", b.fsub(a, near), half, y)
    return b.fmul(emit_call(b, "llvm.fma", x, half, beyond), factor)


def emit_near_gelu(b: ir.IRBuilder, x: ir.Value, scale: ir.Value, factor: ir.Value) -> ir.Value:
    """factor * gelu(scale * x), GELU to 1e-6, of a register of float32 lanes; scale and factor are in every lane."""
    return (_by_intervals if x.type.count == 16 else _by_polynomial)(b, x, scale, factor)
