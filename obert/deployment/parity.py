"""Whether an exported file gives the logits of the model that it was made from."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from obert.deployment.export import INPUTS
from obert.engines import Engine
from obert.foundation.errors import UserError

# Fused kernels add in another order. In float32 that moves logits of a 12-layer encoder, which are of order 1 to 10,
# by about 1e-5; an operator that was exported wrongly moves them by 0.01 and more.
PARITY_TOLERANCE = 1e-3
# Where a value lies between two integers, float32 sums in another order round it to the other one, a step of 1/255 of a
# tensor's range, which later layers pass on: single logits of 3 layers move by 0.5, the mean of all by 0.01.
QUANTIZED_PARITY_TOLERANCE = 0.05  # of the mean
PARITY_FEATURES = 64
PARITY_BATCH = 8


def padded_batches(features: Mapping[str, Sequence[Sequence[int]]], pad_token_id: int) -> Iterator[dict[str, Any]]:
    """Features in int64 arrays [batch, tokens], PARITY_BATCH at a time, padded to the longest of each batch."""
    padding = {"input_ids": pad_token_id}
    for start in range(0, len(features["input_ids"]), PARITY_BATCH):
        yield {
            name: pad_sequence(
                [torch.tensor(row) for row in features[name][start : start + PARITY_BATCH]],
                batch_first=True,
                padding_value=padding.get(name, 0),
            ).numpy()
            for name in INPUTS
        }


class Parity(NamedTuple):
    """Absolute differences of logits over `count` features."""

    largest: float
    mean: float
    count: int


def parity(
    network: PreTrainedModel,
    engine: Engine,
    features: Mapping[str, Sequence[Sequence[int]]],
    quantized: bool = False,
) -> Parity:
    """Absolute differences of logits between PyTorch and an engine.

    PARITY_FEATURES real features are enough: an export that is wrong is wrong for most inputs.

    Args:
        features: columns INPUTS with rows of varying length, not padded. Positions of padding are not compared.
        quantized: judge by the mean difference and QUANTIZED_PARITY_TOLERANCE, not by the largest and PARITY_TOLERANCE.

    Raises:
        UserError: the difference is over the tolerance or not a number, or there is no feature.
    """
    differences, count = [], 0
    for inputs in padded_batches(features, network.config.pad_token_id or 0):
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
            references = [output.numpy() for output in network(**tensors, return_dict=False)]
        real = inputs["attention_mask"] == 1
        for reference, output in zip(references, engine.run(inputs), strict=True):
            difference = np.abs(reference - output)
            # Question answering scores each token, classification the whole.
            differences.append(difference[real] if len(references) > 1 else difference.ravel())
        count += len(real)
    if not count:
        raise UserError("no validation feature to compare the exported model on")
    everything = np.concatenate(differences)
    found = Parity(float(everything.max()), float(everything.mean()), count)
    kind, value, tolerance = "up to", found.largest, PARITY_TOLERANCE
    if quantized:
        kind, value, tolerance = "a mean of", found.mean, QUANTIZED_PARITY_TOLERANCE
    if not value <= tolerance:
        raise UserError(
            f"logits of {engine.label} differ from PyTorch's by {kind} {value:.3g} over {count} features; allowed is "
            f"{tolerance:g}. The exported model is not the trained one: export it again, and report the architecture "
            "if that does not help."
        )
    return found
