"""Arrays that kernels reach for by their addresses: aligned to cache lines, and registered with the bounds checker."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from obert.sparse.kernels.bounds import register

CACHE_LINE = 64  # bytes


def aligned(shape: int | tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Zeros that start at a cache line, which NumPy's own arrays need not."""
    dtype = np.dtype(dtype)
    shape = (shape,) if isinstance(shape, int) else shape
    size = math.prod(shape) * dtype.itemsize
    raw = np.zeros(size + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return register(raw[start : start + size].view(dtype).reshape(shape))


def keep(values: Any, dtype: Any = None) -> np.ndarray:
    """A copy of values, aligned, which kernels may reach for as long as it is referred to."""
    values = np.asarray(values, dtype)
    copy = aligned(values.shape, values.dtype)
    copy[...] = values
    return copy
