"""Whether an exported file gives the logits of the model that it was made from."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel

from obert.engines import Engine
from obert.foundation.errors import UserError
from obert.heads import Head

# Fused kernels add in another order. In float32 that moves logits of a 12-layer encoder, which are of order 1 to 10,
# by about 1e-5; an operator that was exported wrongly moves them by 0.01 and more.
PARITY_TOLERANCE = 1e-3
# Where a value lies between two integers, float32 sums in another order round it to the other one, a step of 1/255 of a
# tensor's range, which later layers pass on: single logits of 3 layers move by 0.5, the mean of all by 0.01.
QUANTIZED_PARITY_TOLERANCE = 0.05  # of the mean
PARITY_FEATURES = 64
PARITY_BATCH = 8


class Parity(NamedTuple):
    """Absolute differences of logits over `count` features."""

    largest: float
    mean: float
    count: int


def parity(
    network: PreTrainedModel,
    engine: Engine,
    head: Head,
    batches: Iterable[Mapping[str, torch.Tensor]],
    quantized: bool = False,
) -> Parity:
    """Absolute differences of outputs between PyTorch and an engine.

    PARITY_FEATURES real features are enough: an export that is wrong is wrong for most inputs.

    Args:
        batches: inputs of the model, each [sequences, tokens], on the CPU. Positions of padding are not compared.
        quantized: judge by the mean difference and QUANTIZED_PARITY_TOLERANCE, not by the largest and PARITY_TOLERANCE.

    Raises:
        UserError: the difference is over the tolerance or not a number, or there is no batch.
    """
    differences, count = [], 0
    for inputs in batches:
        with torch.inference_mode():
            found = network(**inputs)
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        real = arrays["attention_mask"] == 1
        for name, output in zip(head.outputs, engine.run(arrays), strict=True):
            difference = np.abs(found[name].numpy() - output)
            differences.append(difference[real].ravel() if head.of_tokens else difference.ravel())
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
