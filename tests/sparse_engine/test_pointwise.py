"""What kernels do with each token by itself, against NumPy and PyTorch in float64."""

import os
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tiles import from_tiles, to_tiles

from obert.sparse.kernels import pointwise
from obert.sparse.kernels.arrays import aligned, keep
from obert.sparse.kernels.bounds import CHECKED
from obert.sparse.kernels.vectors import Kind

LANES = st.sampled_from((32,) if CHECKED else (16, 32, 64))
EXACT = {
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "relu": torch.relu,
    "tanh": torch.tanh,
}
SETTINGS = settings(max_examples=5 if CHECKED else 40, deadline=None)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def activated(name, values):
    """The kernel's values of an activation."""
    x = aligned((-(-len(values) // 16), 16))
    x.ravel()[: len(values)] = values
    pointwise.activate(Kind(16), pointwise.ACTIVATIONS.index(name), x.ctypes.data, 0, len(x))
    return x.ravel()[: len(values)]


def exact_norm(x, weight, bias, epsilon):
    x = x.astype(np.float64)
    centred = x - x.mean(1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(1, keepdims=True) + np.float64(epsilon)) * weight + bias


def allowed_of_norm(x, weight, exact):
    """A number is known to half a unit in its last place, and the norm counts in deviations.

    The largest number may be what others are counted from, and 32 of them are then added up: hence 5e-7, of 6e-8.
    """
    steps = np.abs(x).max(1, keepdims=True) / x.astype(np.float64).std(1, keepdims=True)
    normalised = np.abs(exact_norm(x, np.float64(1), 0, 1e-12))
    return 5e-7 * (1 + steps) * np.abs(weight) * (1 + normalised) + 2e-7 * np.abs(exact)


@pytest.mark.parametrize("name", pointwise.ACTIVATIONS)
def test_activations_are_those_of_float64_to_float32s_precision(name):
    sizes = np.logspace(-30, 38, 20_000)
    x = np.concatenate([np.linspace(-12, 12, 400_000), sizes, -sizes]).astype(np.float32)
    exact = EXACT[name](torch.tensor(x, dtype=torch.float64)).numpy()
    error = np.abs(activated(name, x) - exact)
    assert (error <= 2.5e-7 * np.maximum(1, np.abs(exact))).all()
    if name == "tanh":
        assert (error <= 2e-7 * np.abs(exact)).all()


@pytest.mark.parametrize("name", pointwise.ACTIVATIONS)
def test_activations_of_infinities_and_nan_are_as_onnx_runtimes(name):
    x = np.array([np.nan, np.inf, -np.inf, 0, 1e37, -1e37], np.float32)
    found = activated(name, x)
    if name in ("relu", "tanh"):
        graph = helper.make_graph(
            [helper.make_node(name.capitalize(), ["x"], ["y"])],
            "one",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [6])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [6])],
        )
    else:
        graph = gelu_graph(name)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(found, session.run(None, {"x": x})[0], atol=1e-7)


def gelu_graph(name):
    """GELU as it is exported: of Erf or of Tanh, step by step."""
    inner = {
        "gelu": [("Mul", "x", "root", "z"), ("Erf", "z", None, "t")],
        "gelu_tanh": [
            ("Pow", "x", "three", "c"),
            ("Mul", "c", "cubic", "d"),
            ("Add", "x", "d", "e"),
            ("Mul", "e", "scale", "z"),
            ("Tanh", "z", None, "t"),
        ],
    }[name]
    nodes = [*inner, ("Add", "t", "one", "u"), ("Mul", "x", "u", "v"), ("Mul", "v", "half", "y")]
    constants = {"root": 0.5**0.5, "three": 3, "cubic": 0.044715, "scale": (2 / np.pi) ** 0.5, "one": 1, "half": 0.5}
    return helper.make_graph(
        [helper.make_node(op, [one, other] if other else [one], [out]) for op, one, other, out in nodes],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [6])],
        [
            helper.make_tensor(key, TensorProto.FLOAT, [], [constants[key]])
            for _, *used, _ in nodes
            for key in used
            if key in constants
        ],
    )


