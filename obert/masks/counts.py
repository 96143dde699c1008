"""Zeros of a model, counted and compared with the target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from obert.masks.patterns import UNSTRUCTURED, AnyPattern, Pattern

if TYPE_CHECKING:  # records hold these types, and must be read without torch
    from torch import Tensor

    from obert.masks.selection import Distribution


class _Part(BaseModel):
    # A score that is not a number stays one in the file, where pydantic would write null and not read it again.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class LayerSparsity(_Part):
    """Zeros of one pruned weight matrix."""

    zeros: int
    size: int


class Sparsity(_Part):
    """Zeros over the prunable weights (encoder linear layers), asked for and counted."""

    target: float
    measured: float
    layers: dict[str, LayerSparsity]


def count_zeros(weights: Mapping[str, Tensor], target: float) -> Sparsity:
    """Count the zeros of every prunable weight."""
    layers = {
        name: LayerSparsity(zeros=weight.numel() - int(weight.count_nonzero()), size=weight.numel())
        for name, weight in weights.items()
    }
    zeros, size = (sum(getattr(layer, field) for layer in layers.values()) for field in ("zeros", "size"))
    return Sparsity(target=target, measured=zeros / size, layers=layers)


def assert_sparsity(
    measured: Sparsity, where: str, pattern: AnyPattern = UNSTRUCTURED, distribution: Distribution = "global"
) -> Sparsity:
    """Return `measured`, or raise if fewer weights are zero than the target says, in each layer if uniform.

    More zeros are possible: a kept weight can be exactly zero by itself.

    Raises:
        RuntimeError: a mask was lost on the way.
    """
    parts = {name: [layer] for name, layer in measured.layers.items()}
    if distribution == "global":
        parts = {"all layers": list(measured.layers.values())}
    for name, layers in parts.items():
        size, zeros = sum(layer.size for layer in layers), sum(layer.zeros for layer in layers)
        wanted = round(size * measured.target)
        if isinstance(pattern, Pattern):
            wanted = pattern.groups_at(size, measured.target) * pattern.zeros
        if zeros < wanted:
            raise RuntimeError(
                f"{where}, {name}: {zeros} of {size} weights are zero, the target {measured.target:g} asks {wanted}"
            )
    return measured
