"""Quantisation-aware training with fake quantisation (Jacob et al. 2018; oBERT, appendix A.7).

8 bits, one scale a tensor: weights and embeddings symmetric, the inputs of linear layers and of the attention's
products asymmetric. Softmax, LayerNorm, GELU and the outputs of linear layers stay as they are. Zero weights stay zero.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback

from obert.foundation.errors import UserError
from obert.quantization.products import find_products, round_products
from obert.quantization.quantizers import ActivationQuantizer, Quantizer, WeightQuantizer, freeze_scales


class QuantizedLinear(nn.Linear):
    """A linear layer whose input and weight are rounded to 8 bits, and the bias to 32 at the scale of their product."""

    def forward(self, inputs: Tensor) -> Tensor:
        inputs, weight = self.input_fake_quant(inputs), self.weight_fake_quant(self.weight)
        if self.bias is None:
            return nn.functional.linear(inputs, weight)
        scale = self.input_fake_quant.scale * self.weight_fake_quant.scale
        rounding = (torch.round(self.bias / scale) * scale - self.bias).detach()  # the gradient passes through
        return nn.functional.linear(inputs, weight, self.bias + rounding)


class QuantizedEmbedding(nn.Embedding):
    """An embedding whose table is rounded to 8 bits."""

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.embedding(inputs, self.weight_fake_quant(self.weight), self.padding_idx)


def quantize(network: PreTrainedModel) -> PreTrainedModel:
    """Put fake quantisation into a model, in place: every linear layer, embedding and product of computed tensors.

    Parameters stay the same objects under the same names; what is added are the quantisers' buffers. A module that runs
    several times, as ALBERT's layers do, has one set of scales. Convolutions stay as they are.

    Raises:
        UserError: a part of the model cannot be quantised. The model is unchanged then.
    """
    device = network.device
    network.set_attn_implementation("eager")  # fused attention has no products to be seen
    products, ran = find_products(network)
    layers = [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Linear | nn.Embedding)]
    for name, module in layers:
        _require_plain(name, module)
    readers = _readers_of_tables(network, ran)
    for _, module in layers:
        quantize_layer(module)
    for module, pairs in products.items():
        round_products(module, pairs)
    for module in readers:
        module.__class__ = _rounded_positions()
    return network.to(device)


def quantize_layer(layer: nn.Linear | nn.Embedding) -> None:
    """Put fake quantisation into one layer, in place."""
    layer.weight_fake_quant = WeightQuantizer()
    if isinstance(layer, nn.Linear):
        layer.__class__ = QuantizedLinear
        layer.input_fake_quant = ActivationQuantizer()
    else:
        layer.__class__ = QuantizedEmbedding


def _require_plain(name: str, layer: nn.Linear | nn.Embedding) -> None:
    """Raise UserError if a layer does not compute what the layer of 8 bits does."""
    plain = nn.Linear if isinstance(layer, nn.Linear) else nn.Embedding
    if type(layer).forward is not plain.forward or "weight" not in layer._parameters:
        raise UserError(f"layer '{name}' is a {type(layer).__name__} of its own kind: this model cannot be quantised")
    if isinstance(layer, nn.Embedding) and layer.max_norm is not None:
        raise UserError(f"embedding '{name}' limits norms as it is read (max_norm): this model cannot be quantised")


def _readers_of_tables(network: PreTrainedModel, ran: set[nn.Module]) -> list[nn.Module]:
    """The modules that read a whole table of their own, as DeBERTa's encoder reads that of relative positions."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2Encoder

    readers = [module for module in network.base_model.modules() if type(module) is DebertaV2Encoder]
    known = {module.rel_embeddings for module in readers if module.relative_attention}
    for name, module in network.base_model.named_modules():
        if isinstance(module, nn.Embedding) and module not in ran | known:
            raise UserError(f"embedding '{name}' is read without a look-up: this model cannot be quantised")
    return readers


@cache
def _rounded_positions() -> type[nn.Module]:
    """DeBERTa's encoder with its table of relative positions rounded."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2Encoder

    class QuantizedDebertaV2Encoder(DebertaV2Encoder):
        def get_rel_embedding(self) -> Tensor | None:
            if not self.relative_attention:
                return None
            table = self.rel_embeddings.weight_fake_quant(self.rel_embeddings.weight)
            return self.LayerNorm(table) if "layer_norm" in self.norm_rel_ebd else table

    return QuantizedDebertaV2Encoder


def integer_weight(module: QuantizedLinear | QuantizedEmbedding) -> Tensor:
    """A layer's weight in int8, of its shape, as fake quantisation rounds it: to even, by the inverse scale."""
    rounded = torch.round(module.weight.detach() * (1 / module.weight_fake_quant.scale))
    return rounded.clamp(WeightQuantizer.lowest, WeightQuantizer.highest).to(torch.int8)


def is_quantized(network: nn.Module) -> bool:
    """Whether `quantize` has been there."""
    return any(isinstance(module, Quantizer) for module in network.modules())


def is_of_quantizer(name: str) -> bool:
    """Whether a tensor of a quantised model's state is a quantiser's, by its name."""
    return "fake_quant" in name


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
