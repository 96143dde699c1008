"""Attention in 8 bits against the integer graph in int64 and float64, over shapes, places, masks and zero points."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiles import from_tiles

from obert.sparse.kernels.arrays import aligned, keep
from obert.sparse.kernels.attention8 import attention8, attention_table, scratch_bytes
from obert.sparse.kernels.bounds import CHECKED, raise_if_violated
from obert.sparse.kernels.dots import BYTES
from obert.sparse.kernels.vectors import Kind
from obert.sparse.program import Attention, Rounding

MASKED = np.float32(np.finfo(np.float32).min)
LANES = (32,) if CHECKED else (16, 32, 64)  # with checks nothing is compiled in advance
SETTINGS = settings(max_examples=15 if CHECKED else 100, deadline=None)
TIE = 1e-4  # of a unit of the probabilities: rounding may go either way
PRECISION = 2.0**-22  # of a float32 score with something added, as the graph has it too


def operation(head_size, points=(0, 0, 0, 0), units=(0.02, 0.03, 1 / 255, 0.01)):
    """An attention with zero points and scales of query, key, probabilities and value."""
    roundings = tuple(Rounding(np.float32(unit), int(point)) for unit, point in zip(units, points, strict=True))
    return Attention("out", "q", "k", "v", 1, np.float32(head_size**-0.5), roundings)


def to_activations(values, lanes, zero_point):
    """[tokens, features] as `quantize` writes them; the features beyond the last are none of the heads'."""
    values = np.pad(values, ((0, -len(values) % lanes), (0, -values.shape[1] % 4)), constant_values=77)
    if BYTES:
        order, typ = (-1, lanes, values.shape[1] // 4, 4), np.uint8
        values = values.reshape(order).transpose(0, 2, 1, 3)
    else:
        order, typ = (-1, lanes, values.shape[1] // 4, 2, 2), np.int16
        values = (values - zero_point).reshape(order).transpose(0, 2, 3, 1, 4)
    return keep(values, typ)


def from_activations(tiles):
    """[tokens, features] of what `to_activations` gives; less the zero point where that does so."""
    order = (0, 2, 1, 3) if BYTES else (0, 3, 1, 2, 4)
    return tiles.transpose(order).reshape(-1, tiles.shape[1] * 4).astype(np.int64)


def attend(op, operands, heads, start, lanes, mask=None, filler=0, chunk=None, rounding=None):
    """Context [keys, heads * head_size] of a sequence: operands are its integers, [tokens, heads * head_size].

    It is float32, or, told how to round it, integers with their zero point. What surrounds the sequence and the scratch
    memory, hold the filler.
    """
    keys, features = operands[0].shape
    head_size = features // heads
    columns = -(-keys // 16) * 16
    streams = []
    for number, values in zip((0, 1, 3), operands, strict=True):
        stream = np.full((start + columns + 16, features), filler)
        stream[start : start + keys] = values
        streams.append(to_activations(stream, lanes, op.roundings[number].zero_point))
    shape = (len(streams[0]), features, lanes) if rounding is None else streams[0].shape
    context = aligned(shape, np.float32 if rounding is None else streams[0].dtype)
    scratch = aligned(scratch_bytes(keys, head_size), np.uint8)
    scratch[:] = filler
    table = attention_table(op, rounding)
    added = None if mask is None else keep(mask, np.float32)
    for head in range(heads):
        for first in range(0, columns, chunk or columns):
            attention8(
                Kind(lanes, True),
                *(stream.ctypes.data for stream in streams),
                streams[0].strides[0],
                start,
                keys,
                first,
                min(columns, first + (chunk or columns)),
                head,
                head_size,
                0 if mask is None else added.ctypes.data,
                table.ctypes.data,
                scratch.ctypes.data,
                context.ctypes.data,
                context.strides[0],
            )
    raise_if_violated()
    found = from_tiles(context) if rounding is None else from_activations(context)
    assert not found[:start].any() and not found[start + columns :].any()
    return found[start : start + keys] + (0 if rounding is None or BYTES else rounding.zero_point)


def graph(op, operands, heads, mask=None):
    """Context of the integer graph, and how far it may be off, where a probability is near a tie."""
    rounded = zip((0, 1, 3), operands, strict=True)
    q, k, v = (
        (values.astype(np.int64) - op.roundings[number].zero_point).reshape(len(values), heads, -1).swapaxes(0, 1)
        for number, values in rounded
    )
    query, key, shares, value = op.roundings
    scores = (q @ k.swapaxes(1, 2)) * float(query.scale * key.scale) * float(op.scale)
    if mask is not None:
        scores = scores.astype(np.float32) + mask if (mask < -1e30).all() else scores + mask.astype(np.float64)
    numerators = np.exp(scores - scores.max(2, keepdims=True))
    exact = numerators / numerators.sum(2, keepdims=True) / float(shares.scale)
    low, high = -shares.zero_point, 255 - shares.zero_point
    integers = np.clip(np.rint(exact), low, high).astype(np.int64)
    near = TIE
    if mask is not None and ((mask != 0) & (mask != MASKED)).any():
        near = TIE + exact * np.abs(scores).max(where=mask > -1e30, initial=0) * PRECISION
    unsure = (np.abs(exact - np.floor(exact) - 0.5) < near) & (exact < high + 1)
    unit = shares.scale * value.scale
    context = (integers @ v).astype(np.float32) * unit
    slack = (unsure.astype(np.int64) @ np.abs(v)) * float(unit)
    return tuple(x.swapaxes(0, 1).reshape(len(operands[0]), -1) for x in (context, slack))


def check(found, expected, slack):
    sure = slack == 0
    np.testing.assert_array_equal(found[sure], expected[sure])
    assert (np.abs(found - expected) <= slack * 1.001).all()


def integers(rng, spread, *shape):
    """uint8, all of them, the extremes alone, or those around one of them, as their spread is."""
    if spread == "extreme":
        return rng.choice([0, 255], shape)
    if spread == "near":
        return np.clip(rng.integers(-3, 4, shape) + rng.integers(0, 256), 0, 255)
    return rng.integers(0, 256, shape)


@SETTINGS
@given(
    lanes=st.sampled_from(LANES),
    head_size=st.sampled_from((1, 3, 8, 10, 16, 32, 64, 67)),
    heads=st.integers(1, 3),
    start=st.integers(0, 4),
    keys=st.integers(1, 150),
    masked=st.sampled_from((None, None, 0.0, 0.3, 0.9, 1.0)),
    spread=st.sampled_from(("all", "extreme", "near")),
    points=st.tuples(*[st.sampled_from((0, 1, 100, 128, 255))] * 4),
    share=st.sampled_from((1 / 255, 0.0017, 0.00017, 0.02)),
    seed=st.integers(0, 1000),
)
def test_attention_is_that_of_the_integer_graph(
    lanes, head_size, heads, start, keys, masked, spread, points, share, seed
):
    rng = np.random.default_rng(seed)
    operands = [integers(rng, spread, keys, heads * head_size) for _ in range(3)]
    # Scores of a spread at which many keys have probabilities that count, so that a unit of a product shows.
    size = 3 if spread == "near" else 150
    op = operation(head_size, points, (1 / size, 1 / size, share, 0.01))
    mask = None
    if masked is not None:
        mask = np.where(rng.random(keys) < masked, MASKED, rng.integers(-2, 1, keys)).astype(np.float32)
    found = attend(op, operands, heads, 16 * start, lanes, mask, filler=int(rng.integers(256)))
    check(found, *graph(op, operands, heads, mask))


@pytest.mark.parametrize("points", ((0, 0, 0, 0), (255, 255, 255, 255), (0, 255, 255, 0), (128, 127, 3, 129)))
def test_products_of_long_sequences_are_exact(points):
    """Sums here are beyond 2 ** 24, and keys differ by one unit in one of 160 features."""
    keys, head_size = 600, 160
    operands = [np.full((keys, head_size), 255 if points[0] < 200 else 0) for _ in range(3)]
    operands[1][::3, 5] -= 1 if points[0] < 200 else -1
    operands[2] = np.random.default_rng(0).integers(0, 256, (keys, head_size))
    op = operation(head_size, points, (0.1, 0.1, 0.0001, 0.01))
    check(attend(op, operands, 1, 16, 32), *graph(op, operands, 1))


@SETTINGS
@given(
    lanes=st.sampled_from(LANES),
    start=st.integers(0, 4),
    keys=st.integers(1, 100),
    head_size=st.sampled_from((10, 32)),
    chunk=st.sampled_from((16, 32, 48)),
)
def test_neither_place_nor_padding_nor_masked_keys_change_a_bit(lanes, start, keys, head_size, chunk):
    rng = np.random.default_rng(keys)
    operands = [rng.integers(0, 256, (keys, head_size)) for _ in range(3)]
    op = operation(head_size, rng.integers(0, 256, 4))
    expected = attend(op, operands, 1, 0, 32)
    np.testing.assert_array_equal(attend(op, operands, 1, 16 * start, lanes, filler=255), expected)
    np.testing.assert_array_equal(attend(op, operands, 1, 16 * start, lanes, chunk=chunk), expected)
    np.testing.assert_array_equal(attend(op, operands, 1, 0, lanes, np.zeros(keys)), expected)
    before = [np.concatenate([rng.integers(0, 256, (20, head_size)), values]) for values in operands]
    mask = np.where(np.arange(keys + 20) < 20, MASKED, np.float32(0))
    np.testing.assert_array_equal(attend(op, before, 1, 0, lanes, mask)[20:], expected)
    behind = [np.concatenate([values, rng.integers(0, 256, (20, head_size))]) for values in operands]
    np.testing.assert_array_equal(attend(op, behind, 1, 0, lanes, mask[::-1])[:keys], expected)


@pytest.mark.parametrize("keys", range(1, 9))
def test_what_stands_behind_the_last_key_counts_for_nothing_however_great_its_score(keys):
    rng = np.random.default_rng(keys)
    operands = [np.full((keys, 32), 255), rng.integers(0, 9, (keys, 32)), rng.integers(0, 256, (keys, 32))]
    op = operation(32, units=(0.02, 0.03, 1 / 255, 0.01))
    check(attend(op, operands, 1, 16, 32, filler=255), *graph(op, operands, 1))


@SETTINGS
@given(
    lanes=st.sampled_from(LANES),
    head_size=st.sampled_from((4, 12, 32, 64)),
    heads=st.integers(1, 3),
    start=st.integers(0, 4),
    keys=st.integers(1, 70),
    zero_point=st.sampled_from((0, 100, 255)),
    scale=st.sampled_from((1e-4, 0.01, 0.1)),
)
def test_the_next_layer_gets_the_context_as_it_rounds_it(lanes, head_size, heads, start, keys, zero_point, scale):
    rng = np.random.default_rng(keys)
    operands = [rng.integers(0, 256, (keys, heads * head_size)) for _ in range(3)]
    op, rounding = operation(head_size, (9, 90, 0, 120)), Rounding(np.float32(scale), zero_point)
    floats = attend(op, operands, heads, 16 * start, lanes)
    expected = np.clip(np.rint(floats * (np.float32(1) / rounding.scale)) + zero_point, 0, 255)
    np.testing.assert_array_equal(attend(op, operands, heads, 16 * start, lanes, rounding=rounding), expected)


@pytest.mark.parametrize("lanes", LANES)
def test_a_sequence_with_every_key_masked_attends_to_all_alike(lanes):
    rng = np.random.default_rng(0)
    operands = [rng.integers(0, 256, (25, 16)) for _ in range(3)]
    op = operation(16, (3, 200, 7, 90))
    found = attend(op, operands, 1, 16, lanes, np.full(25, MASKED))
    value = np.float32(op.roundings[2].scale * op.roundings[3].scale)
    np.testing.assert_array_equal(found, np.tile(np.float32(10 * (operands[2] - 90).sum(0)) * value, (25, 1)))


@pytest.mark.slow
@pytest.mark.skipif(CHECKED, reason="this is the run with checks")
def test_no_kernel_reaches_beyond_its_arrays():
    environment = {**os.environ, "OBERT_SPARSE_BOUNDS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
