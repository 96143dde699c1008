"""Engines whose products of uint8 and int8 saturate in 16 bits, as VPMADDUBSW does: they are found out, or mended."""

import logging

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from obert.engines import Engine, EngineError, ModelFiles, _integer_products
from obert.engines import onnxruntime as engine_file
from obert.engines._unsigned_weights import to_unsigned
from obert.engines.onnxruntime import OnnxRuntime


class MatMulInteger(OpRun):
    """Neighbouring products of uint8 and int8 are added in 16 bits; everything else is exact."""

    op_domain = ""

    def _run(self, a, b, a_zero_point=0, b_zero_point=0):
        (wide_a, wide_b), (a_zero_point, b_zero_point) = (
            [np.int64(one) for one in two] for two in ((a, b), (a_zero_point, b_zero_point))
        )
        if a.dtype == np.uint8 and b.dtype == np.int8:
            products = wide_a[:, :, None] * wide_b[None]  # [rows, inner, columns]
            product = np.clip(products[:, ::2] + products[:, 1::2], -(2**15), 2**15 - 1).sum(1)
        else:
            product = wide_a @ wide_b
        # The zero points are taken into account by sums of rows and columns, which do not saturate.
        left = wide_a.sum(1, keepdims=True) * b_zero_point
        right = a_zero_point * (wide_b - b_zero_point).sum(0, keepdims=True)
        return ((product - left - right).astype(np.int32),)


class Session:
    """A session on a processor with AVX2 and without VNNI."""

    def __init__(self, source, options, providers):
        self.model = onnx.load_from_string(source) if isinstance(source, bytes) else onnx.load(source)
        self.evaluator = ReferenceEvaluator(self.model, new_ops=[MatMulInteger])

    def run(self, outputs, inputs):
        return self.evaluator.run(outputs, inputs)

    def get_inputs(self):
        return self.model.graph.input


@pytest.fixture
def without_vnni(monkeypatch):
    """ONNX Runtime as it multiplies there."""
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    caches = engine_file._saturates, OnnxRuntime.integer_product_error.__func__
    for found in caches:
        found.cache_clear()
    yield
    for found in caches:
        found.cache_clear()


def saturating():
    """An engine of a class of its own, as what is found is kept by class."""

    class Saturating(Engine):
        label = "Saturating"
        library = "json"
        loaded = 0

        def __init__(self, model, threads):
            type(self).loaded += 1
            self.session = Session(model.onnx, None, None)

        def run(self, inputs):
            return self.session.run(None, inputs)

        def threads(self):
            return 1

    return Saturating


def layer(weight, zero_point=None, weight_zero_point=None, extra=()):
    """One MatMulInteger of x [rows, inner] in uint8 and a constant weight."""
    weight = np.asarray(weight)
    constants = {"w": weight, "x_zero": zero_point, "w_zero": weight_zero_point}
    constants = {name: np.asarray(value) for name, value in constants.items() if value is not None}
    inputs = ["x", "w", *(name if name in constants else "" for name in ("x_zero", "w_zero"))]
    while not inputs[-1]:
        inputs.pop()
    nodes = [helper.make_node("MatMulInteger", inputs, ["y"], "product"), *extra]
    outputs = [helper.make_tensor_value_info("y", TensorProto.INT32, ["rows", weight.shape[1]])]
    outputs += [helper.make_tensor_value_info(n.output[0], TensorProto.INT8, None) for n in extra]
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, ["rows", weight.shape[0]])
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "made_up", [x], outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def files(model, folder):
    onnx.save(model, folder / "model.onnx")
    return ModelFiles(folder / "model.onnx", folder, None)


def test_saturation_by_hand():
    """255 * 127 + 255 * 127 = 64770 becomes 32767; with zero point 5, 5 * (127 + 127) = 1270 is taken off exactly."""
    x = np.uint8([[255, 255]])
    model = layer(np.int8([[127], [127]]), np.uint8(5))
    assert ReferenceEvaluator(model, new_ops=[MatMulInteger]).run(None, {"x": x})[0].tolist() == [[32767 - 1270]]
    to_unsigned(model.graph)
    assert ReferenceEvaluator(model, new_ops=[MatMulInteger]).run(None, {"x": x})[0].tolist() == [[64770 - 1270]]


def test_an_exact_runtime_has_no_error():
    model = _integer_products.graph()
    onnx.checker.check_model(model, full_check=True)
    assert _integer_products.largest_error(lambda inputs: ReferenceEvaluator(model).run(None, inputs)) == 0


