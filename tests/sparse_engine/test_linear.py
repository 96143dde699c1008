"""The float32 linear layer against NumPy in float64, over shapes, masks, kinds and ranges of rows."""

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obert.sparse.kernels.arrays import aligned, keep
from obert.sparse.kernels.bounds import OutOfBounds, raise_if_violated
from obert.sparse.kernels.linear import linear
from obert.sparse.kernels.packing import ROW, PackedLinear
from obert.sparse.kernels.processor import FEATURES
from obert.sparse.kernels.vectors import Kind

LANES = (16, 32, 64)
UNTOUCHED = np.float32(-7.25)
LAYERS = {
    "rows": st.integers(1, 220),
    "columns": st.integers(1, 300),
    "sparsity": st.sampled_from((0.0, 0.05, 0.3, 0.8, 0.9, 0.97, 1.0)),
    "width": st.sampled_from((1, 4)),
    "empty": st.sampled_from((0.0, 0.0, 0.3, 0.9)),
    "seed": st.integers(0, 1000),
    "lanes": st.sampled_from(LANES),
}


def layer(rows, columns, sparsity, width, empty, seed):
    """Values and bias; zeros in groups of `width` columns, and in a share of whole rows and columns."""
    rng = np.random.default_rng(seed)
    kept = np.repeat(rng.random((rows, -(-columns // width))) >= sparsity, width, axis=1)[:, :columns]
    kept &= (rng.random((rows, 1)) >= empty) & (rng.random(columns) >= empty)
    return normal(rng, rows, columns) * kept, normal(rng, rows)


def normal(rng, *shape):
    return rng.standard_normal(shape, np.float32)


def multiply(packed, x, rows, residual=None, blocks=None):
    """Row blocks first to last (all, if not said) of a product."""
    x, out = keep(x), aligned((rows, x.shape[1]))
    out[:] = UNTOUCHED
    added = None if residual is None else keep(residual)
    address = 0 if added is None else added.ctypes.data
    blocks = blocks or (0, packed.blocks)
    linear(Kind(x.shape[1]), packed.address, x.ctypes.data, address, out.ctypes.data, *blocks)
    raise_if_violated()
    return out


def assert_near(found, values, bias, x, residual):
    """Within the bound of rounding errors of a sum in any order."""
    terms = np.hstack([values, bias[:, None]]).astype(np.float64), np.vstack([x, np.ones((1, x.shape[1]))])
    exact, size = terms[0] @ terms[1], np.abs(terms[0]) @ np.abs(terms[1])
    if residual is not None:
        exact, size = exact + residual, size + np.abs(residual)
    assert np.all(np.abs(found - exact) <= (len(x) + 3) * 2.0**-24 * size)


@settings(max_examples=150, deadline=None)
@given(**LAYERS, has_residual=st.booleans(), threads=st.sampled_from((1, 2, 8)))
def test_a_layer_is_that_of_float64(rows, columns, sparsity, width, empty, seed, lanes, has_residual, threads):
    values, bias = layer(rows, columns, sparsity, width, empty, seed)
    rng = np.random.default_rng(seed)
    x, residual = normal(rng, columns, lanes), normal(rng, rows, lanes) if has_residual else None
    packed = PackedLinear(values, bias, threads)
    assert_near(multiply(packed, x, rows, residual), values, bias, x, residual)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("sparsity", [0.0, 0.9])
@pytest.mark.parametrize("rows", [768, 850])
def test_ranges_of_rows_are_parts_of_the_whole(lanes, sparsity, rows):
    values, bias = layer(rows, 200, sparsity, 1, 0.1, 0)
    rng = np.random.default_rng(1)
    x, residual = normal(rng, 200, lanes), normal(rng, rows, lanes)
    packed = PackedLinear(values, bias, threads=8)
    whole = multiply(packed, x, rows, residual)
    assert packed.blocks == 8
    cuts = [0, 1, 3, packed.blocks]
    np.testing.assert_array_equal(whole, multiply(PackedLinear(values, bias, threads=1), x, rows, residual))
    seen = 0
    for blocks in pairwise(cuts):
        part = multiply(packed, x, rows, residual, blocks)
        touched = (part != UNTOUCHED).all(1)
        np.testing.assert_array_equal(part[touched], whole[touched])
        assert not touched[:seen].any() and touched[seen : seen + touched.sum()].all()
        seen += touched.sum()
    assert seen == rows


@settings(max_examples=60, deadline=None)
@given(**LAYERS, bad=st.sampled_from((np.inf, -np.inf, np.nan)))
def test_an_infinite_activation_counts_as_in_a_dense_product(rows, columns, sparsity, width, empty, seed, lanes, bad):
    values, bias = layer(rows, columns, sparsity, width, empty, seed)
    rng = np.random.default_rng(seed)
    x = normal(rng, columns, lanes)
    x[rng.integers(columns), rng.integers(lanes)] = bad
    found = multiply(PackedLinear(values, bias), x, rows)
    with np.errstate(invalid="ignore"):
        dense = values.astype(np.float64) @ x + bias[:, None]
    wrong = ~np.isfinite(dense)
    assert wrong.any(0).sum() == 1 and wrong.any(1).all()
    np.testing.assert_array_equal(np.isfinite(found), ~wrong)
    assert np.isnan(found[np.isnan(dense)]).all()
    if values.all():
        np.testing.assert_array_equal(found[wrong], dense[wrong].astype(np.float32))


def test_a_packed_layer_is_as_small_as_its_nonzeros():
    values, bias = layer(768, 768, 0.9, 1, 0.0, 0)
    assert PackedLinear(values, bias).nbytes < 7 * np.count_nonzero(values)
    assert PackedLinear(values + 100, bias).nbytes < 4.1 * values.size


@pytest.mark.slow
def test_a_layer_of_bert_base_is_packed_at_once():
    layers = [layer(*shape, 0.8, 1, 0.0, 0) for shape in ((2304, 768), (768, 768), (3072, 768), (768, 3072))]
    begin = time.perf_counter()
    for values, bias in layers:
        PackedLinear(values, bias)
    assert time.perf_counter() - begin < 1


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("rows", range(1, 10))
def test_a_layer_without_zeros_keeps_infinity(rows, lanes):
    run_infinite(rows, lanes)


def run_infinite(rows, lanes):
    values, bias = np.ones((rows, 500), np.float32), np.ones(rows, np.float32)
    x = np.ones((500, lanes), np.float32)
    x[::250, 3] = np.inf
    found = multiply(PackedLinear(values, bias), x, rows)
    assert np.isposinf(found[:, 3]).all() and np.isfinite(np.delete(found, 3, 1)).all()


def run_checked(lanes):
    """What `test_no_address_is_wrong` runs."""
    rng = np.random.default_rng(0)
    for rows, columns, sparsity in ((1, 1, 0.0), (7, 5, 1.0), (101, 131, 0.8), (9, 300, 0.97), (50, 140, 0.0)):
        values, bias = layer(rows, columns, sparsity, 1, 0.1 if sparsity else 0, 0)
        x, residual = normal(rng, columns, lanes), normal(rng, rows, lanes)
        assert_near(multiply(PackedLinear(values, bias), x, rows, residual), values, bias, x, residual)
    for rows in range(1, 6):
        run_infinite(rows, lanes)
    packed = PackedLinear(*layer(8, 8, 0.5, 1, 0.0, 0))
    offsets = packed._arrays[1]
    offsets[-1] = 8 * ROW  # the row behind the last
    with pytest.raises(OutOfBounds):
        multiply(packed, normal(rng, 8, lanes), 8)


@pytest.mark.parametrize("processor", ["", "haswell", "znver3"])
def test_no_address_is_wrong(processor):
    """Also with the instructions of processors that have half the registers, with and without spare shuffles."""
    here = Path(__file__).parent
    environment = {**os.environ, "OBERT_SPARSE_BOUNDS": "1", "PYTHONPATH": f"{here.parents[1]}:{here}"}
    if processor:
        if not {"avx2", "fma"} <= FEATURES:
            pytest.skip("this processor has no AVX2")
        environment |= {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+bmi,+bmi2"}
    code = "import test_linear, obert.sparse.kernels.processor as p; test_linear.run_checked(p.lanes())"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
