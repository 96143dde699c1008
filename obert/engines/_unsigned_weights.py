"""The same integer graph with its int8 weights as uint8, 128 more, with a zero point that is 128 more as well.

Where ONNX Runtime's products of uint8 and int8 saturate (see `_integer_products`), those of uint8 and uint8 are exact:
they are widened to 16 bits first and added in 32, which is slower.
"""

import numpy as np
from onnx import GraphProto, numpy_helper

OFFSET = 128


def to_unsigned(graph: GraphProto) -> bool:
    """Rewrite every MatMulInteger with a constant weight in int8, in place, and say whether there was one."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    added: set[str] = set()

    def unsigned(name: str, integers: np.ndarray) -> str:
        moved = f"{name}_unsigned"
        if moved not in added:
            added.add(moved)
            graph.initializer.append(numpy_helper.from_array(np.asarray(integers + OFFSET, np.uint8), moved))
        return moved

    for node in graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "MatMulInteger" else None
        if weight is None or weight.data_type != weight.INT8:
            continue
        name = node.input[3] if len(node.input) == 4 else ""
        zero_point = numpy_helper.to_array(constants[name]) if name else np.int8(0)
        inputs = [*node.input[:3], *[""] * (3 - len(node.input))]
        inputs[1] = unsigned(weight.name, numpy_helper.to_array(weight).astype(np.int16))
        inputs.append(unsigned(name or "no_zero_point", np.asarray(zero_point, np.int16)))
        node.input[:] = inputs
    read = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
    return bool(added)