@pytest.mark.parametrize(("output", "by"), [(0, 1), (0, -1), (1, 1)])
def test_one_wrong_integer_is_an_error(output, by):
    evaluator = ReferenceEvaluator(_integer_products.graph())

    def run(inputs):
        outputs = [found.copy() for found in evaluator.run(None, inputs)]
        outputs[output][-1, -1] += by
        return outputs

    assert _integer_products.largest_error(run) == 1


def test_an_engine_that_saturates_is_refused_for_integer_graphs_alone(tmp_path):
    engine = saturating()
    assert engine.integer_product_error() > 1_000_000
    integer = files(layer(np.int8([[1]])), tmp_path)
    reason = engine.unfit_reason(integer)
    assert reason.startswith("Saturating's products of 8-bit integers are wrong on this processor, by up to ")
    assert f"{engine.integer_product_error():,}" in reason
    assert engine.loaded == 1, "once a process is enough"

    graph = onnx.load(integer.onnx)
    graph.graph.node[0].op_type = "MatMul"
    engine = saturating()
    assert engine.unfit_reason(files(graph, tmp_path)) is None
    assert engine.loaded == 0


def test_an_engine_that_cannot_be_checked_is_refused(tmp_path):
    class Broken(saturating()):
        def run(self, inputs):
            raise EngineError("the worker ended\nand wrote this last")

    reason = Broken.unfit_reason(files(layer(np.int8([[1]])), tmp_path))
    assert reason == "Saturating's products of 8-bit integers could not be checked: the worker ended"


def test_a_file_that_cannot_be_read_is_left_to_the_engine(tmp_path):
    (tmp_path / "model.onnx").write_text("notes")
    assert OnnxRuntime.unfit_reason(ModelFiles(tmp_path / "model.onnx", tmp_path, None)) is None


def test_onnx_runtime_is_given_an_exact_form_where_it_saturates(without_vnni, tmp_path, caplog):
    generator = np.random.default_rng(0)
    x = generator.integers(200, 256, (4, 64)).astype(np.uint8)
    weight = generator.integers(100, 128, (64, 3)).astype(np.int8)
    model = layer(weight, np.uint8(7), np.int8(0))
    given = files(model, tmp_path)
    exact = (np.int64(x) - 7) @ np.int64(weight)
    as_exported = Session(given.onnx, None, None).run(None, {"x": x})[0]
    assert np.abs(as_exported - exact).max() > 100_000
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(OnnxRuntime(given, 1).run({"x": x})[0], exact)
        OnnxRuntime(given, 1)
    assert [record.message.partition(",")[0] for record in caplog.records] == [
        "ONNX Runtime's products of uint8 and int8 saturate on this processor"
    ]
    assert OnnxRuntime.integer_product_error() == 0
    assert OnnxRuntime.unfit_reason(given) is None


WEIGHT = np.int8([[127, -127], [-3, 0], [5, 64], [-128, 1]])
LAYERS = {
    "both zero points": layer(WEIGHT, np.uint8(9), np.int8(0)),
    "no zero points": layer(WEIGHT),
    "that of the inputs": layer(WEIGHT, np.uint8(9)),
    "one for each column": layer(WEIGHT, np.uint8(9), np.int8([-4, 7])),
    "that of the weight": layer(WEIGHT, None, np.int8(3)),
}


@pytest.mark.parametrize("model", LAYERS.values(), ids=LAYERS)
def test_unsigned_weights_have_the_same_products(model):
    x = {"x": np.random.default_rng(0).integers(0, 256, (5, 4)).astype(np.uint8)}
    before = ReferenceEvaluator(model).run(None, x)[0]
    assert to_unsigned(model.graph)
    onnx.checker.check_model(model)
    np.testing.assert_array_equal(ReferenceEvaluator(model).run(None, x)[0], before)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert set(kinds.values()) == {TensorProto.UINT8}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, x)[0], before)
    assert not to_unsigned(model.graph), "there is nothing left to do"


def test_a_table_that_is_also_looked_up_stays():
    model = layer(WEIGHT, extra=[helper.make_node("Identity", ["w"], ["same"], "reader")])
    assert to_unsigned(model.graph)
    np.testing.assert_array_equal(ReferenceEvaluator(model).run(["same"], {"x": np.zeros((1, 4), np.uint8)})[0], WEIGHT)
