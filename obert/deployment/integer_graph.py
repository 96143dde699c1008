"""The integer form of an exported model, which runtimes multiply in 8 bits.

    QuantizeLinear -> MatMulInteger -> Add (int32 bias) -> Cast -> Mul

A graph of QuantizeLinear and DequantizeLinear pairs computes the same, and sparse runtimes do not accelerate it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from obert.deployment.export import names_of_parameters
from obert.deployment.onnx_graph import FLOAT_PRODUCTS, INTEGER, OnnxGraph
from obert.foundation.errors import UserError
from obert.foundation.files import atomic_path
from obert.quantization.fake import QuantizedEmbedding, QuantizedLinear, integer_weight
from obert.quantization.products import Pairs
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
        UserError: the products of the file are not those that the model rounds.
    """
    model = onnx.load(path)
    graph = _Rewriting(model.graph)
    names = names_of_parameters(network)
    for name, module in network.named_modules():
        if isinstance(module, QuantizedLinear):
            graph.linear(name, module)
        elif isinstance(module, QuantizedEmbedding):
            graph.embedding(name, module, names[f"{name}.weight"])
        elif hasattr(module, "product_fake_quants"):
            scales = {operand: Scale.of(q) for operand, q in module.product_fake_quants.items()}
            graph.products(name, module.pairs, scales)
    graph.finish()
    onnx.checker.check_model(model)
    with atomic_path(path) as temporary:
        onnx.save(model, str(temporary))


