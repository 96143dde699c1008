"""What a program of the sparse engine computes, in NumPy and float64, one operation after the other; and its inputs.

    outputs = run(program, {"input_ids": ..., "attention_mask": ...})

Where a program has integers, their products are exact, and what they are worth is computed in float32, as in the graph.
"""

import numpy as np
from scipy.special import erf

from obert.sparse.program import (
    Activate,
    Add,
    Affine,
    Attention,
    Embed,
    First,
    Linear,
    Lookup,
    Norm,
    Operation,
    Program,
    Rounding,
    Weight,
)  # fmt: skip

HIDDEN = np.finfo(np.float32).min  # what is added to the scores of keys that are padding
Inputs = dict[str, np.ndarray]  # int64, [sequences, tokens]


def run(program: Program, inputs: Inputs) -> dict[str, np.ndarray]:
    """The outputs by name, float64, [sequences, ...] or [sequences, tokens, ...]; those of padding are there too."""
    values = run_all(program, inputs)
    outputs = {}
    for output in program.outputs:
        columns = values[output.x][..., output.start : output.stop]
        outputs[output.name] = columns[..., 0] if output.squeezed else columns
    return outputs


def run_all(program: Program, inputs: Inputs) -> dict[str, np.ndarray]:
    """All values by name, float64, [sequences, tokens, features], or [sequences, features] after `First`."""
    values: dict[str, np.ndarray] = {}
    for operation in program.operations:
        values[operation.out] = result(operation, values, program, inputs)
    return values


def result(operation: Operation, values: dict[str, np.ndarray], program: Program, inputs: Inputs) -> np.ndarray:
    """What one operation makes of values."""
    match operation:
        case Embed(lookups=lookups, joined=joined):
            found = [rows(lookup, program, inputs) for lookup in lookups]
            return np.concatenate(found, axis=-1) if joined else np.sum(found, axis=0)
        case Linear(x=x, weight=weight):
            return linear(values[x], weight)
        case Add(x=x, y=y):
            return values[x] + values[y]
        case Norm(x=x, weight=weight, bias=bias, epsilon=epsilon):
            centred = values[x] - values[x].mean(axis=-1, keepdims=True)
            deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float64(epsilon))
            return centred / deviation * weight + bias
        case Affine(x=x, weight=weight, bias=bias):
            return values[x] * weight + bias
        case Activate(x=x, kind=kind):
            return ACTIVATIONS[kind](values[x])
        case Attention():
            return attention(operation, values, inputs)
        case First(x=x):
            return values[x][:, 0]
    raise TypeError(operation)


ACTIVATIONS = {
    "gelu": lambda x: x * 0.5 * (1 + erf(x / np.sqrt(2))),
    "gelu_tanh": lambda x: x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
}


def rows(lookup: Lookup, program: Program, inputs: Inputs) -> np.ndarray:
    """Rows of a table, [sequences, tokens, width]."""
    words = inputs["input_ids"]
    index = np.zeros_like(words)
    if lookup.index == "words":
        index = words
    elif lookup.index == "types":
        index = inputs["token_type_ids"]
    elif lookup.index == "positions" and program.pad_token is None:
        index = np.broadcast_to(np.arange(words.shape[1]), words.shape)
    elif lookup.index == "positions":
        real = words != program.pad_token
        index = program.pad_token + np.cumsum(real, axis=1) * real
    found = lookup.table[index].astype(np.float64)
    shifted = np.zeros_like(found)
    for token in range(words.shape[1]):
        if 0 <= token + lookup.shift < words.shape[1]:
            shifted[:, token] = found[:, token + lookup.shift]
    return shifted


def rounded(x: np.ndarray, rounding: Rounding) -> np.ndarray:
    """What is multiplied of a value in 8 bits: int64, with its zero point taken off."""
    integers = np.rint(x.astype(np.float32) / rounding.scale) + np.float32(rounding.zero_point)
    return np.clip(integers, 0, 255).astype(np.int64) - rounding.zero_point


def linear(x: np.ndarray, weight: Weight) -> np.ndarray:
    """A linear layer."""
    if weight.rounding is None:
        return x @ weight.values.T.astype(np.float64) + weight.bias
    product = rounded(x, weight.rounding) @ weight.values.T.astype(np.int64) + weight.bias
    return (product.astype(np.float32) * weight.scale).astype(np.float64)


def attention(operation: Attention, values: dict[str, np.ndarray], inputs: Inputs) -> np.ndarray:
    """Attention over the real tokens of each sequence."""
    names = (operation.query, operation.key, operation.value)
    query, key, value = (_heads(values[name], operation.heads) for name in names)
    if operation.roundings is None:
        scores = query @ key.swapaxes(2, 3)
    else:
        of_query, of_key, of_probabilities, of_value = operation.roundings
        product = rounded(query, of_query) @ rounded(key, of_key).swapaxes(2, 3)
        scores = (product.astype(np.float32) * (of_query.scale * of_key.scale)).astype(np.float64)
    mask = inputs.get("attention_mask", np.ones_like(inputs["input_ids"]))
    scores = scores * np.float64(operation.scale) + np.where(mask == 1, 0, HIDDEN)[:, None, None, :]
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probabilities = weights / weights.sum(axis=-1, keepdims=True)
    if operation.roundings is None:
        context = probabilities @ value
    else:
        product = rounded(probabilities, of_probabilities) @ rounded(value, of_value)
        context = (product.astype(np.float32) * (of_probabilities.scale * of_value.scale)).astype(np.float64)
    return context.swapaxes(1, 2).reshape(values[operation.query].shape)


def _heads(x: np.ndarray, heads: int) -> np.ndarray:
    """[sequences, tokens, features] as [sequences, heads, tokens, features of a head]."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def batch(program: Program, lengths: list[int], words: int, seed: int = 0, pad: int = 0) -> Inputs:
    """Random inputs of a program for sequences of these lengths, padded to the longest.

    Args:
        words: how many the model knows.
        pad: the pad token, which no real token is.
    """
    random = np.random.default_rng(seed)
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    made = {
        "input_ids": np.where(mask == 1, random.integers(5, words, mask.shape), pad),
        "attention_mask": mask,
        "token_type_ids": (np.arange(max(lengths)) > 2).astype(np.int64) * mask,
    }
    return {name: made[name] for name in program.inputs}
