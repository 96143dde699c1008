"""A graph changed at random is refused, or computes what ONNX Runtime makes of it: nothing is taken for granted."""

import copy
import random
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from sparse_engine.encoder import FORMS, POSITIONS, WORDS, written
from sparse_engine.reference import batch, run

from obert.foundation.errors import UserError
from obert.sparse.reading import read

OTHER_KINDS = {
    "Add": "Sub", "Sub": "Add", "Mul": "Div", "Div": "Mul", "Erf": "Tanh", "Tanh": "Relu", "Relu": "Tanh",
    "Sqrt": "Reciprocal", "Gelu": "Relu", "And": "Or", "Max": "Min", "GreaterOrEqual": "Greater", "Equal": "Less",
}  # fmt: skip


def change_attribute(graph, node, rng):
    if not node.attribute:
        return
    attribute = rng.choice(node.attribute)
    if attribute.type == attribute.INT:
        attribute.i += rng.choice([-2, -1, 1, 2])
    elif attribute.type == attribute.FLOAT:
        attribute.f *= rng.choice([0.5, 2, -1, 0])
    elif attribute.type == attribute.INTS:
        values = list(attribute.ints)
        rng.shuffle(values)
        del attribute.ints[:]
        attribute.ints.extend(values)


def change_input(graph, node, rng):
    before = [name for other in graph.node[: list(graph.node).index(node)] for name in other.output]
    names = before[-rng.choice([4, 12, 100]) :] + [tensor.name for tensor in (*graph.initializer, *graph.input)]
    if node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)


def swap_inputs(graph, node, rng):
    if len(node.input) > 1:
        node.input[0], node.input[1] = node.input[1], node.input[0]


def change_kind(graph, node, rng):
    node.op_type = OTHER_KINDS.get(node.op_type, "Identity")
    if node.op_type == "Identity":
        del node.input[1:], node.attribute[:]


def leave_out(graph, node, rng):
    for other in graph.node:
        other.input[:] = [node.input[0] if name == node.output[0] and node.input else name for name in other.input]


def change_constant(graph, node, rng):
    tensor = rng.choice(graph.initializer)
    values = numpy_helper.to_array(tensor)
    if values.dtype.kind == "f":
        changed = values * np.float32(rng.choice([2, 0.5, -1, 1.01]))
    else:
        changed = values + rng.choice([-1, 1, 2])
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(changed, values.dtype), tensor.name))


CHANGES = (change_attribute, change_input, change_input, swap_inputs, change_kind, leave_out, change_constant)


def compared(path: Path) -> bool:
    """Whether a file can be compared: it is understood, and ONNX Runtime runs it. Then results are the same."""
    try:
        program = read(path)
    except UserError as error:
        assert "\n" not in str(error)
        return False
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    for seed, lengths in enumerate(([9, 4, 6], [POSITIONS, 17])):
        inputs = batch(program, lengths, WORDS, seed, program.pad_token or 0)
        inputs["attention_mask"][0, 2] = 0
        try:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            expected = session.run(None, inputs)
        except Exception:  # one of its own for every kind of fault
            return False
        found = run(program, inputs)
        for output, values in zip(session.get_outputs(), expected, strict=True):
            assert found[output.name].shape == values.shape
            np.testing.assert_allclose(found[output.name], values, atol=1e-4, rtol=1e-4)
    return True


@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 80))])
def test_no_change_goes_unseen(tmp_path, seed):
    rng = random.Random(seed)
    parts = {name: rng.choice(list(forms.values())) for name, forms in FORMS.items() if name not in ("mask", "head")}
    model = onnx.load(written(tmp_path / "m.onnx", **parts))
    assert compared(tmp_path / "m.onnx")
    for _ in range(40):
        changed = copy.deepcopy(model)
        rng.choice(CHANGES)(changed.graph, rng.choice(changed.graph.node), rng)
        (tmp_path / "m.onnx").write_bytes(changed.SerializeToString())
        compared(tmp_path / "m.onnx")
