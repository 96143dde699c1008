"""What the parts of a model cost: multiply-adds of one sequence, and bytes after gzip."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from obert.deployment.export import gzip_size
from obert.models.architecture import architecture_of
from obert.quantization.fake import integer_weight

LENGTH = 128  # tokens of the sequence, or as many as the model has positions for
PRODUCTS = "products"  # of activations with activations: attention


def component_costs(
    floating: PreTrainedModel, network: PreTrainedModel, inputs: Sequence[str], longest: int
) -> dict[str, Any]:
    """What of a model's costs by part a record cannot be computed from.

    Args:
        floating: the model without its quantisation, in evaluation mode, with `attn_implementation="eager"`.
        network: the model as it is stored, quantised or not.
        inputs: what it is given by keyword.
        longest: tokens that it can take.

    Returns:
        `length`, tokens of the sequence; `multiply_adds` of the weight matrices of each part and of `products`, in one
        pass over that sequence; `gzip_bytes` of the weight matrices of each part, of float32 or, quantised, of int8.
    """
    length = min(LENGTH, longest)
    return {
        "length": length,
        "multiply_adds": multiply_adds(floating, inputs, length),
        "gzip_bytes": {
            part: gzip_size(_stored(layer) for layer in layers.values())
            for part, layers in architecture_of(network).parts().items()
        },
    }


def multiply_adds(network: PreTrainedModel, inputs: Sequence[str], length: int) -> dict[str, int]:
    """Multiply-adds of one pass over a sequence by part of the model, and of `products`.

    A look-up has none. A linear layer whose weight is a table of embeddings counts for the embeddings, with every token
    that it scores; one that runs several times counts as often.
    """
    part_of = {
        id(layer.weight): part for part, layers in architecture_of(network).parts().items() for layer in layers.values()
    }
    counter = FlopCounterMode(display=False)
    tokens = torch.ones((1, length), dtype=torch.long)
    example = {name: torch.zeros_like(tokens) for name in inputs} | {"attention_mask": tokens, "input_ids": tokens}
    with torch.no_grad(), counter:
        network(**example)
    by_module = counter.get_flop_counts()
    found = dict.fromkeys((*dict.fromkeys(part_of.values()), PRODUCTS), 0)
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            seen = by_module.get(f"{type(network).__name__}.{name}", {})  # nothing of a layer that does not run
            found[part_of[id(module.weight)]] += sum(seen.values()) // 2
    found[PRODUCTS] = counter.get_total_flops() // 2 - sum(found.values())
    return found


def _stored(layer: nn.Linear | nn.Embedding) -> memoryview:
    weight = integer_weight(layer) if hasattr(layer, "weight_fake_quant") else layer.weight.detach()
    return memoryview(weight.contiguous().numpy()).cast("B")
