"""The integer form of an exported model, which runtimes multiply in 8 bits.

    QuantizeLinear -> MatMulInteger -> Add (int32 bias) -> Cast -> Mul

A graph of QuantizeLinear and DequantizeLinear pairs computes the same, and sparse runtimes do not accelerate it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from obert.deployment.onnx_graph import INTEGER, OnnxGraph
from obert.foundation.errors import UserError
from obert.foundation.files import atomic_path
from obert.quantization.fake import QuantizedEmbedding, QuantizedLinear, integer_weight
from obert.quantization.quantizers import Quantizer


@dataclass(frozen=True)
class Scale:
    """real = value * (integer - zero_point)"""

    value: np.float32
    zero_point: int

    @classmethod
    def of(cls, quantizer: Quantizer) -> Scale:
        """The scale that a quantiser has."""
        return cls(np.float32(quantizer.scale.item()), int(quantizer.zero_point.item()))


def to_integer(path: Path, network: nn.Module) -> None:
    """Rewrite the float export of a quantised model, in place: linear layers, attention products and embeddings.

    Args:
        path: what `export_onnx` wrote of the same model without its fake quantisation.
        network: the model, whose scales are taken.

    Raises:
        UserError: a layer of the model is not in the file.
    """
    model = onnx.load(path)
    graph = _Rewriting(model.graph)
    for name, module in network.named_modules():
        if isinstance(module, QuantizedLinear):
            graph.linear(name, module)
        elif isinstance(module, QuantizedEmbedding):
            graph.embedding(name, module)
        elif hasattr(module, "product_fake_quants"):
            graph.products(name, {product: Scale.of(q) for product, q in module.product_fake_quants.items()})
    graph.finish()
    onnx.checker.check_model(model)
    with atomic_path(path) as temporary:
        onnx.save(model, str(temporary))


class _Rewriting:
    """A graph while its nodes are replaced, one by one."""

    def __init__(self, graph: onnx.GraphProto):
        self.graph = graph
        self.found = OnnxGraph(graph)
        self.layers = self.found.layers()
        self.initializers = dict(self.found.constants)
        self.rounded: dict[tuple, str] = {}
        self.added: dict[str, list[NodeProto]] = {}  # in place of the node that makes that tensor
        self.removed: set[str] = set()

    def linear(self, name: str, module: QuantizedLinear) -> None:
        """MatMul and Add, or Gemm, of a linear layer."""
        product = self.layers.get(name)
        if product is None:
            raise UserError(f"the exported graph has no product for linear layer '{name}'")
        last = self.found.sum_of(product)
        inputs, weights = Scale.of(module.input_fake_quant), Scale.of(module.weight_fake_quant)
        both = np.float32(inputs.value * weights.value)
        integers = integer_weight(module).numpy()
        bias = np.rint(module.bias.detach().numpy().astype(np.float64) / both).astype(np.int32)
        rounding, rounded = self._round(product.input[0], inputs)
        nodes = [
            *rounding,
            helper.make_node(
                "MatMulInteger",
                [rounded, self._constant(f"{name}.weight{INTEGER}", integers.T),
                 self._constant(f"{name}.input_zero_point", np.uint8(inputs.zero_point)),
                 self._constant(f"{name}.weight_zero_point", np.int8(0))],
                [f"{name}.product"], name=f"{name}/MatMulInteger",
            ),
            helper.make_node(
                "Add", [f"{name}.product", self._constant(f"{name}.bias{INTEGER}", bias)], [f"{name}.sum"],
                name=f"{name}/AddInteger",
            ),
            *self._scaled(f"{name}.sum", last.output[0], both, name),
        ]  # fmt: skip
        self._replace((product, last), nodes)

    def products(self, name: str, scales: dict[str, Scale]) -> None:
        """The two products of a self-attention: of queries and keys, and of probabilities and values."""
        for pair, layer in ((("query", "key"), "query"), (("probabilities", "value"), "value")):
            linear = self.layers.get(f"{name}.{layer}")
            node = linear and self.found.next_product(linear.output[0])
            if node is None:
                raise UserError(f"the exported graph has no product of {pair[0]} and {pair[1]} in attention '{name}'")
            nodes, rounded, points = [], [], []
            for product, tensor in zip(pair, node.input, strict=True):
                rounding, output = self._round(tensor, scales[product])
                nodes += rounding
                rounded.append(output)
                points.append(self._constant(f"{name}.{product}_zero_point", np.uint8(scales[product].zero_point)))
            both = np.float32(scales[pair[0]].value * scales[pair[1]].value)
            integer = f"{name}.{pair[0]}_{pair[1]}"
            scope = f"{name}/{pair[0]}_{pair[1]}"
            nodes.append(
                helper.make_node("MatMulInteger", [*rounded, *points], [integer], name=f"{scope}/MatMulInteger")
            )
            self._replace((node,), [*nodes, *self._scaled(integer, node.output[0], both, integer)])

    def embedding(self, name: str, module: QuantizedEmbedding) -> None:
        """A table of int8, of which the rows that are looked up are scaled."""
        table = f"{name}.weight"
        users = [node for node in self.graph.node if node.op_type == "Gather" and node.input[0] == table]
        if not users:
            raise UserError(f"the exported graph looks up no rows of embedding '{name}'")
        scale = Scale.of(module.weight_fake_quant)
        rows = self._constant(f"{table}{INTEGER}", integer_weight(module).numpy())
        for number, node in enumerate(users):
            looked_up, scope = f"{node.output[0]}{INTEGER}", f"{name}/{number}"
            gather = helper.make_node("Gather", [rows, node.input[1]], [looked_up], name=f"{scope}/Gather", axis=0)
            self._replace((node,), [gather, *self._scaled(looked_up, node.output[0], scale.value, scope)])

    def finish(self) -> None:
        """Put the new nodes in place of the old ones, and drop the weights that nobody reads any more."""
        nodes = []
        for node in self.graph.node:
            nodes += self.added.get(node.output[0], [])
            if node.output[0] not in self.removed:
                nodes.append(node)
        used = {name for node in nodes for name in node.input}
        nodes = [n for n in nodes if n.op_type != "Identity" or n.output[0] in used or self._is_output(n.output[0])]
        used = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in self.initializers.values() if tensor.name in used]
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(nodes)
        self.graph.initializer.extend({tensor.name: tensor for tensor in kept}.values())

    def _is_output(self, name: str) -> bool:
        return any(output.name == name for output in self.graph.output)

    def _round(self, tensor: str, scale: Scale) -> tuple[list[NodeProto], str]:
        """QuantizeLinear of a tensor, once for all that read it with the same scale."""
        key = tensor, float(scale.value), scale.zero_point
        if key in self.rounded:
            return [], self.rounded[key]
        output = self.rounded[key] = f"{tensor}{INTEGER}_{len(self.rounded)}"
        zero_point = self._constant(f"{output}_zero_point", np.uint8(scale.zero_point))
        parameters = [self._constant(f"{output}_scale", scale.value), zero_point]
        return [helper.make_node("QuantizeLinear", [tensor, *parameters], [output], name=f"{output}_node")], output

    def _scaled(self, integer: str, output: str, scale: np.float32, scope: str) -> list[NodeProto]:
        real = f"{integer}_float"
        return [
            helper.make_node("Cast", [integer], [real], name=f"{scope}/Cast", to=TensorProto.FLOAT),
            helper.make_node("Mul", [real, self._constant(f"{integer}_scale", scale)], [output], name=f"{scope}/Scale"),
        ]

    def _constant(self, name: str, value: np.ndarray) -> str:
        self.initializers[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def _replace(self, old: Iterable[NodeProto], new: list[NodeProto]) -> None:
        tensors = [node.output[0] for node in old]
        self.removed |= set(tensors)
        self.added.setdefault(tensors[-1], []).extend(new)