@SETTINGS
@given(
    lanes=LANES,
    widths=st.lists(st.integers(1, 70), min_size=1, max_size=3),
    joined=st.booleans(),
    tiles=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_embeddings_are_sums_or_rows_in_a_row(lanes, widths, joined, tiles, seed):
    if not joined:
        widths = widths[:1] * len(widths)
    rng = np.random.default_rng(seed)
    tables = [keep(normal(seed, 9, width)) for width in widths]
    indices = keep(rng.integers(-1, 9, (len(widths), tiles * lanes)))
    addresses = keep([[table.ctypes.data, table.shape[1]] for table in tables])
    out = to_tiles(np.full((tiles * lanes, sum(widths) if joined else widths[0]), np.nan, np.float32), lanes)
    for tile in range(tiles):
        pointwise.embed(
            Kind(lanes),
            addresses.ctypes.data,
            len(widths),
            int(joined),
            indices.ctypes.data,
            tiles * lanes,
            tile * lanes,
            out[tile].ctypes.data,
        )
    rows = [
        np.where((index < 0)[:, None], np.float32(0), table[index])
        for table, index in zip(tables, indices, strict=True)
    ]
    expected = np.concatenate(rows, 1) if joined else np.sum(rows, 0, dtype=np.float32)
    np.testing.assert_allclose(from_tiles(out), expected, rtol=0, atol=1e-6)


@SETTINGS
@given(
    lanes=LANES,
    features=st.integers(2, 150),
    mean=st.sampled_from((0, 1, -1000)),
    deviation=st.sampled_from((1, 1e-3, 1e4)),
    outlier=st.sampled_from((0, 300)),
    residual=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_norms_are_those_of_float64(lanes, features, mean, deviation, outlier, residual, seed):
    x = normal(seed, lanes, features) * np.float32(deviation) + np.float32(mean)
    x[:, seed % features] += np.float32(outlier * deviation)
    other = normal(seed + 1, lanes, features)
    weight, bias, epsilon = keep(normal(seed + 2, features)), keep(normal(seed + 3, features)), np.float32(1e-12)
    tiles, others, out = to_tiles(x, lanes), to_tiles(other, lanes), aligned((1, features, lanes))
    address = others.ctypes.data if residual else 0
    parameters = weight.ctypes.data, bias.ctypes.data, epsilon, features
    pointwise.norm(Kind(lanes), tiles.ctypes.data, address, *parameters, out.ctypes.data)
    total = x + other if residual else x
    exact = exact_norm(total, weight, bias, epsilon)
    assert (np.abs(from_tiles(out) - exact) <= allowed_of_norm(total, weight, exact)).all()
    pointwise.norm(Kind(lanes), tiles.ctypes.data, address, *parameters, tiles.ctypes.data)
    np.testing.assert_array_equal(tiles, out)


@SETTINGS
@given(lanes=LANES, features=st.integers(2, 60), residual=st.booleans(), seed=st.integers(0, 1000))
def test_integers_are_scaled_and_added_before_they_are_normalised(lanes, features, residual, seed):
    scale, epsilon = np.float32(3e-4), np.float32(1e-12)
    x = np.random.default_rng(seed).integers(-(2**20), 2**20, (lanes, features), np.int32)
    other = normal(seed, lanes, features)
    weight, bias = keep(normal(seed + 1, features)), keep(normal(seed + 2, features))
    tiles, others, out = to_tiles(x, lanes, 0), to_tiles(other, lanes), aligned((1, features, lanes))
    address = others.ctypes.data if residual else 0
    total = x * np.float64(scale) + (other if residual else 0)
    pointwise.scale_i32(Kind(lanes), tiles.ctypes.data, scale, address, out.ctypes.data, 0, features)
    np.testing.assert_allclose(from_tiles(out), total, rtol=1e-7, atol=1e-6)
    pointwise.norm_i32(
        Kind(lanes),
        tiles.ctypes.data,
        scale,
        address,
        weight.ctypes.data,
        bias.ctypes.data,
        epsilon,
        features,
        out.ctypes.data,
    )
    exact = exact_norm(total, weight, bias, epsilon)
    assert (np.abs(from_tiles(out) - exact) <= allowed_of_norm(total, weight, exact)).all()


@SETTINGS
@given(lanes=LANES, features=st.integers(1, 40), data=st.data())
def test_features_are_scaled_shifted_and_added_one_by_one_and_no_others(lanes, features, data):
    first = data.draw(st.integers(0, features))
    last = data.draw(st.integers(first, features))
    x, y = normal(features, lanes, features), normal(features + 1, lanes, features)
    weight, bias = keep(normal(3, features)), keep(normal(4, features))
    tiles, others, out = to_tiles(x, lanes), to_tiles(y, lanes), aligned((1, features, lanes))
    kind, inside = Kind(lanes), slice(first, last)
    pointwise.add_rows(kind, tiles.ctypes.data, others.ctypes.data, out.ctypes.data, first, last)
    np.testing.assert_array_equal(from_tiles(out)[:, inside], (x + y)[:, inside])
    assert not np.delete(from_tiles(out), np.r_[inside], axis=1).any()
    parameters = weight.ctypes.data, bias.ctypes.data
    pointwise.affine(kind, tiles.ctypes.data, *parameters, tiles.ctypes.data, first, last)
    expected = x.copy()
    expected[:, inside] = (x * weight.astype(np.float64) + bias)[:, inside]
    np.testing.assert_array_equal(from_tiles(tiles), expected)
    pointwise.activate(kind, pointwise.ACTIVATIONS.index("relu"), tiles.ctypes.data, first, last)
    expected[:, inside] = np.maximum(expected[:, inside], 0)
    np.testing.assert_array_equal(from_tiles(tiles), expected)


@SETTINGS
@given(lanes=LANES, columns=st.lists(st.integers(1, 5), min_size=1, max_size=16), features=st.integers(1, 40))
def test_first_tokens_are_gathered_into_columns(lanes, columns, features):
    starts = keep(np.cumsum([0, *columns[:-1]]) * 16)
    x = normal(0, sum(columns) * 16, features)
    tiles, out = to_tiles(x, lanes), to_tiles(np.full((lanes, features), np.nan, np.float32), lanes)
    pointwise.first_rows(
        Kind(lanes),
        tiles.ctypes.data,
        tiles.strides[0],
        starts.ctypes.data,
        len(starts),
        0,
        features,
        out.ctypes.data,
    )
    np.testing.assert_array_equal(from_tiles(out)[: len(starts)], x[starts])
    assert not from_tiles(out)[len(starts) :].any()


@pytest.mark.parametrize("name", ("norm", "norm_i32"))
def test_a_token_does_not_depend_on_the_others_of_its_tile(name):
    features, rng = 70, np.random.default_rng(0)
    x = rng.integers(-999, 999, (32, features)).astype(np.int32 if name == "norm_i32" else np.float32)
    weight, bias, other = keep(normal(1, features)), keep(normal(2, features)), to_tiles(normal(3, 32, features), 32)
    found = []
    for filler in (0, 7):
        x[16:] = filler
        tiles, out = to_tiles(x, 32, 0), aligned((1, features, 32))
        scale = [np.float32(0.01)] if name == "norm_i32" else []
        parameters = other.ctypes.data, weight.ctypes.data, bias.ctypes.data, np.float32(1e-12), features
        getattr(pointwise, name)(Kind(32), tiles.ctypes.data, *scale, *parameters, out.ctypes.data)
        found.append(from_tiles(out)[:16])
    np.testing.assert_array_equal(*found)


@pytest.mark.slow
@pytest.mark.skipif(CHECKED, reason="this is the run with checks")
def test_no_kernel_reaches_beyond_its_arrays():
    environment = {**os.environ, "OBERT_SPARSE_BOUNDS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not activations", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
