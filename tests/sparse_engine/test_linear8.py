"""The 8-bit linear layer against exact integers, and rounding against ONNX Runtime, on each kind of processor."""

import os
import subprocess
import sys
from itertools import pairwise
from math import erf
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import onnxruntime
import pytest
from exact8 import (
    LANES,
    UNTOUCHED,
    activations,
    check_layers,
    check_rounding,
    exact,
    layer,
    multiply,
    rounded,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from obert.sparse.kernels.packing8 import PackedLinear8

HERE = Path(__file__).parent
# What a processor is called, what it can do, how it multiplies, and the instruction and registers that it does it by.
PROCESSORS = {
    "vnni512": ("cascadelake", "+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512vnni,+avx2,+fma", "vpdpbusd", "%zmm"),
    "vnni256": ("alderlake", "+avxvnni,+avx2,+fma", "vpdpbusd", "%ymm"),
    "pmaddwd": ("haswell", "+avx2,+fma", "vpmaddwd", "%ymm"),
    "plain": ("x86-64", "+sse2", "pmullw", "%xmm"),
}
HOST = {name for name, has in llvm.get_host_cpu_features().items() if has}
COMPILED = """
from numba.core import types
from obert.sparse.kernels import dots
from obert.sparse.kernels.linear8 import linear8
from obert.sparse.kernels.vectors import Kind, KindType
print(dots.DOT)
linear8.compile((KindType(32, True), *[types.int64] * 5))
print(*linear8.inspect_asm().values())
"""


def run(*arguments, **environment):
    """What a Python program prints, where kernels are compiled for another processor."""
    paths = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    environment = {**os.environ, "PYTHONPATH": paths, **environment}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 300),
    columns=st.one_of(st.integers(1, 300), st.sampled_from((767, 768, 769, 1540))),
    sparsity=st.sampled_from((0.0, 0.05, 0.5, 0.8, 0.9, 0.97, 1.0)),
    width=st.sampled_from((1, 4)),
    empty=st.sampled_from((0.0, 0.0, 0.3, 0.9)),
    seed=st.integers(0, 1000),
    zero_point=st.integers(0, 255),
    lanes=st.sampled_from(LANES),
)
def test_a_layer_is_that_of_exact_integers(rows, columns, sparsity, width, empty, seed, zero_point, lanes):
    tested = layer(rows, columns, sparsity, width, empty, seed, zero_point)
    x = activations(seed, columns, lanes)
    np.testing.assert_array_equal(multiply(PackedLinear8(tested), x, zero_point, rows), exact(tested, x))


def test_many_shapes_and_the_limits_of_8_bits():
    check_layers(1)
    check_rounding()


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("columns", [300, 900])
@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_ranges_of_rows_are_parts_of_the_whole(lanes, columns, sparsity):
    tested = layer(850, columns, sparsity, zero_point=9)
    packed, x = PackedLinear8(tested), activations(0, columns, lanes)
    whole = exact(tested, x)
    assert packed.blocks >= 5
    seen = 0
    for blocks in pairwise((0, 1, 3, packed.blocks)):
        part = multiply(packed, x, 9, 850, blocks)
        touched = (part != UNTOUCHED).all(1)
        np.testing.assert_array_equal(part[touched], whole[touched])
        np.testing.assert_array_equal(part[~touched], UNTOUCHED)
        seen += touched.sum()
    assert seen == 850


def test_a_packed_layer_is_as_small_as_its_blocks():
    tested = layer(768, 768, 0.9)
    blocks = (tested.values.reshape(768, -1, 4) != 0).any(2).sum()
    assert PackedLinear8(tested).nbytes < 7 * blocks
    assert PackedLinear8(layer(768, 768, 0.0)).nbytes < 5.1 * 768 * 768 / 4


@pytest.mark.parametrize("dot", ["pmaddwd", "plain"])
def test_each_way_to_multiply_is_exact(dot):
    name, features, *_ = PROCESSORS[dot]
    if dot == "pmaddwd" and not {"avx2", "fma"} <= HOST:
        pytest.skip("this processor has no AVX2")
    assert run(str(HERE / "exact8.py"), NUMBA_CPU_NAME=name, NUMBA_CPU_FEATURES=features).split() == [dot]


