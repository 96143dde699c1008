"""Whether products of 8-bit integers are exact on this processor, and in this runtime.

x86 processors with AVX2 or AVX-512 and no VNNI multiply uint8 by int8 with VPMADDUBSW, which adds two products in 16
bits and saturates: 255 * 127 + 255 * 127 = 64,770 becomes 32,767. Whether a runtime uses it depends on the form of the
graph. No runtime tells, so a small graph is run and compared with exact integers.
"""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROWS, INNER, COLUMNS = 32, 256, 64
ZERO_POINT = 128
Run = Callable[[dict[str, np.ndarray]], list[np.ndarray]]


def operands() -> tuple[np.ndarray, np.ndarray]:
    """Inputs [ROWS, INNER] in uint8 and weights [INNER, COLUMNS] in int8: random ones, and the extremes of both."""
    generator = np.random.default_rng(0)
    inputs = generator.integers(0, 256, (ROWS, INNER)).astype(np.uint8)
    weights = generator.integers(-127, 128, (INNER, COLUMNS)).astype(np.int8)
    inputs[:2] = [[255], [0]]
    weights[:, :2] = [127, -127]
    weights[:, COLUMNS // 2 :][generator.random((INNER, COLUMNS // 2)) < 0.8] = 0  # kernels that skip zeros are others
    return inputs, weights


def graph() -> onnx.ModelProto:
    """A linear layer and a product of two inputs, in the form that exports have, with scales of 1.

    Inputs are those of an encoder; they are combined into integers that round to themselves.
    """
    constants = {
        "one": np.float32(1),
        "zero_point": np.uint8(ZERO_POINT),
        "weight": operands()[1],
        "weight_zero_point": np.int8(0),
        "bias": np.zeros(COLUMNS, np.int32),
    }
    nodes = [
        ("Mul", ["input_ids", "attention_mask"], "masked", {}),
        ("Add", ["masked", "token_type_ids"], "integers", {}),
        ("Cast", ["integers"], "real", {"to": TensorProto.FLOAT}),
        ("QuantizeLinear", ["real", "one", "zero_point"], "rounded", {}),
        ("MatMulInteger", ["rounded", "weight", "zero_point", "weight_zero_point"], "product", {}),
        ("Add", ["product", "bias"], "sum", {}),
        ("Cast", ["sum"], "sum_float", {"to": TensorProto.FLOAT}),
        ("Mul", ["sum_float", "one"], "layer", {}),
        ("Transpose", ["real"], "transposed", {"perm": [1, 0]}),
        ("QuantizeLinear", ["transposed", "one", "zero_point"], "transposed_rounded", {}),
        ("MatMulInteger", ["rounded", "transposed_rounded", "zero_point", "zero_point"], "square", {}),
        ("Cast", ["square"], "square_float", {"to": TensorProto.FLOAT}),
        ("Mul", ["square_float", "one"], "products", {}),
    ]
    made = helper.make_graph(
        [helper.make_node(kind, inputs, [output], f"{output}_node", **facts) for kind, inputs, output, facts in nodes],
        "integer_products",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in _inputs()],
        [
            helper.make_tensor_value_info("layer", TensorProto.FLOAT, ["batch", COLUMNS]),
            helper.make_tensor_value_info("products", TensorProto.FLOAT, ["batch", "batch"]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def _inputs() -> dict[str, np.ndarray]:
    ids = operands()[0].astype(np.int64) - ZERO_POINT
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def largest_error(run: Run) -> int:
    """The largest difference between the exact integers and those of a runtime that has loaded `graph()`.

    Sums stay below 2^24, so float32 holds them exactly, also where a runtime multiplies in it.
    """
    inputs, weights = _inputs(), operands()[1].astype(np.int64)
    ids = inputs["input_ids"]
    found = run(inputs)
    exact = (ids @ weights, ids @ ids.T)
    return int(max(np.abs(np.float64(f) - e).max() for f, e in zip(found, exact, strict=True)))
