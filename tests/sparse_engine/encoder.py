"""An encoder of one layer as text, in the forms that exporters have. Weights are random and large."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

WIDTH, HEADS, WORDS, POSITIONS = 8, 2, 60, 48
# In braces what the forms below differ in. Constants are made by name in `constants`.
GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
encoder ({inputs}) => ({outputs}) {{
    shape = Shape(input_ids)
    batch = Slice(shape, zero_, one_)
    length = Slice(shape, one_, two_)
    count = Squeeze(length, zero_)
    {positions}
    e = Gather(words_weight, input_ids)
    p = Gather(positions_weight, index)
    x0 = Add(e, p)
    {norm}
    q0 = MatMul(x, query_weight)
    q1 = Add(query_bias, q0)
    k0 = MatMul(x, key_weight)
    k1 = Add(k0, key_bias)
    v1 = MatMul(x, value_weight)
    split = Concat<axis = 0>(batch, length, heads_)
    qs = Reshape(q1, split)
    ks = Reshape(k1, split)
    vs = Reshape(v1, split)
    q = Transpose<perm = [0, 2, 1, 3]>(qs)
    k = Transpose<perm = [0, 2, 3, 1]>(ks)
    v = Transpose<perm = [0, 2, 1, 3]>(vs)
    {mask}
    {scores}
    weights = Softmax<axis = -1>(masked)
    c0 = MatMul(weights, v)
    c1 = Transpose<perm = [0, 2, 1, 3]>(c0)
    rows = Concat<axis = 0>(minus_one_, width_)
    c = Reshape(c1, rows)
    o0 = Gemm<transB = 1>(c, output_weight, output_bias)
    whole = Concat<axis = 0>(batch, minus_one_, width_)
    o = Reshape(o0, whole)
    y = Add(o, x)
    {gelu}
    {head}
}}
"""
FORMS = {
    "inputs": {"two": "int64[B, T] input_ids, int64[B, T] attention_mask"},
    "outputs": {"rows": "float[B, T, F] out"},
    "positions": {
        "range": "index = Range(zero, count, one)",
        "cut": "index = Slice(numbers_, zero_, length, zero_)",
        "summed": """ones = ConstantOfShape<value = int64[1] {1}>(shape)
    counted = CumSum(ones, one)
    index = Sub(counted, one)""",
    },
    "norm": {
        "operator": "x = LayerNormalization<axis = -1, epsilon = 0.01>(x0, norm_weight, norm_bias)",
        "plain": "x = LayerNormalization<axis = 2, epsilon = 0.01>(x0, norm_weight)",
        "elementary": """mean = ReduceMean(x0, minus_one_)
    centred = Sub(x0, mean)
    square = Mul(centred, centred)
    variance = ReduceMean(square, minus_one_)
    steady = Add(epsilon, variance)
    deviation = Sqrt(steady)
    inverse = Reciprocal(deviation)
    normal = Mul(centred, inverse)
    weighted = Mul(norm_weight, normal)
    x = Add(norm_bias, weighted)""",
        "without weights": """mean = ReduceMean(x0, minus_one_)
    centred = Sub(x0, mean)
    square = Pow(centred, two)
    variance = ReduceMean(square, minus_one_)
    steady = Add(variance, epsilon)
    deviation = Sqrt(steady)
    x = Div(centred, deviation)""",
        "affine": """weighted = Mul(x0, norm_weight)
    x = Add(weighted, norm_bias)""",
    },
    "mask": {
        "added": """m0 = Cast<to = 1>(attention_mask)
    m1 = Unsqueeze(m0, one_two_)
    m2 = Sub(one_f, m1)
    mask = Mul(m2, hidden)""",
        "chosen": """m0 = Unsqueeze(attention_mask, one_two_)
    mask = Equal(m0, zero)""",
    },
    "scores": {
        "after": """s0 = MatMul(q, k)
    s1 = Mul(s0, scale)
    masked = Add(s1, mask)""",
        "before": """q2 = Div(q, four)
    s1 = MatMul(q2, k)
    masked = Add(mask, s1)""",
        "both": """q2 = Mul(q, half)
    k2 = Mul(k, half)
    s1 = MatMul(q2, k2)
    masked = Add(s1, mask)""",
    },
    "gelu": {
        "operator": "z = Gelu(y)",
        "tanh operator": 'z = Gelu<approximate = "tanh">(y)',
        "by erf": """inner = Div(y, root_two)
    erf = Erf(inner)
    more = Add(erf, one_f)
    gated = Mul(y, more)
    z = Mul(gated, half)""",
        "half first": """half_y = Mul(half, y)
    inner = Mul(y, half_root)
    erf = Erf(inner)
    more = Add(one_f, erf)
    z = Mul(half_y, more)""",
        "by tanh": """cube = Pow(y, three_f)
    small = Mul(cube, cubic)
    sum = Add(y, small)
    inner = Mul(sum, of_tanh)
    tanh = Tanh(inner)
    more = Add(tanh, one_f)
    half_y = Mul(y, half)
    z = Mul(half_y, more)""",
        "fast": """square_y = Mul(y, y)
    small = Mul(square_y, cubic)
    near_one = Add(small, one_f)
    steep = Mul(y, of_tanh)
    inner = Mul(steep, near_one)
    tanh = Tanh(inner)
    more = Add(one_f, tanh)
    gated = Mul(y, more)
    z = Mul(gated, half)""",
        "relu": "z = Relu(y)",
        "tanh": "z = Tanh(y)",
    },
    "head": {
        "rows": "out = Identity(z)",
        "one column": "out = Gather<axis = -1>(z, one)",
        "columns": "out = Slice(z, one_, three_, minus_one_)",
        "first": "out = Gather<axis = 1>(z, zero)",
        "first, cut": """first = Slice(z, zero_, one_, one_)
    out = Squeeze(first, one_)""",
        "layer of first": """first = Gather<axis = 1>(z, zero)
    out = Gemm(first, query_weight, query_bias)""",
    },
}


def constants() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    matrices = {f"{name}_weight": (WIDTH, WIDTH) for name in ("query", "key", "value", "output")}
    shapes = matrices | {f"{name}_bias": (WIDTH,) for name in ("query", "key", "output", "norm")}
    shapes |= {"words_weight": (WORDS, WIDTH), "positions_weight": (POSITIONS, WIDTH), "norm_weight": (WIDTH,)}
    integers = {
        "zero_": [0], "one_": [1], "two_": [2], "three_": [3], "minus_one_": [-1], "width_": [WIDTH], "zero": 0,
        "one": 1, "heads_": [HEADS, WIDTH // HEADS], "one_two_": [1, 2], "numbers_": range(POSITIONS), "nine": 9,
    }  # fmt: skip
    numbers = {
        "scale": 0.25, "four": 4, "half": 0.5, "one_f": 1, "two": 2, "three_f": 3, "hidden": -10000, "epsilon": 0.01,
        "root_two": 2**0.5, "half_root": 0.5**0.5, "cubic": 0.044715, "of_tanh": (2 / np.pi) ** 0.5, "few": -100,
    }  # fmt: skip
    return (
        {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
        | {name: np.array(value, np.int64) for name, value in integers.items()}
        | {name: np.array(value, np.float32) for name, value in numbers.items()}
    )


def written(path: Path, **parts: str) -> Path:
    """A file whose graph has these parts; of those left out, the first form."""
    chosen = {name: next(iter(forms.values())) for name, forms in FORMS.items()} | parts
    model = onnx.parser.parse_model(GRAPH.format(**chosen))
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants().items() if name in used
    )
    path.write_bytes(model.SerializeToString())
    return path