@pytest.mark.skipif("avx512vnni" not in HOST and "avxvnni" not in HOST, reason="this processor has no VNNI")
def test_vnni_in_narrow_registers_is_exact(tmp_path):
    narrow = "from obert.sparse.kernels import processor; processor.dot = 'vnni256'; import runpy; "
    narrow += "runpy.run_module('exact8', run_name='__main__')"
    assert run("-c", narrow, NUMBA_CACHE_DIR=str(tmp_path)).split() == ["vnni256"]


def test_no_kernel_reaches_for_memory_that_is_not_the_engines():
    run(str(HERE / "exact8.py"), OBERT_SPARSE_BOUNDS="1")


@pytest.mark.parametrize("dot", PROCESSORS)
def test_processors_multiply_by_the_instruction_that_they_have(dot, tmp_path):
    name, features, instruction, register = PROCESSORS[dot]
    processor = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    # In a cache of its own: Numba does not show the instructions of what it finds compiled.
    found, _, code = run("-c", COMPILED, NUMBA_CACHE_DIR=str(tmp_path), **processor).partition("\n")
    assert found == dot
    used = [line for line in code.splitlines() if instruction in line]
    assert used and all(register in line for line in used)


def quantized_by_onnx(x, scale, zero_point):
    """uint8, as integers, of ONNX Runtime's QuantizeLinear."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.UINT8, ["n"])]
    constants = [
        helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]),
        helper.make_tensor("zero", TensorProto.UINT8, [], [zero_point]),
    ]
    nodes = [helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])]
    graph = helper.make_graph(nodes, "rounding", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x.ravel()})[0].astype(np.int64).reshape(x.shape)


@pytest.mark.parametrize("zero_point", [0, 1, 100, 255])
@pytest.mark.parametrize("lanes", LANES)
def test_rounding_is_that_of_onnx_runtime(zero_point, lanes):
    rng = np.random.default_rng(zero_point)
    x = (rng.standard_normal((37, lanes)) * 40).astype(np.float32)
    x[3] = rng.integers(-1000, 1000, lanes) * np.float32(0.125)  # ties
    x[5, :6] = np.inf, -np.inf, np.nan, 3e38, -3e38, -np.nan
    np.testing.assert_array_equal(rounded("quantize", x, 1, 4, zero_point), quantized_by_onnx(x, 0.25, zero_point))


def near(found, real, allowed):
    """Whether integers are what a real number is rounded to, or would be if it were as much as `allowed` off."""
    low, high = (np.clip(np.rint(real + off), 0, 255) for off in (-allowed, allowed))
    return (low <= found) & (found <= high)


@settings(max_examples=60, deadline=None)
@given(
    scale=st.floats(2.0**-10, 10, width=32),
    zero_point=st.integers(0, 255),
    seed=st.integers(0, 99),
    size=st.floats(0.1, 9),
)
def test_other_scales_differ_from_onnx_runtime_only_at_ties(scale, zero_point, seed, size):
    x = (np.random.default_rng(seed).standard_normal((9, 16)) * size * 100 * scale).astype(np.float32)
    found = rounded("quantize", x, 1, np.float32(1) / np.float32(scale), zero_point)
    differ = found != quantized_by_onnx(x, scale, zero_point)
    real = x / np.float64(np.float32(scale))
    assert near(found, real + zero_point, 1e-6 * np.abs(real))[differ].all()


@pytest.mark.parametrize("kind", ["scaled", "gelu", "relu"])
@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("features", [1, 6, 64])
def test_integers_are_scaled_activated_and_rounded(kind, lanes, features):
    rng = np.random.default_rng(features)
    for scale, step, zero_point in ((1e-3, 0.03, 6), (0.02, 0.5, 0), (3e-5, 0.004, 44), (1e-3, 1e-3, 255)):
        x = rng.integers(-12_000, 12_000, (features, lanes)).astype(np.int32)
        x[0, :8] = 0, 1, -1, 2**24, -(2**24), 2**31 - 1, -(2**31), 7
        inverse = np.float32(1) / np.float32(step)
        real = x.astype(np.float64) * np.float64(np.float32(scale))
        if kind == "gelu":
            real = np.array([[v * (1 + erf(v / np.sqrt(2))) / 2 for v in row] for row in real])
        elif kind == "relu":
            real = np.maximum(real, 0)
        found = rounded(kind, x, scale, inverse, zero_point)
        allowed = (1e-6 + 4e-7 * np.abs(real)) * np.float64(inverse)
        assert near(found, real * np.float64(inverse) + zero_point, allowed).all()
