"""Quantisation-aware training with fake quantisation (Jacob et al. 2018; oBERT, appendix A.7).

8 bits, one scale a tensor: weights and embeddings symmetric, the inputs of linear layers and of the attention's
products asymmetric. Softmax, LayerNorm, GELU and the outputs of linear layers stay as they are. Zero weights stay zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel, TrainerCallback
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from obert.quantization.quantizers import ActivationQuantizer, Quantizer, WeightQuantizer, freeze_scales

ATTENTION = "quantized_eager"
PRODUCTS = ("query", "key", "probabilities", "value")


class QuantizedLinear(nn.Linear):
    """A linear layer whose input and weight are rounded to 8 bits, and the bias to 32 at the scale of their product."""

    def forward(self, inputs: Tensor) -> Tensor:
        inputs, weight = self.input_fake_quant(inputs), self.weight_fake_quant(self.weight)
        scale = self.input_fake_quant.scale * self.weight_fake_quant.scale
        rounding = (torch.round(self.bias / scale) * scale - self.bias).detach()  # the gradient passes through
        return nn.functional.linear(inputs, weight, self.bias + rounding)


class QuantizedEmbedding(nn.Embedding):
    """An embedding whose table is rounded to 8 bits."""

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.embedding(inputs, self.weight_fake_quant(self.weight), self.padding_idx)


def _quantized_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[Tensor, Tensor]:
    """Attention whose products have inputs of 8 bits; query, key and value are [batch, heads, tokens, size]."""
    rounded = module.product_fake_quants
    scores = torch.matmul(rounded["query"](query), rounded["key"](key).transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    probabilities = rounded["probabilities"](nn.functional.softmax(scores, dim=-1))
    dropped = nn.functional.dropout(probabilities, p=dropout, training=module.training)
    return torch.matmul(dropped, rounded["value"](value)).transpose(1, 2).contiguous(), probabilities


AttentionInterface.register(ATTENTION, _quantized_attention)
AttentionMaskInterface.register(ATTENTION, eager_mask)


def quantize(network: PreTrainedModel) -> PreTrainedModel:
    """Put fake quantisation into a model, in place: every linear layer, embedding and attention.

    Parameters stay the same objects under the same names; what is added are the quantisers' buffers.
    """
    device = network.device
    for module in list(network.modules()):
        if type(module) is nn.Linear:
            module.__class__ = QuantizedLinear
            module.input_fake_quant, module.weight_fake_quant = ActivationQuantizer(), WeightQuantizer()
        elif type(module) is nn.Embedding:
            module.__class__ = QuantizedEmbedding
            module.weight_fake_quant = WeightQuantizer()
        elif all(hasattr(module, name) for name in ("query", "key", "value")):
            module.product_fake_quants = nn.ModuleDict({name: ActivationQuantizer() for name in PRODUCTS})
    network.set_attn_implementation(ATTENTION)
    return network.to(device)


def integer_weight(module: QuantizedLinear | QuantizedEmbedding) -> Tensor:
    """A layer's weight in int8, of its shape, as fake quantisation rounds it: to even, by the inverse scale."""
    rounded = torch.round(module.weight.detach() * (1 / module.weight_fake_quant.scale))
    return rounded.clamp(WeightQuantizer.lowest, WeightQuantizer.highest).to(torch.int8)


def is_quantized(network: nn.Module) -> bool:
    """Whether `quantize` has been there."""
    return any(isinstance(module, Quantizer) for module in network.modules())


class FreezeObservers(TrainerCallback):
    """Scales follow the data until a step, and stay as they are from there on.

    Args:
        step: the optimiser step before which they are frozen.
    """

    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        """Called before an optimiser step."""
        if state.global_step >= self.step:
            freeze_scales(model)
