"""The same integer graph with its products between pairs of QuantizeLinear and DequantizeLinear.

    QuantizeLinear -> DequantizeLinear -> MatMul (weight: int8 -> DequantizeLinear) -> Add (float bias)

in place of what `obert.integer_graph` describes. Some runtimes take the scales behind such a product themselves and
multiply in 8 bits, but multiply what stands in MatMulInteger in float32.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
from onnx import GraphProto, NodeProto, helper, numpy_helper


class _Scaled(NamedTuple):
    """What is made of an integer product: its operators, the bias in integers, the scale of one, and the result."""

    nodes: list[NodeProto]
    bias: np.ndarray | None
    scale: np.float32
    output: str


def to_pairs(graph: GraphProto) -> dict[str, str]:
    """Rewrite every MatMulInteger whose operands are of uint8 or int8 with one scale each, in place.

    The new MatMul has the old one's name. Others, as a product with a scale for each channel, are left as they are.

    Returns:
        By name of each product that was rewritten, the tensor with its result in float32, the bias added.
    """
    reading, nodes, removed = _Reading(graph), [], set()
    results: dict[str, str] = {}
    dequantized: set[str] = set()
    for node in graph.node:
        if id(node) in removed:
            continue
        scaled = reading.scaled(node) if node.op_type == "MatMulInteger" else None
        scales = reading.scales(node, scaled.scale) if scaled else None
        if scales is None:
            nodes.append(node)
            continue
        results[node.name] = scaled.output
        removed |= {id(old) for old in scaled.nodes}
        for integers, zero_point, scale in zip(node.input[:2], node.input[2:], scales, strict=True):
            if integers not in dequantized:
                dequantized.add(integers)
                inputs = [integers, reading.constant(f"{integers}_pair_scale", scale), zero_point]
                nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{integers}_real"], f"{integers}_pair"))
        product = scaled.output if scaled.bias is None else f"{node.output[0]}_real"
        nodes.append(helper.make_node("MatMul", [f"{name}_real" for name in node.input[:2]], [product], node.name))
        if scaled.bias is not None:
            bias = reading.constant(f"{node.output[0]}_bias", np.float32(scaled.bias * np.float64(scaled.scale)))
            nodes.append(helper.make_node("Add", [product, bias], [scaled.output], f"{node.name}_bias"))
    del graph.node[:]
    graph.node.extend(nodes)
    return results


class _Reading:
    """A graph with the ways from each tensor to its maker and its readers."""

    def __init__(self, graph: GraphProto):
        self._graph = graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._made_by = {output: node for node in graph.node for output in node.output}
        self._readers: dict[str, list[NodeProto | None]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self._readers[name].append(node)
        for output in graph.output:
            self._readers[output.name].append(None)

    def constant(self, name: str, value: np.ndarray) -> str:
        """Put a constant into the graph."""
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def scaled(self, product: NodeProto) -> _Scaled | None:
        """Add of a bias if there is one, Cast, and Mul by one number; None if anything else follows."""
        nodes, bias = [product], None
        following = self._only_reader(product)
        if following is not None and following.op_type == "Add" and (bias := self._value_in(following)) is not None:
            nodes.append(following)
            following = self._only_reader(following)
        if following is None or following.op_type != "Cast":
            return None
        nodes.append(following)
        following = self._only_reader(following)
        if following is None or following.op_type != "Mul":
            return None
        scale = self._value_in(following)
        if scale is None or scale.size != 1:
            return None
        return _Scaled([*nodes, following], bias, np.float32(scale.item()), following.output[0])

    def scales(self, product: NodeProto, both: np.float32) -> tuple[np.float32, np.float32] | None:
        """Scales of the two operands, whose product is `both`; None if they are not those of a quantised layer."""
        if len(product.input) != 4:
            return None
        first, second = (self._scale_of(integers) for integers in product.input[:2])
        if second is None and product.input[1] in self._constants and first is not None:
            second = np.float32(both / first)
        return None if first is None or second is None else (first, second)

    def _scale_of(self, integers: str) -> np.float32 | None:
        """The scale that a tensor was rounded with."""
        maker = self._made_by.get(integers)
        if maker is None or maker.op_type != "QuantizeLinear" or maker.input[1] not in self._constants:
            return None
        scale = numpy_helper.to_array(self._constants[maker.input[1]])
        return np.float32(scale.item()) if scale.size == 1 else None

    def _only_reader(self, node: NodeProto) -> NodeProto | None:
        readers = self._readers[node.output[0]]
        return readers[0] if len(readers) == 1 else None

    def _value_in(self, node: NodeProto) -> np.ndarray | None:
        """The constant among the inputs of an operator."""
        found = [self._constants[name] for name in node.input if name in self._constants]
        return numpy_helper.to_array(found[0]) if found else None
