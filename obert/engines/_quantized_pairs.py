"""The same integer graph with its products between pairs of QuantizeLinear and DequantizeLinear.

    QuantizeLinear -> DequantizeLinear -> MatMul (weight: int8 -> DequantizeLinear) -> Add (float bias)

in place of what `obert.quantization.integer_graph` describes. Some runtimes take the scales behind such a product
themselves and multiply in 8 bits, but multiply what stands in MatMulInteger in float32.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
from onnx import GraphProto, NodeProto, helper, numpy_helper


class _Scaled(NamedTuple):
    """What is made of an integer product: tensors on the way, the bias in integers, the scale of one, the result."""

    between: list[str]
    bias: np.ndarray | None
    scale: np.float32
    output: str


def to_pairs(graph: GraphProto, wide_weights: bool = False) -> dict[str, str]:
    """Rewrite every MatMulInteger whose operands are of uint8 or int8 with one scale each, in place.

    The new MatMul has the old one's name. Others, as a product with a scale for each channel, are left as they are.

    Args:
        wide_weights: put the weights of linear layers there in float32, already scaled, so that no runtime multiplies
            them in 8 bits.

    Returns:
        By name of each product that was rewritten, the tensor with its result in float32, the bias added.
    """
    reading, nodes, removed = _Reading(graph), [], set()
    results: dict[str, str] = {}
    real: dict[tuple[str, float, int], str] = {}
    for node in graph.node:
        if node.output[0] in removed:
            continue
        scaled = reading.scaled(node) if node.op_type == "MatMulInteger" else None
        roundings = reading.roundings(node, scaled.scale) if scaled else None
        if roundings is None:
            nodes.append(node)
            continue
        results[node.name] = scaled.output
        removed |= {*scaled.between, scaled.output}
        operands = []
        for integers, (scale, zero_point) in zip(node.input[:2], roundings, strict=True):
            key = integers, float(scale), int(zero_point)
            if key not in real:
                name = real[key] = f"{integers}_real_{len(real)}"
                weight = reading.weight(integers) if wide_weights else None
                if weight is not None:
                    reading.add(name, scale * (weight.astype(np.float32) - np.float32(zero_point)))
                else:
                    names = reading.add(f"{name}_scale", scale), reading.add(f"{name}_zero_point", zero_point)
                    nodes.append(helper.make_node("DequantizeLinear", [integers, *names], [name], f"{name}_node"))
            operands.append(real[key])
        product = scaled.output if scaled.bias is None else f"{node.output[0]}_real"
        nodes.append(helper.make_node("MatMul", operands, [product], node.name))
        if scaled.bias is not None:
            bias = reading.add(f"{product}_bias", np.float32(scaled.bias * np.float64(scaled.scale)))
            nodes.append(helper.make_node("Add", [product, bias], [scaled.output], f"{node.name}_bias"))
    del graph.node[:]
    graph.node.extend(nodes)
    return results


class _Reading:
    """A graph with the ways from each tensor to its readers and to the scale that it was rounded with."""

    def __init__(self, graph: GraphProto):
        self._graph = graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._scales = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "QuantizeLinear"}
        self._readers: dict[str, list[NodeProto | None]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self._readers[name].append(node)
        for output in graph.output:
            self._readers[output.name].append(None)

    def add(self, name: str, value: np.ndarray) -> str:
        """Put a constant into the graph."""
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, name: str) -> np.ndarray | None:
        """A constant's values; None of what is computed."""
        return numpy_helper.to_array(self._constants[name]) if name in self._constants else None

    def scaled(self, product: NodeProto) -> _Scaled | None:
        """Add of a bias if there is one, Cast, and Mul by one number; None if anything else follows."""
        last, between, bias = product, [], None
        add = self._only_reader(product, "Add")
        if add is not None and (name := self._constant_of(add)):
            bias = numpy_helper.to_array(self._constants[name])
            last, between = add, [add.output[0]]
        cast = self._only_reader(last, "Cast")
        mul = cast and self._only_reader(cast, "Mul")
        scale = mul and self._number(self._constant_of(mul))
        return None if scale is None else _Scaled([*between, cast.output[0]], bias, scale, mul.output[0])

    def roundings(self, product: NodeProto, both: np.float32) -> list[tuple[np.float32, np.generic]] | None:
        """Scales and zero points of the two operands, whose product is scaled by `both`; None if they do not say."""
        if len(product.input) != 4:
            return None
        zero_points = [self._number(name) for name in product.input[2:]]
        first, second = (self._number(self._scales.get(integers)) for integers in product.input[:2])
        if second is None and first is not None and product.input[1] in self._constants:
            second = np.float32(both / first)
        if first is None or second is None or None in zero_points or not np.isclose(first * second, both, atol=0):
            return None
        return list(zip((first, second), zero_points, strict=True))

    def _only_reader(self, node: NodeProto, kind: str) -> NodeProto | None:
        """What alone reads an operator's result, if that is of this type."""
        readers = self._readers[node.output[0]]
        return readers[0] if len(readers) == 1 and readers[0] is not None and readers[0].op_type == kind else None

    def _constant_of(self, node: NodeProto) -> str | None:
        """The constant among the inputs of an operator."""
        return next((name for name in node.input if name in self._constants), None)

    def _number(self, name: str | None) -> np.generic | None:
        """The value of a constant that is one number."""
        value = numpy_helper.to_array(self._constants[name]) if name in self._constants else None
        return value.reshape(())[()] if value is not None and value.size == 1 else None
