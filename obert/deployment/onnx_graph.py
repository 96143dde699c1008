"""An exported graph, read by its weights: products of linear layers, whatever their nodes are called.

A weight in a file has the name of its parameter in PyTorch, or that and INTEGER where it is stored in integers.
"""

from collections import defaultdict

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper

INTEGER = "_quantized"
FLOAT_PRODUCTS = ("MatMul", "Gemm")
PRODUCTS = (*FLOAT_PRODUCTS, "MatMulInteger")


class OnnxGraph:
    """A graph with the ways between its tensors.

    Attributes:
        constants: tensors whose values are in the file, by each of their names.
        transposed: what a tensor is the transposed of.
        readers: operators that read a tensor, by its name; None stands for the graph's outputs.
    """

    def __init__(self, graph: GraphProto):
        self.graph = graph
        self.constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.transposed = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Transpose"}
        self.readers: dict[str, list[NodeProto | None]] = defaultdict(list)
        for node in graph.node:
            if node.op_type == "Identity" and node.input[0] in self.constants:  # equal tensors may be there once
                self.constants[node.output[0]] = self.constants[node.input[0]]
            for name in node.input:
                self.readers[name].append(node)
        for output in graph.output:
            self.readers[output.name].append(None)

    def layers(self) -> dict[str, list[NodeProto]]:
        """Products with a constant weight, by the name that the weight's layer has in PyTorch, in the graph's order.

        A layer that runs several times has several.
        """
        found = defaultdict(list)
        for node in self.graph.node:
            weight = self.weight_of(node)
            if weight is not None:
                found[weight.removesuffix(INTEGER).removesuffix(".weight")].append(node)
        return dict(found)

    def weight_of(self, product: NodeProto) -> str | None:
        """The constant that a product multiplies with, or the transposed of which; None if it has none."""
        if product.op_type not in PRODUCTS:
            return None
        name = self.transposed.get(product.input[1], product.input[1])
        return name if name in self.constants else None

    def sum_of(self, product: NodeProto) -> NodeProto:
        """What adds a constant bias to a product; the product itself if nothing does."""
        add = self.only_reader(product, "Add")
        return product if add is None or self.constant_of(add) is None else add

    def only_reader(self, node: NodeProto, kind: str) -> NodeProto | None:
        """What alone reads an operator's result, if that is of this type."""
        readers = self.readers[node.output[0]]
        return readers[0] if len(readers) == 1 and readers[0] is not None and readers[0].op_type == kind else None

    def constant_of(self, node: NodeProto) -> str | None:
        """The constant among the inputs of an operator."""
        return next((name for name in node.input if name in self.constants), None)

    def values(self, name: str | None) -> np.ndarray | None:
        """The values of a constant; None of anything else."""
        return numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def number(self, name: str | None) -> np.generic | None:
        """The value of a constant that is one number."""
        values = self.values(name)
        return values.reshape(())[()] if values is not None and values.size == 1 else None
