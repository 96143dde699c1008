"""The same integer graph with its products between pairs of QuantizeLinear and DequantizeLinear.

    QuantizeLinear -> DequantizeLinear -> MatMul (weight: int8 -> DequantizeLinear) -> Add (float bias)

in place of what `obert.deployment.integer_graph` describes. Some runtimes take the scales behind such a product
themselves and multiply in 8 bits, but multiply what stands in MatMulInteger in float32.
"""

from typing import NamedTuple

import numpy as np
from onnx import GraphProto, NodeProto, helper, numpy_helper

from obert.deployment.onnx_graph import OnnxGraph


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
                weight = reading.values(integers) if wide_weights else None
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


class _Reading(OnnxGraph):
    """A graph with the ways from each tensor to the scale that it was rounded with."""

    def __init__(self, graph: GraphProto):
        super().__init__(graph)
        self._scales = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "QuantizeLinear"}

    def add(self, name: str, value: np.ndarray) -> str:
        """Put a constant into the graph."""
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def scaled(self, product: NodeProto) -> _Scaled | None:
        """Add of a bias if there is one, Cast, and Mul by one number; None if anything else follows."""
        last, between, bias = product, [], None
        add = self.only_reader(product, "Add")
        if add is not None and (name := self.constant_of(add)):
            bias = self.values(name)
            last, between = add, [add.output[0]]
        cast = self.only_reader(last, "Cast")
        mul = cast and self.only_reader(cast, "Mul")
        scale = mul and self.number(self.constant_of(mul))
        return None if scale is None else _Scaled([*between, cast.output[0]], bias, scale, mul.output[0])

    def roundings(self, product: NodeProto, both: np.float32) -> list[tuple[np.float32, np.generic]] | None:
        """Scales and zero points of the two operands, whose product is scaled by `both`; None if they do not say."""
        if len(product.input) != 4:
            return None
        zero_points = [self.number(name) for name in product.input[2:]]
        first, second = (self.number(self._scales.get(integers)) for integers in product.input[:2])
        if second is None and first is not None and product.input[1] in self.constants:
            second = np.float32(both / first)
        if first is None or second is None or None in zero_points or not np.isclose(first * second, both, atol=0):
            return None
        return list(zip((first, second), zero_points, strict=True))
