"""Zeros of a model, counted and compared with the target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from obert.masks.patterns import UNSTRUCTURED, AnyPattern, Pattern

if TYPE_CHECKING:  # records hold these types, and must be read without torch
    from torch import Tensor

    from obert.masks.selection import Distribution


class _Part(BaseModel):
    # A score that is not a number stays one in the file, where pydantic would write null and not read it again.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class LayerSparsity(_Part):
    """Zeros of one weight matrix, or of several."""

    zeros: int
    size: int


class Sparsity(_Part):
    """Zeros over the weights in scope (by default the encoder's linear layers), asked for and counted.

    Attributes:
        target, measured: fractions of the weights in scope.
        layers: of each weight matrix in scope.
        encoder: fraction of the encoder's linear layers.
        whole_model: fraction of all weight matrices, embeddings and head included, in scope or not.
        parts: zeros of the encoder, the embeddings and the head. Records of before do not have the last three.
    """

    target: float
    measured: float
    layers: dict[str, LayerSparsity]
    encoder: float | None = Field(None, exclude_if=lambda value: value is None)
    whole_model: float | None = Field(None, exclude_if=lambda value: value is None)
    parts: dict[str, LayerSparsity] = Field({}, exclude_if=lambda value: not value)


def count_zeros(
    weights: Mapping[str, Tensor], target: float, parts: Mapping[str, Mapping[str, Tensor]] | None = None
) -> Sparsity:
    """Count the zeros of every weight in scope.

    Args:
        parts: all weight matrices of the model by part, the encoder's among them, to count the model as a whole too.
    """
    known: dict[str, LayerSparsity] = {}
    for name, weight in ((n, w) for group in (weights, *(parts or {}).values()) for n, w in group.items()):
        if name not in known:
            known[name] = LayerSparsity(zeros=weight.numel() - int(weight.count_nonzero()), size=weight.numel())
    layers = {name: known[name] for name in weights}
    sparsity = Sparsity(target=target, measured=_fraction(_sum(layers.values())), layers=layers)
    if parts is None:
        return sparsity
    sums = {part: _sum(known[name] for name in group) for part, group in parts.items()}
    whole = {"encoder": _fraction(sums["encoder"]), "whole_model": _fraction(_sum(sums.values())), "parts": sums}
    return sparsity.model_copy(update=whole)


def _sum(layers: Iterable[LayerSparsity]) -> LayerSparsity:
    layers = list(layers)
    return LayerSparsity(zeros=sum(layer.zeros for layer in layers), size=sum(layer.size for layer in layers))


def _fraction(layer: LayerSparsity) -> float:
    return layer.zeros / layer.size


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
