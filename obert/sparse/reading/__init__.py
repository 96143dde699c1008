"""From an exported ONNX file to a program: its operators, one after the other, give what each tensor is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from obert.foundation.errors import UserError
from obert.sparse.program import Program
from obert.sparse.reading.arranging import ARRANGEMENTS
from obert.sparse.reading.building import Builder
from obert.sparse.reading.index_graph import SHORT, Evaluation, Known, NotKnown, Shapes, make_samples
from obert.sparse.reading.onnx_file import Node, OnnxFile, load, shown
from obert.sparse.reading.rules import RULES
from obert.sparse.reading.views import Part

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_LONGEST = 512  # tokens of a sample
OLDEST_OPSET = 13  # Softmax and Squeeze were others before
_ALL_RULES = RULES | ARRANGEMENTS
_ADVICE = (
    "It runs encoders like BERT, RoBERTa, DistilBERT, ELECTRA, MobileBERT and ALBERT; "
    "run this one in onnxruntime or openvino"
)


def read(path: Path) -> Program:
    """Read a file, float32 or in 8 bits, as this harness exports it. Takes milliseconds; weights stay in the file.

    Raises:
        UserError: the file is no ONNX model, or not of an encoder that the engine can run; then the first operator that
            is not understood is named.
    """
    file = load(Path(path))
    _check(file)
    build, outputs = _interpreted(file, SHORT)
    try:
        program = build.program(zip(file.outputs, outputs, strict=True), file.inputs)
    except NotKnown as error:
        raise UserError(
            f"the sparse engine does not understand the outputs of {file.path}: {error}. {_ADVICE}"
        ) from None
    longest = min(program.positions or _LONGEST, _LONGEST)
    if longest > max(tokens for _, tokens in SHORT):
        _interpreted(file, ((2, longest), (3, longest // 2)))  # a mask of near tokens is another only for long ones
    return program


def _interpreted(file: OnnxFile, shapes: Shapes) -> tuple[Builder, list[Part | Known]]:
    """What all operators make of samples of these shapes, and the outputs."""
    samples = make_samples(file, shapes)
    build, evaluate = Builder(samples, file.inputs), Evaluation(file)
    tensors: dict[str, Part | Known] = {name: Known((array,), name) for name, array in file.constants.items()}
    tensors |= {name: Known(samples.inputs[name]) for name in file.inputs}
    for node in _needed(file):
        try:
            inputs = [_tensor(tensors, name) if name else None for name in node.inputs]
            made = _applied(build, node, inputs) if _is_activation(node, inputs) else evaluate(node, inputs)
        except NotKnown as error:
            operator = f"'{shown(node.kind)}' {shown(node.name)}".rstrip()
            raise UserError(
                f"the sparse engine does not understand {operator} of {file.path}: {error}. {_ADVICE}"
            ) from None
        tensors |= zip(node.outputs, made, strict=False)
    missing = [name for name in file.outputs if name not in tensors]
    if missing:
        raise UserError(f"{file.path} has an output '{shown(missing[0])}' that no operator makes: export it again")
    return build, [tensors[name] for name in file.outputs]


def _check(file: OnnxFile) -> None:
    unknown = [name for name in file.inputs if name not in INPUTS]
    if unknown or "input_ids" not in file.inputs:
        found = f"input '{shown(unknown[0])}'" if unknown else "no input 'input_ids'"
        raise UserError(f"{file.path} has {found}; the sparse engine knows {', '.join(INPUTS)}. {_ADVICE}")
    if file.opset < OLDEST_OPSET:
        raise UserError(f"{file.path} has opset {file.opset}; the sparse engine reads {OLDEST_OPSET} and later")
    if not file.outputs:
        raise UserError(f"{file.path} has no outputs: give an exported ONNX model")


def _needed(file: OnnxFile) -> list[Node]:
    """The nodes that an output depends on."""
    needed, nodes = set(file.outputs), []
    for node in reversed(file.nodes):
        if needed & set(node.outputs):
            needed |= set(node.inputs)
            nodes.append(node)
    return nodes[::-1]


def _tensor(tensors: dict[str, Part | Known], name: str) -> Part | Known:
    if name not in tensors:
        raise NotKnown(f"nothing before it makes '{shown(name)}'")
    return tensors[name]


def _is_activation(node: Node, inputs: list[Part | Known | None]) -> bool:
    """Whether an operator's result is no index, mask or shape: it is given an activation, or looks rows up."""
    if any(not isinstance(part, Known | None) for part in inputs):
        return True
    if node.kind != "Gather" or len(inputs) != 2:
        return False
    table, index = (known.constant for known in inputs)
    return index is None and table is not None and table.ndim == 2 and table.dtype in (np.float32, np.int8)


def _applied(build: Builder, node: Node, inputs: list[Part | Known | None]) -> list[Part | Known]:
    """What the rule for an operator says that its outputs are."""
    rule = _ALL_RULES.get(node.kind)
    if rule is None:
        raise NotKnown("there is no rule for it")
    try:
        made = rule(build, node, *inputs)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise NotKnown(f"it has not the inputs or attributes that it should have ({shown(str(error))})") from error
    return made if isinstance(made, list) else [made]
