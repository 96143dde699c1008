"""Rounding to 8 bits while training: a tensor's range is observed, and its values rounded to steps of that range.

The method is that of Jacob et al. 2018, section 3.1. The numbers are, bit for bit, those of torch.ao's `FakeQuantize`
with `MinMaxObserver` and `MovingAverageMinMaxObserver`, which PyTorch is going to remove.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from obert.foundation.errors import UserError

AVERAGING = 0.01
"""The share of a batch in the moving average of ranges."""
SMALLEST = torch.finfo(torch.float32).eps  # a scale; of a tensor that is all zeros, for one


class Quantizer(nn.Module):
    """Rounds a tensor to real numbers that are `scale * (integer - zero_point)`, one scale a tensor.

    The gradient passes through, but not where a value lies outside the range. All state is in buffers, so that a saved
    model rounds as it did: `scale` [1] in float32, `zero_point` [1] in int32, the range seen, and whether it is
    followed.
    """

    lowest: int
    highest: int

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("zero_point", torch.zeros(1, dtype=torch.int32))
        self.register_buffer("observer_enabled", torch.ones(1, dtype=torch.uint8))
        self.register_buffer("min_val", torch.tensor(float("inf")))
        self.register_buffer("max_val", torch.tensor(float("-inf")))
        self._follows = True  # `observer_enabled`, which it would take a wait for the device to read

    def forward(self, values: Tensor) -> Tensor:
        """Values of any shape, rounded; none is finite any more if one, while ranges are followed, was not."""
        if self._follows:
            self._observe(values.detach().float())
        return torch.fake_quantize_per_tensor_affine(values, self.scale, self.zero_point, self.lowest, self.highest)

    def freeze(self) -> None:
        """Follow the ranges of values no longer.

        Raises:
            UserError: a value that was seen is not finite.
        """
        if not self._follows:
            return
        if not torch.isfinite(self.scale):  # rounding would make a number of it, unnoticed
            raise UserError("a value to be rounded to 8 bits is not a number: training has diverged; lower its rate")
        self._follows = False
        self.observer_enabled.zero_()

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._follows = bool(self.observer_enabled)

    def _observe(self, values: Tensor) -> None:
        lowest, highest = torch.aminmax(values)
        low, high = self._joined(lowest, highest)
        self.min_val.copy_(low)
        self.max_val.copy_(high)
        # Zero is always among the integers, so that what is pruned stays zero.
        scale, zero_point = self._steps(self.min_val.clamp(max=0), self.max_val.clamp(min=0))
        self.scale.copy_(scale)
        self.zero_point.copy_(zero_point)

    @abstractmethod
    def _joined(self, lowest: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
        """The range seen so far and that of these values."""

    @abstractmethod
    def _steps(self, lowest: Tensor, highest: Tensor) -> tuple[Tensor, Tensor | int]:
        """Scale and zero point of a range that has zero in it."""


class WeightQuantizer(Quantizer):
    """Symmetric, in int8 from -127, over the whole range seen."""

    lowest, highest = -127, 127

    def _joined(self, lowest, highest):
        return torch.minimum(self.min_val, lowest), torch.maximum(self.max_val, highest)

    def _steps(self, lowest, highest):
        largest = torch.maximum(-lowest, highest)
        return (largest / ((self.highest - self.lowest) / 2)).clamp(min=SMALLEST), 0


class ActivationQuantizer(Quantizer):
    """Asymmetric, in uint8, over a moving average of the ranges of batches."""

    lowest, highest = 0, 255

    def _joined(self, lowest, highest):
        first = torch.isposinf(self.min_val) & torch.isneginf(self.max_val)
        low = self.min_val + AVERAGING * (lowest - self.min_val)
        high = self.max_val + AVERAGING * (highest - self.max_val)
        return torch.where(first, lowest, low), torch.where(first, highest, high)

    def _steps(self, lowest, highest):
        scale = ((highest - lowest) / (self.highest - self.lowest)).clamp(min=SMALLEST)
        zero_point = self.lowest - torch.round(lowest / scale).to(torch.int32)
        return scale, zero_point.clamp(self.lowest, self.highest)


def freeze_scales(network: nn.Module) -> nn.Module:
    """Make all scales of a model stay as they are, and return it.

    Raises:
        UserError: a value that was seen is not finite.
    """
    for module in network.modules():
        if isinstance(module, Quantizer):
            module.freeze()
    return network
