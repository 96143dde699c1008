"""Zeros of a model, counted and compared with the target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from obert.foundation.errors import UserError
from obert.masks.patterns import UNSTRUCTURED, AnyPattern, Pattern

if TYPE_CHECKING:  # records hold these types, and must be read without torch
    from torch import Tensor

    from obert.masks.patterns import Distribution
    from obert.masks.selection import Cut


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
        target: fraction of the weights in scope, but for parts with a target of their own.
        targets: of those parts, by name.
        measured: fraction of all weights in scope.
        layers: of each weight matrix in scope.
        encoder: fraction of the encoder's linear layers.
        whole_model: fraction of all weight matrices, embeddings and head included, in scope or not.
        parts: zeros of the encoder, the embeddings and the head. Records of before do not have the last three.
    """

    target: float
    targets: dict[str, float] = Field({}, exclude_if=lambda value: not value)
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


def equal_zeros(sizes: Mapping[str, int], sparsity: float, to: Iterable[str] = ("encoder",)) -> float:
    """The sparsity of some parts of a model at which they have as many zeros as all its parts at `sparsity`.

    Args:
        sizes: weights of each part.
        to: the parts that are pruned.

    Raises:
        UserError: they have too few weights.
    """
    pruned = list(to)
    whole, size = sum(sizes.values()), sum(sizes[part] for part in pruned)
    target = sparsity * whole / size
    if target >= 1:
        raise UserError(
            f"{sparsity:g} of {whole:,} weights are more than {' and '.join(pruned)} can lose, {size:,} "
            f"({size / whole:.4f}). Ask for a lower sparsity, or prune more parts"
        )
    return target


def _sum(layers: Iterable[LayerSparsity]) -> LayerSparsity:
    layers = list(layers)
    return LayerSparsity(zeros=sum(layer.zeros for layer in layers), size=sum(layer.size for layer in layers))


def _fraction(layer: LayerSparsity) -> float:
    return layer.zeros / layer.size


def assert_sparsity(
    measured: Sparsity,
    where: str,
    pattern: AnyPattern = UNSTRUCTURED,
    distribution: Distribution = "global",
    cuts: Sequence[Cut] | None = None,
) -> Sparsity:
    """Return `measured`, or raise if fewer weights are zero than the target says, in each layer unless global.

    More zeros are possible: a kept weight can be exactly zero by itself.

    Args:
        cuts: that the weights were pruned with, if not one at `measured.target`.

    Raises:
        RuntimeError: a mask was lost on the way.
    """
    asked = {"all layers": (list(measured.layers), measured.target)}
    if cuts is not None:
        asked = {f"{cut.names[0]} to {cut.names[-1]}": (list(cut.names), cut.sparsity) for cut in cuts}
    if distribution != "global":
        asked = {name: ([name], target) for names, target in asked.values() for name in names}
    for label, (names, target) in asked.items():
        found = _sum(measured.layers[name] for name in names)
        wanted = round(found.size * target)
        if isinstance(pattern, Pattern):
            wanted = pattern.groups_at(found.size, target) * pattern.zeros
        if found.zeros < wanted:
            raise RuntimeError(
                f"{where}, {label}: {found.zeros} of {found.size} weights are zero, the target {target:g} asks {wanted}"
            )
    return measured
