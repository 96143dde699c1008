"""What DeepSparse's own log, at its level `diagnose`, says of a graph that it has compiled.

`Engine.fraction_of_supported_ops` does not tell: it is 0.97 for a graph that is accelerated, 0.91 for one of
QuantizeLinear and DequantizeLinear pairs that is not at all, and 0 for some of which all but one operator is.
"""

import re
from pathlib import Path

import onnx

from obert.engines import first_of

# Operators of a linear layer, and which of their inputs is the weight.
_PRODUCTS = {"MatMul": 1, "Gemm": 1, "MatMulInteger": 1, "QLinearMatMul": 3}
_NODE = re.compile(r"^Node \d+: \S+ (\S+)$", re.MULTILINE)
_NODES = r"\n((?:Node .*\n)*)"
# The engine's own name of a product with a constant weight, whose zeros it skips, and the tensor it makes.
_CONSTANT_PRODUCT = re.compile(r"^ *\((?:Connected|IntegerFC) .* -> (\S+) \(", re.MULTILINE)


def threads(log: str) -> int | None:
    """The number of threads that the last graph was compiled for; None where the log names none."""
    found = re.findall(r"\busing (\d+) threads", log) or re.findall(r"\btotal_num_threads=(\d+)", log)
    return int(found[-1]) if found else None


def first_unsupported(path: Path, log: str) -> str | None:
    """The first operator of an ONNX file that is left to the engine's fallback, by type and name; None if none is.

    Counted are linear layers, which must be products with a constant weight to the engine, and what is computed from
    their results. What is made of the attention mask before is small, and left to the fallback in any BERT.

    Args:
        log: what the engine wrote while it compiled the file.
    """
    compiled = [
        part
        for part in log.split("== Beginning new subgraph ==")[1:]
        if "== Compiling " in part and "FAILED TO COMPILE" not in part
    ]
    own_nodes = {name for part in compiled for name in _names("Printing subgraph:", part)}
    own_products = {name for part in compiled for name in _CONSTANT_PRODUCT.findall(part)}
    considered = set(_names("Printing GraphViewer .*:", log))  # the others were folded into constants

    graph = onnx.load(path, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    computed: set[str] = set()  # from the result of a linear layer
    left = []
    for node in graph.node:
        if all(name in constants for name in node.input if name):
            constants.update(node.output)
            continue
        weight = _PRODUCTS.get(node.op_type)
        if weight is not None and node.input[weight] in constants:
            # A product and the addition of its bias may have become one, which makes the sum.
            sums = {other.output[0] for other in graph.node if other.op_type == "Add" and node.output[0] in other.input}
            is_own = bool(own_products & {node.output[0], *sums})
        elif computed.intersection(node.input):
            is_own = node.name in own_nodes or node.name not in considered
        else:
            continue
        computed.update(node.output)
        if not is_own:
            left.append(node)
    if not left:
        return None
    first = left[0]
    said = re.search(rf"Unsupported {re.escape(f'{first.op_type} {first.name}')}, (.*)", log)
    return first_of(f"{first.op_type} '{first.name}'{f' ({said[1]})' if said else _weight_of(first, graph)}", len(left))


def _names(heading: str, log: str) -> list[str]:
    """Names of the nodes that are listed below the first line with a heading."""
    found = re.search(heading + _NODES, log)
    return _NODE.findall(found[1]) if found else []


def _weight_of(node: onnx.NodeProto, graph: onnx.GraphProto) -> str:
    """Which operator makes a linear layer's weight, if one does. (Of equal weights all but one are an Identity.)"""
    if node.op_type not in _PRODUCTS:
        return ""
    weight = node.input[_PRODUCTS[node.op_type]]
    made_by = [other.op_type for other in graph.node if weight in other.output and other.op_type != "Identity"]
    return f" (its weight comes from {made_by[0]})" if made_by else ""
