"""What an ONNX file holds, whoever exported it: inputs, vocabulary, zeros and 8-bit weights of its linear layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto
from onnx.external_data_helper import load_external_data_for_model

from obert.deployment.onnx_graph import OnnxGraph
from obert.foundation.errors import UserError
from obert.heads import INPUT_COLUMNS

VOCABULARY = 100  # where a file does not tell: every encoder has as many tokens
# What stands between a stored weight and the product that reads it.
_PASSED = ("Transpose", "Identity", "Cast", "DequantizeLinear")
# Where an operator has the zero point of its weight, by the ONNX specification and ONNX Runtime's own operators.
_ZERO_POINTS = {"MatMulInteger": 3, "DynamicQuantizeMatMul": 3, "QLinearMatMul": 5, "DequantizeLinear": 2}


@dataclass(frozen=True)
class Contents:
    """A file.

    Attributes:
        inputs: sizes that each input is declared with, (sequences, tokens); None is any.
        vocabulary: tokens that there is an embedding for.
        weights: how many weights the linear layers have: constant matrices that something is multiplied by.
        zeros: how many of them are zero.
        in_8_bits: how many of them are stored as 8-bit integers.
        megabytes: of the file, 10^6 bytes, with those beside it that hold its weights.
    """

    inputs: dict[str, tuple[int | None, int | None]]
    vocabulary: int
    weights: int
    zeros: int
    in_8_bits: int
    megabytes: float

    @property
    def sparsity(self) -> float:
        """The fraction of the linear layers' weights that is zero."""
        return self.zeros / self.weights if self.weights else 0.0

    @property
    def share_in_8_bits(self) -> float:
        """The fraction of the linear layers' weights that is stored in 8 bits."""
        return self.in_8_bits / self.weights if self.weights else 0.0


def read_contents(path: Path) -> Contents:
    """Read a file whole.

    Raises:
        UserError: it is no ONNX model, or no encoder of token ids.
    """
    with _readable(path):
        model = onnx.load(path, load_external_data=False)
        stored = [fact for tensor in model.graph.initializer for fact in tensor.external_data]
        beside = {path.parent / fact.value for fact in stored if fact.key == "location"}
        size = sum(file.stat().st_size for file in (path, *beside))
        load_external_data_for_model(model, str(path.parent))
    return Contents(_inputs(model.graph, path), *_Weights(model.graph).counted(), megabytes=size / 1e6)


def read_inputs(path: Path) -> dict[str, tuple[int | None, int | None]]:
    """The inputs alone, which takes less time. Raises UserError as `read_contents`."""
    with _readable(path):
        graph = onnx.load(path, load_external_data=False).graph
    return _inputs(graph, path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # protobuf's own DecodeError, which has no stable import path
        raise UserError(
            f"{path} is not a readable ONNX model ({error}). Name an ONNX file, or the folder of a Hugging Face model"
        ) from None


def _inputs(graph: onnx.GraphProto, path: Path) -> dict[str, tuple[int | None, int | None]]:
    """By name, the sizes that they are declared with."""
    if not graph.node:
        raise UserError(f"{path} is not an ONNX model: it has no operators. Export the model again")
    constants = {tensor.name for tensor in graph.initializer}  # old files declare these as inputs too
    declared = [tensor for tensor in graph.input if tensor.name not in constants]
    found = {}
    for tensor in declared:
        kind, sizes = tensor.type.tensor_type.elem_type, tensor.type.tensor_type.shape.dim
        if tensor.name not in INPUT_COLUMNS or kind != TensorProto.INT64 or len(sizes) != 2:
            raise UserError(
                f"{path} takes an input '{tensor.name}' of type {TensorProto.DataType.Name(kind).lower()} with "
                f"{len(sizes)} axes. What can be timed are encoders that take {', '.join(INPUT_COLUMNS)}, each int64 "
                "[sequences, tokens]: export the model so"
            )
        found[tensor.name] = tuple(size.dim_value or None for size in sizes)
    if "input_ids" not in found:
        raise UserError(f"{path} takes no input_ids. Name the export of an encoder that reads tokens")
    return found


class _Weights:
    """The constant matrices of a graph that products or look-ups read."""

    def __init__(self, graph: onnx.GraphProto):
        self._graph = OnnxGraph(graph)
        self._makers = {name: node for node in graph.node for name in node.output}

    def counted(self) -> tuple[int, int, int, int]:
        """Vocabulary, and of the linear layers: weights, zeros, weights in 8 bits."""
        vocabulary, found = [], {}
        for node in self._graph.graph.node:
            if node.op_type == "Gather" and self._is_of_tokens(node):
                table, _ = self._constant(node.input[0], None)
                if table is not None:
                    vocabulary.append(self._graph.constants[table].dims[0])
            elif "MatMul" in node.op_type or "Gemm" in node.op_type:
                for name in node.input:
                    weight, zero_point = self._constant(name, _zero_point(node))
                    if weight is not None and len(self._graph.constants[weight].dims) == 2:
                        found[weight] = zero_point
        weights = zeros = in_8_bits = 0
        for name, zero_point in found.items():
            values = self._graph.values(name)
            weights += values.size
            zeros += self._zeros(values, zero_point)
            in_8_bits += values.size if values.dtype in (np.int8, np.uint8) else 0
        return min(vocabulary, default=VOCABULARY), weights, zeros, in_8_bits

    def _constant(self, name: str, zero_point: str | None) -> tuple[str | None, str | None]:
        """The constant that a tensor is made of, if it is, and what has the integer that stands for 0 in it."""
        while name not in self._graph.constants:
            node = self._makers.get(name)
            if node is None or node.op_type not in _PASSED:
                return None, None
            name, zero_point = node.input[0], _zero_point(node) or zero_point
        return name, zero_point

    def _is_of_tokens(self, node: NodeProto) -> bool:
        """Whether a look-up is by the tokens of the input."""
        name = node.input[1]
        while name in self._makers and self._makers[name].op_type in _PASSED:
            name = self._makers[name].input[0]
        return name == "input_ids"

    def _zeros(self, values: np.ndarray, zero_point: str | None) -> int:
        zero = self._graph.values(zero_point)
        if zero is None or values.dtype != zero.dtype:
            return int(values.size - np.count_nonzero(values))
        if zero.size not in (1, values.shape[1]):
            zero = zero.reshape(-1, 1)  # one for each row
        return int((values == zero).sum())


def _zero_point(node: NodeProto) -> str | None:
    place = _ZERO_POINTS.get(node.op_type)
    return node.input[place] if place is not None and len(node.input) > place else None