class _Rewriting:
    """A graph while its nodes are replaced, one by one."""

    def __init__(self, graph: onnx.GraphProto):
        self.graph = graph
        self.found = OnnxGraph(graph)
        self.initializers = dict(self.found.constants)
        self.of_module: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            if node.op_type in FLOAT_PRODUCTS:
                self.of_module[node.name.rpartition("/")[0]].append(node)
        self.rounded: dict[tuple, str] = {}
        self.behind: dict[str | None, list[NodeProto]] = defaultdict(list)  # a tensor is made; None: behind nothing
        self.added: dict[str, list[NodeProto]] = {}  # in place of the node that makes that tensor
        self.removed: set[str] = set()

    def linear(self, name: str, module: QuantizedLinear) -> None:
        """MatMul and Add, or Gemm, of a linear layer, each time that it runs."""
        if name not in self.of_module:
            raise UserError(f"the exported graph has no product for linear layer '{name}'")
        inputs, weights = Scale.of(module.input_fake_quant), Scale.of(module.weight_fake_quant)
        both = np.float32(inputs.value * weights.value)
        constants = [
            self._constant(f"{name}.weight{INTEGER}", integer_weight(module).numpy().T),
            self._constant(f"{name}.input_zero_point", np.uint8(inputs.zero_point)),
            self._constant(f"{name}.weight_zero_point", np.int8(0)),
        ]
        bias = None
        if module.bias is not None:
            integers = np.rint(module.bias.detach().numpy().astype(np.float64) / both).astype(np.int32)
            bias = self._constant(f"{name}.bias{INTEGER}", integers)
        for time, product in enumerate(self.of_module.pop(name)):
            run = f"{name}_{time}" if time else name
            weight, *zero_points = constants
            last = product if bias is None else self.found.sum_of(product)
            integer = f"{run}.product"
            operands = [self._round(product.input[0], inputs), weight, *zero_points]
            nodes = [helper.make_node("MatMulInteger", operands, [integer], name=f"{run}/MatMulInteger")]
            if bias is not None:
                nodes.append(helper.make_node("Add", [integer, bias], [f"{run}.sum"], name=f"{run}/AddInteger"))
                integer = f"{run}.sum"
            self._replace((product, last), [*nodes, *self._scaled(integer, last.output[0], both, run)])

    def products(self, name: str, pairs: Pairs, scales: dict[str, Scale]) -> None:
        """The products of computed tensors that a module makes, each time that it runs."""
        made = self.of_module.pop(name, [])
        if not made or len(made) % len(pairs):
            raise UserError(f"the exported graph has {len(made)} products in '{name}', which rounds those of {pairs}")
        for number, node in enumerate(made):
            time, index = divmod(number, len(pairs))
            pair = pairs[index]
            rounded = [self._round(tensor, scales[operand]) for operand, tensor in zip(pair, node.input, strict=True)]
            points = [
                self._constant(f"{name}.{operand}_zero_point", np.uint8(scales[operand].zero_point)) for operand in pair
            ]
            both = np.float32(scales[pair[0]].value * scales[pair[1]].value)
            run = "_".join([*pair, str(time)] if time else pair)
            integer = f"{name}.{run}"
            product = helper.make_node(
                "MatMulInteger", [*rounded, *points], [integer], name=f"{name}/{run}/MatMulInteger"
            )
            self._replace((node,), [product, *self._scaled(integer, node.output[0], both, integer)])

    def embedding(self, name: str, module: QuantizedEmbedding, names: list[str]) -> None:
        """A table of int8, of which the rows that are looked up are scaled, or all that are read otherwise.

        Args:
            names: of the table; the file has it under one of them.
        """
        table = next((other for other in names if self.found.readers[other]), None)
        if table is None:
            raise UserError(f"the exported graph looks up no rows of embedding '{name}'")
        scale = Scale.of(module.weight_fake_quant)
        rows = self._constant(f"{name}.weight{INTEGER}", integer_weight(module).numpy())
        users = [node for node in self.found.readers[table] if node.op_type == "Gather" and node.input[0] == table]
        for number, node in enumerate(users):
            looked_up, scope = f"{node.output[0]}{INTEGER}", f"{name}/{number}"
            gather = helper.make_node("Gather", [rows, node.input[1]], [looked_up], name=f"{scope}/Gather", axis=0)
            self._replace((node,), [gather, *self._scaled(looked_up, node.output[0], scale.value, scope)])
        if not users:
            self.behind[None] += self._scaled(rows, table, scale.value, name)
            del self.initializers[table]

    def finish(self) -> None:
        """Put the new nodes in place of the old ones, and drop the weights that nobody reads any more.

        Raises:
            UserError: a product is left in float32.
        """
        if self.of_module:
            raise UserError(f"the exported graph has a product in '{next(iter(self.of_module))}' that nothing rounds")
        nodes: list[NodeProto] = []
        self._append(nodes, self.behind[None])
        for node in self.graph.node:
            self._append(nodes, self.added.get(node.output[0], []))
            if node.output[0] not in self.removed:
                self._append(nodes, [node])
        used = {name for node in nodes for name in node.input}
        idle = ("Identity", "Transpose")  # of weights
        nodes = [n for n in nodes if n.op_type not in idle or n.output[0] in used or self._is_output(n.output[0])]
        used = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in self.initializers.values() if tensor.name in used]
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(nodes)
        self.graph.initializer.extend({tensor.name: tensor for tensor in kept}.values())

    def _is_output(self, name: str) -> bool:
        return any(output.name == name for output in self.graph.output)

    def _append(self, nodes: list[NodeProto], more: Iterable[NodeProto]) -> None:
        """Add nodes to a list, each followed by what rounds its results."""
        for node in more:
            nodes.append(node)
            for output in node.output:
                nodes += self.behind[output]

    def _round(self, tensor: str, scale: Scale) -> str:
        """QuantizeLinear of a tensor, once for all that read it with the same scale."""
        key = tensor, float(scale.value), scale.zero_point
        if key not in self.rounded:
            output = self.rounded[key] = f"{tensor}{INTEGER}_{len(self.rounded)}"
            zero_point = self._constant(f"{output}_zero_point", np.uint8(scale.zero_point))
            inputs = [tensor, self._constant(f"{output}_scale", scale.value), zero_point]
            made = None if tensor in self.initializers else tensor
            self.behind[made].append(helper.make_node("QuantizeLinear", inputs, [output], name=f"{output}_node"))
        return self.rounded[key]

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
