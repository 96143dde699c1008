"""Programs read from exported files, against what ONNX Runtime and ONNX's own evaluator make of the same files."""

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from architectures.models import make
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from sparse_engine.reference import batch, run
from transformers import AutoModelForQuestionAnswering

from obert.foundation.errors import UserError
from obert.sparse.program import Embed, Linear
from obert.sparse.reading import read

HEADS = ("sequence_classification", "question_answering", "regression", "token_classification", "multiple_choice")
OF_EACH = (
    ("bert", "question_answering"),
    ("roberta", "sequence_classification"),
    ("mobilebert", "sequence_classification"),
    ("albert", "regression"),
)
REST = (
    ("xlm_roberta", "question_answering"),
    ("distilbert", "token_classification"),
    ("electra", "multiple_choice"),
    *((name, head) for name in ("bert", "roberta") for head in HEADS),
)
CASES = [*OF_EACH, *(pytest.param(*case, marks=pytest.mark.slow) for case in REST if case not in OF_EACH)]
LENGTHS = ([7], [3, 9, 5], [20, 1, 13, 20])


ORDER = ("input_ids", "attention_mask", "token_type_ids")


class ByPosition(torch.nn.Module):
    """A model whose inputs have no names, as tracing needs it."""

    def __init__(self, network: torch.nn.Module, names: list[str]):
        super().__init__()
        self.network, self.names = network, names

    def forward(self, *values):
        return self.network(**dict(zip(self.names, values, strict=True)), return_dict=False)


class GatherElements(OpRun):
    """The evaluator's own is wrong for a single row."""

    def _run(self, data, indices, axis=None):
        return (np.take_along_axis(data, indices, axis),)


def batches(program):
    words = min(lookup.table.shape[0] for o in program.operations if isinstance(o, Embed) for lookup in o.lookups
                if lookup.index == "words")  # fmt: skip
    for number, lengths in enumerate(LENGTHS):
        yield batch(program, lengths, words, number, program.pad_token or 0)


def compare(path):
    """The program of a file with ONNX Runtime's results."""
    program = read(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for inputs in batches(program):
        found = run(program, inputs)
        for output, expected in zip(session.get_outputs(), session.run(None, inputs), strict=True):
            assert found[output.name].shape == expected.shape
            np.testing.assert_allclose(found[output.name], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name, head", CASES)
def test_a_float_file_computes_what_onnx_runtime_does(exported, name, head):
    compare(exported(name, head)[0])


@pytest.mark.parametrize("name, head", CASES)
def test_an_integer_file_computes_what_its_operators_say(exported, name, head):
    """Where float32 rounds a tie another way than float64, an integer is the next one; else results are the same."""
    _, path = exported(name, head)
    program = read(path)
    graph = ReferenceEvaluator(onnx.load(path), new_ops=[GatherElements])
    differences = []
    for inputs in batches(program):
        found = run(program, inputs)
        for output, expected in zip(graph.output_names, graph.run(None, inputs), strict=True):
            assert found[output].shape == expected.shape
            differences.append(abs(found[output] - expected).ravel())
    differences = np.concatenate(differences)
    assert np.median(differences) < 1e-6
    assert differences.max() < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    "options", [{"dynamo": True, "opset_version": 20}, {"dynamo": False, "opset_version": 14}], ids=["dynamo", "traced"]
)
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "mobilebert"])
def test_what_pytorchs_own_exporters_write(tmp_path, name, options, attention):
    """Traced graphs, as most published files are, and fused attention."""
    made = AutoModelForQuestionAnswering.from_pretrained(make(name, tmp_path), attn_implementation=attention).eval()
    network = ByPosition(made, [*ORDER[: 3 if name in ("bert", "mobilebert") else 2]])
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    example = dict(zip(network.names, (mask * 7, mask, torch.zeros_like(mask)), strict=False))
    axes = {each: {0: "batch", 1: "tokens"} for each in network.names}
    shapes = {"dynamic_shapes": (tuple(axes.values()),)} if options["dynamo"] else {"dynamic_axes": axes}
    path = tmp_path / "m.onnx"
    torch.onnx.export(
        network, tuple(example.values()), str(path), input_names=network.names, external_data=False, **shapes, **options
    )
    compare(path)


@pytest.mark.slow
@pytest.mark.parametrize("name, operator", [("deberta_v3", "Mul"), ("mpnet", "Abs"), ("modernbert", "Abs")])
def test_other_encoders_are_refused_by_their_first_strange_operator(exported, name, operator):
    for path in exported(name, "sequence_classification"):
        with pytest.raises(UserError) as error:
            read(path)
        assert str(path) in str(error.value) and f"'{operator}' node_" in str(error.value)


def test_names_positions_and_the_pad_token(exported):
    bert, roberta = (read(exported(*case)[0]) for case in OF_EACH[:2])
    assert (bert.positions, bert.pad_token) == (64, None)
    assert (roberta.positions, roberta.pad_token) == (64, 1)
    assert bert.inputs == ("input_ids", "token_type_ids", "attention_mask")
    assert [output.name for output in bert.outputs] == ["start_logits", "end_logits"]
    names = [operation.weight.name for operation in roberta.operations if isinstance(operation, Linear)]
    assert names[:2] == [f"roberta.encoder.layer.0.attention.self.{part}" for part in ("query", "key")]
    assert names[-1] == "classifier.out_proj"


def test_a_layer_that_runs_several_times_has_one_weight(exported):
    for path in exported("albert", "regression"):
        weights = [o.weight for o in read(path).operations if isinstance(o, Linear)]
        shared = [weight for weight in weights if weight.name.endswith(".ffn")]
        assert len(shared) == 3
        assert len({id(weight) for weight in shared}) == 1


def test_weights_are_views_of_the_file(exported):
    for path in exported("bert", "question_answering"):
        for operation in read(path).operations:
            if isinstance(operation, Linear):
                assert not operation.weight.values.flags.owndata


def test_reading_needs_numpy_alone(exported):
    """Of what is installed beside, nothing is imported."""
    path, _ = exported("bert", "question_answering")
    code = f"import sys; from obert.sparse.reading import read; read({str(path)!r}); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in ran.stdout.split()}
    assert not loaded & {"onnx", "onnxruntime", "scipy", "torch", "transformers", "google"}
