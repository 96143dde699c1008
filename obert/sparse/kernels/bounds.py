"""A debug build of the kernels: each address that they read or write is looked up among the engine's own arrays.

The kernels compute addresses, and a wrong one would read or write what is not theirs in silence. With the environment
variable OBERT_SPARSE_BOUNDS=1 each access is checked, which is slow: for tests.
"""

from __future__ import annotations

import os

import numpy as np
from llvmlite import ir

CHECKED = os.environ.get("OBERT_SPARSE_BOUNDS") == "1"
_I64 = ir.IntType(64)
_LARGEST = 4096  # bytes of one access
_REGIONS = np.zeros((1 << 16, 2), np.int64)  # first byte, and the first behind the last
_STATE = np.zeros(2, np.int64)  # how many regions there are; the first wrong address
_HARMLESS = np.zeros(_LARGEST + 64, np.uint8)  # what is read or written in its place
_KEPT: list[np.ndarray] = []  # so that nothing else comes to lie where a registered array was


class OutOfBounds(Exception):
    """A kernel reached for memory that is not the engine's."""


def register(array: np.ndarray) -> np.ndarray:
    """An array that kernels may reach for, from now on."""
    if CHECKED:
        _KEPT.append(array)
        start = array.ctypes.data
        _REGIONS[_STATE[0]] = start, start + array.nbytes
        _STATE[0] += 1
    return array


def raise_if_violated() -> None:
    """Raise OutOfBounds if any access was wrong since the last time."""
    if _STATE[1]:
        address, _STATE[1] = int(_STATE[1]), 0
        raise OutOfBounds(f"a kernel reached for address {address:#x}, which is in none of its arrays")


def checked_address(builder: ir.IRBuilder, address: ir.Value, size: int) -> ir.Value:
    """The address, or that of a harmless place if not all `size` bytes from it on are in one region."""
    if not CHECKED:
        return address
    assert size <= _LARGEST
    return builder.call(_check(builder.module), [address, _I64(size)])


def _check(module: ir.Module) -> ir.Function:
    name = "obert_sparse_check"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(_I64, [_I64, _I64]), name)
    function.linkage = "linkonce_odr"
    address, size = function.args
    entry, head, body, good, more, bad, first, end = (function.append_basic_block() for _ in range(8))
    builder = ir.IRBuilder(entry)
    state = builder.inttoptr(_I64(_STATE.ctypes.data), _I64.as_pointer())
    regions = builder.inttoptr(_I64(_REGIONS.ctypes.data), _I64.as_pointer())
    count = builder.load(state)
    last = builder.add(address, size)
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(_I64)
    index.add_incoming(_I64(0), entry)
    builder.cbranch(builder.icmp_signed("<", index, count), body, bad)
    builder.position_at_end(body)
    start = builder.load(builder.gep(regions, [builder.mul(index, _I64(2))]))
    stop = builder.load(builder.gep(regions, [builder.add(builder.mul(index, _I64(2)), _I64(1))]))
    inside = builder.and_(builder.icmp_signed(">=", address, start), builder.icmp_signed("<=", last, stop))
    builder.cbranch(inside, good, more)
    builder.position_at_end(more)
    index.add_incoming(builder.add(index, _I64(1)), more)
    builder.branch(head)
    builder.position_at_end(good)
    builder.ret(address)
    builder.position_at_end(bad)
    seen = builder.gep(state, [_I64(1)])
    builder.cbranch(builder.icmp_signed("==", builder.load(seen), _I64(0)), first, end)
    builder.position_at_end(first)
    builder.store(address, seen)
    builder.branch(end)
    builder.position_at_end(end)
    harmless = _HARMLESS.ctypes.data
    builder.ret(_I64(harmless + -harmless % 64))
    return function
