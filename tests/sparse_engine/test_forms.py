"""An encoder of one layer, written in the forms that exporters have, and in forms that are something else."""

import numpy as np
import onnxruntime
import pytest
from sparse_engine.encoder import FORMS, HEADS, POSITIONS, WORDS, written
from sparse_engine.reference import batch, run

from obert.foundation.errors import UserError
from obert.sparse.program import Activate, Affine, Attention, Linear, Norm
from obert.sparse.reading import read

PAIRED = {("mask", "chosen"): {"scores": """s0 = MatMul(q, k)
    s1 = Mul(s0, scale)
    masked = Where(mask, hidden, s1)"""}}  # fmt: skip
OUTPUTS = {"one column": "float[B, T] out", "first": "float[B, F] out", "first, cut": "float[B, F] out",
           "layer of first": "float[B, F] out"}  # fmt: skip


def all_forms():
    for name, forms in FORMS.items():
        for form in forms:
            if len(forms) > 1:
                yield name, form


@pytest.mark.parametrize("name, form", list(all_forms()))
def test_a_form_computes_what_onnx_runtime_does(tmp_path, name, form):
    outputs = OUTPUTS.get(form, "float[B, T, F] out")
    parts = {"outputs": outputs, name: FORMS[name][form], **PAIRED.get((name, form), {})}
    path = written(tmp_path / "m.onnx", **parts)
    program = read(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for lengths in ([7], [3, 9, 5], [POSITIONS, 1]):
        inputs = batch(program, lengths, WORDS)
        [expected] = session.run(None, inputs)
        found = run(program, inputs)["out"]
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)
    [attention] = [o for o in program.operations if isinstance(o, Attention)]
    assert (attention.heads, attention.scale, program.positions) == (HEADS, 0.25, POSITIONS)
    kinds = [type(o) for o in program.operations]
    assert kinds.count(Norm) + kinds.count(Affine) == kinds.count(Activate) == 1  # nothing is computed twice
    assert kinds.count(Linear) == 4 + (form == "layer of first")


NEAR = """m0 = Cast<to = 1>(attention_mask)
    m1 = Unsqueeze(m0, one_two_)
    numbers = Range(zero, count, one)
    across = Unsqueeze(numbers, zero_)
    down = Unsqueeze(numbers, one_)
    away = Sub(across, down)
    near = Less(away, {limit})
    near_f = Cast<to = 1>(near)
    seen = Mul(m1, near_f)
    m2 = Sub(one_f, seen)
    mask = Mul(m2, hidden)"""
OTHERS = {
    "an unknown operator": ("Selu", {"gelu": "z = Selu(y)"}),
    "another activation": ("the outputs", {"gelu": "s = Mul(y, half)\n    z = Mul(s, y)"}),
    "another factor of GELU": ("Erf", {"gelu": FORMS["gelu"]["by erf"].replace("root_two", "four")}),
    "half a GELU": (
        "the outputs",
        {"gelu": FORMS["gelu"]["by erf"].replace("z = Mul(gated, half)", "z = Mul(gated, four)")},
    ),
    "a causal mask": ("Add", {"mask": NEAR.format(limit="one")}),
    "a mask of near tokens": ("Add", {"mask": NEAR.format(limit="nine")}),
    "a mask that hides too little": ("Add", {"mask": FORMS["mask"]["added"].replace("hidden", "few")}),
    "a mask the wrong way round": ("Add", {"mask": FORMS["mask"]["added"].replace("m2, hidden", "m1, hidden")}),
    "no mask": ("Softmax", {"scores": "s0 = MatMul(q, k)\n    masked = Mul(s0, scale)"}),
    "scores as large as the mask": ("Softmax", {"scores": FORMS["scores"]["after"].replace("scale", "four")}),
    "positions from one": ("Gather", {"positions": "counted = Add(count, one)\n    index = Range(one, counted, one)"}),
    "a fixed length": ("Add", {"positions": "index = Range(zero, nine, one)"}),
    "softmax over queries": (
        "Softmax",
        {"scores": "s0 = MatMul(q, k)\n    s1 = Add(s0, mask)\n    masked = Softmax<axis = 2>(s1)"},
    ),
    "the second token": ("Gather", {"head": "out = Gather<axis = 1>(z, one)", "outputs": "float[B, F] out"}),
    "a mean over tokens": ("ReduceMean", {"norm": "mean = ReduceMean(x0, one_)\n    x = Sub(x0, mean)"}),
    "half a LayerNorm": ("MatMul", {"norm": "mean = ReduceMean(x0, minus_one_)\n    x = Sub(x0, mean)"}),
    "heads in another order": (
        "MatMul",
        {"scores": "qq = Transpose<perm = [1, 0, 2, 3]>(q)\n    s1 = MatMul(qq, k)\n    masked = Add(s1, mask)"},
    ),
    "an unknown input": (
        "input 'pixels'",
        {"inputs": "int64[B, T] input_ids, int64[B, T] attention_mask, float[B] pixels"},
    ),
    "an output that is an input": ("the outputs", {"head": "out = Identity(shape)"}),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_no_such_encoder_is_refused_by_its_operator(tmp_path, what):
    named, parts = OTHERS[what]
    path = written(tmp_path / "m.onnx", **parts)
    with pytest.raises(UserError) as error:
        read(path)
    message = str(error.value)
    assert str(path) in message and named in message, message
    assert "\n" not in message


@pytest.mark.parametrize("twice, again, words", [(60, 0, "its result would have shape"), (17, 200, "is too large")])
def test_a_graph_that_computes_without_end_is_refused(tmp_path, twice, again, words):
    """Each step twice as much as the one before, or as much as one may be, again and again."""
    steps = [f"n{i + 1} = Concat<axis = 0>(n{i}, n{i})" for i in range(twice)]
    steps += [f"n{i + 1} = Add(n{i}, one)" for i in range(twice, twice + again)]
    steps = ["n0 = Identity(length)", *steps, f"last = Slice(n{twice + again}, zero_, one_)"]
    steps += ["end = Squeeze(last, zero_)", "index = Range(zero, end, one)"]
    path = written(tmp_path / "m.onnx", positions="\n    ".join(steps))
    with pytest.raises(UserError, match=words):
        read(path)
