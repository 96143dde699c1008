"""Linear layers in 8 bits and rounding, against NumPy; as a program, on the processor that NUMBA_CPU_NAME names."""

import numpy as np

from obert.sparse.kernels import dots
from obert.sparse.kernels.arrays import aligned, keep
from obert.sparse.kernels.bounds import raise_if_violated
from obert.sparse.kernels.linear8 import linear8
from obert.sparse.kernels.packing8 import PackedLinear8
from obert.sparse.kernels.pointwise8 import gelu_quantize, quantize, relu_quantize, scaled_quantize
from obert.sparse.kernels.vectors import Kind
from obert.sparse.program import Rounding, Weight

LANES = (16, 32, 64)
UNTOUCHED = -1234567


def layer(rows, columns, sparsity, width=4, empty=0.0, seed=0, zero_point=0):
    """A layer of random weights; zeros in groups of `width` columns, and in a share of whole rows and columns."""
    rng = np.random.default_rng(seed)
    kept = np.repeat(rng.random((rows, -(-columns // width))) >= sparsity, width, axis=1)[:, :columns]
    kept &= (rng.random((rows, 1)) >= empty) & (rng.random(columns) >= empty)
    values = rng.integers(-127, 128, (rows, columns)) * kept
    bias = rng.integers(-(2**20), 2**20, rows)
    return weight(values, bias, zero_point)


def weight(values, bias, zero_point):
    rounding = Rounding(np.float32(1), zero_point)
    return Weight("layer", values.astype(np.int8), bias.astype(np.int32), rounding)


def activations(seed, columns, lanes):
    return np.random.default_rng(seed).integers(0, 256, (columns, lanes))


def packed_activations(x, zero_point):
    """uint8 integers [columns, lanes] as the kernel reads them."""
    floats = keep((x - zero_point).astype(np.float32))
    packed = aligned((-(-len(x) // 4), x.shape[1] * 4), np.uint8 if dots.BYTES else np.int16)
    quantize(Kind(x.shape[1]), floats.ctypes.data, len(x), np.float32(1), np.int64(zero_point), packed.ctypes.data)
    return packed


def multiply(packed, x, zero_point, rows, blocks=None):
    """Row blocks first to last (all, if not said) of a product; int32 [rows, lanes]."""
    inputs, out = packed_activations(x, zero_point), aligned((rows, x.shape[1]), np.int32)
    out[:] = UNTOUCHED
    linear8(Kind(x.shape[1]), packed.address, inputs.ctypes.data, out.ctypes.data, *(blocks or (0, packed.blocks)))
    raise_if_violated()
    return out


def exact(layer, x):
    zero_point = layer.rounding.zero_point
    return layer.values.astype(np.int64) @ (x.astype(np.int64) - zero_point) + layer.bias[:, None]


def rounded(kind, x, scale, inverse, zero_point):
    """The 8-bit integers that a kernel makes of [features, lanes]: float32 (quantize) or int32 (the others)."""
    features, lanes = x.shape
    x = keep(x)
    out = aligned((-(-features // 4), lanes * 4), np.uint8 if dots.BYTES else np.int16)
    numbers = (np.float32(inverse), np.int64(zero_point), out.ctypes.data)
    if kind == "quantize":
        quantize(Kind(lanes), x.ctypes.data, features, *numbers)
    else:
        kernel = {"scaled": scaled_quantize, "gelu": gelu_quantize, "relu": relu_quantize}[kind]
        kernel(Kind(lanes), x.ctypes.data, features, np.float32(scale), *numbers)
    raise_if_violated()
    if dots.BYTES:
        found = out.reshape(-1, lanes, 4).transpose(0, 2, 1)
    else:
        found = out.reshape(-1, 2, lanes, 2).transpose(0, 1, 3, 2) + zero_point
    return found.reshape(-1, lanes)[:features].astype(np.int64)


def check_layers(seed):
    """Products of layers of many shapes; weights and activations at their limits."""
    shapes = [(1, 1), (3, 2), (5, 9), (64, 64), (130, 200), (16, 1600), (257, 770)]
    for number, (rows, columns) in enumerate(shapes):
        for sparsity, width in ((0.0, 1), (0.8, 4), (0.8, 1), (0.95, 4), (1.0, 1)):
            zero_point = (37 * number + int(sparsity * 100)) % 256
            tested = layer(rows, columns, sparsity, width, 0.1 * (number % 2), seed, zero_point)
            packed = PackedLinear8(tested)
            for lanes in LANES:
                x = activations(seed, columns, lanes)
                np.testing.assert_array_equal(multiply(packed, x, zero_point, rows), exact(tested, x))
    for sign in (-1, 1):
        for value in (0, 255):
            for zero_point in (0, 128, 255):
                tested = weight(np.full((4, 3072), 127 * sign), np.zeros(4), zero_point)
                x = np.full((3072, 16), value)
                np.testing.assert_array_equal(multiply(PackedLinear8(tested), x, zero_point, 4), exact(tested, x))


def check_rounding():
    """Ties, limits and what is not finite, where a scale is a power of two."""
    special = [
        0.25,
        0.75,
        1.25,
        -0.25,
        -0.75,
        63.75,
        64.0,
        1e6,
        -1e6,
        3e38,
        -3e38,
        np.inf,
        -np.inf,
        np.nan,
        -0.0,
        1e-40,
    ]
    x = np.resize(np.array(special, np.float32), (7, 16))
    for zero_point in (0, 1, 77, 128, 255):
        with np.errstate(invalid="ignore"):
            expected = np.clip(np.rint(x.astype(np.float64) * 2) + zero_point, 0, 255)
        expected = np.where(np.isnan(x), 0, expected)
        np.testing.assert_array_equal(rounded("quantize", x, 1, 2, zero_point), expected)


if __name__ == "__main__":
    check_layers(0)
    check_rounding()
    print(dots.DOT)
