"""Attention in float32 against NumPy in float64, over shapes, places in the stream, masks and kinds."""

import os
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tiles import from_tiles, to_tiles

from obert.sparse.kernels.arrays import aligned, keep
from obert.sparse.kernels.attention import attention, scratch_bytes
from obert.sparse.kernels.bounds import CHECKED
from obert.sparse.kernels.vectors import Kind

MASKED = np.float32(np.finfo(np.float32).min)
LANES = st.sampled_from((32,) if CHECKED else (16, 32, 64))
SETTINGS = settings(max_examples=5 if CHECKED else 60, deadline=None)


def attend(x, heads, head_size, start, keys, lanes, mask=None, filler=np.nan, chunk=None):
    """Context [keys, heads * head_size] of a sequence whose tokens are rows of x: query, key and value side by side.

    What surrounds the sequence, and the scratch memory, hold the filler.
    """
    columns = -(-keys // 16) * 16
    stream = np.full((start + columns + 16, x.shape[1]), filler, np.float32)
    stream[start : start + keys] = x
    tiles = to_tiles(stream, lanes, filler)
    context = aligned((len(tiles), heads * head_size, lanes))
    scratch = aligned(scratch_bytes(keys, head_size) // 4)
    scratch[:] = filler
    added = None if mask is None else keep(mask)
    head = head_size * lanes * 4
    for number in range(heads):
        for first in range(0, columns, chunk or columns):
            attention(
                Kind(lanes),
                *(tiles.ctypes.data + (part * heads + number) * head for part in range(3)),
                tiles.strides[0],
                start,
                keys,
                first,
                min(columns, first + (chunk or columns)),
                head_size,
                0 if mask is None else added.ctypes.data,
                np.float32(head_size**-0.5),
                scratch.ctypes.data,
                context.ctypes.data + number * head,
                context.strides[0],
            )
    found = from_tiles(context)
    assert not found[:start].any() and not found[start + columns :].any()
    return found[start : start + keys]


def exact(x, heads, head_size, mask=None):
    q, k, v = (part.reshape(len(x), heads, head_size) for part in np.split(x.astype(np.float64), 3, axis=1))
    scores = np.einsum("qhd,khd->hqk", q, k) * head_size**-0.5
    if mask is not None:
        scores = scores + mask
    numerators = np.exp(scores - scores.max(2, keepdims=True))
    probabilities = numerators / numerators.sum(2, keepdims=True)
    return np.einsum("hqk,khd->qhd", probabilities, v).reshape(len(x), -1)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@SETTINGS
@given(
    lanes=LANES,
    head_size=st.sampled_from((1, 8, 16, 20, 32, 64, 67)),
    heads=st.integers(1, 2),
    start=st.integers(0, 4),
    keys=st.integers(1, 150),
    masked=st.sampled_from((None, 0.0, 0.3, 0.9)),
    size=st.sampled_from((0.1, 1.0, 5.0)),
    seed=st.integers(0, 1000),
)
def test_attention_is_that_of_float64(lanes, head_size, heads, start, keys, masked, size, seed):
    x = normal(seed, keys, 3 * heads * head_size) * np.float32(size)
    mask = None
    if masked is not None:
        rng = np.random.default_rng(seed)
        mask = np.where(rng.random(keys) < masked, MASKED, rng.random(keys)).astype(np.float32)
        mask[rng.integers(keys)] = 0
    found = attend(x, heads, head_size, start * 16, keys, lanes, mask)
    np.testing.assert_allclose(found, exact(x, heads, head_size, mask), rtol=0, atol=4e-6 * size * max(1, size**2))


@SETTINGS
@given(
    lanes=LANES,
    start=st.integers(0, 4),
    keys=st.integers(1, 100),
    head_size=st.sampled_from((16, 32)),
)
def test_neither_place_nor_padding_nor_masked_keys_change_a_bit(lanes, start, keys, head_size):
    x = normal(keys, keys, 3 * head_size)
    expected = attend(x, 1, head_size, 0, keys, 32, filler=0)
    np.testing.assert_array_equal(attend(x, 1, head_size, 16 * start, keys, lanes), expected)
    np.testing.assert_array_equal(attend(x, 1, head_size, 16 * start, keys, lanes, chunk=16), expected)
    mask = np.concatenate([np.zeros(keys), np.full(20, MASKED)]).astype(np.float32)
    longer = np.concatenate([x, normal(keys + 1, 20, x.shape[1])])
    np.testing.assert_array_equal(attend(longer, 1, head_size, 0, keys + 20, lanes, mask)[:keys], expected)


@pytest.mark.parametrize("lanes", (32,) if CHECKED else (16, 32, 64))
def test_a_sequence_with_every_key_masked_attends_to_all_alike(lanes):
    x = normal(0, 21, 48)
    found = attend(x, 1, 16, 16, 21, lanes, np.full(21, MASKED))
    np.testing.assert_allclose(found, np.broadcast_to(x[:, 32:].mean(0), (21, 16)), atol=1e-6)


@pytest.mark.parametrize("place", ("query", "key", "value"))
@pytest.mark.parametrize("value", (np.nan, np.inf, -np.inf))
def test_infinities_and_nan_spread_as_in_onnx_runtime(place, value):
    x = np.abs(normal(3, 20, 48))
    x[4, ("query", "key", "value").index(place) * 16 + 3] = value
    found = attend(x, 1, 16, 0, 20, 32)
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["y"]),
    ]
    q, k, v = np.split(x, 3, axis=1)
    inputs = {"q": q / 4, "k": np.ascontiguousarray(k.T), "v": v}
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [20, 16])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(found, session.run(None, inputs)[0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(CHECKED, reason="this is the run with checks")
def test_no_kernel_reaches_beyond_its_arrays():
    environment = {**os.environ, "OBERT_SPARSE_BOUNDS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "float64 or bit", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
