"""The layers that are pruned: which, the masks they have already, and the state they are in meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from obert.foundation.errors import UserError, unknown_name
from obert.masks.patterns import Distribution, Pattern
from obert.masks.selection import Masks


@dataclass(frozen=True)
class LeftOut:
    """A weight that is not pruned: the class of its layer, and how many numbers it has."""

    kind: str
    size: int


def layers_of(model: nn.Module, scope: str | Sequence[str] | None) -> dict[str, nn.Linear]:
    """The layers to prune, by the name of their weight, in model order.

    Raises:
        UserError: there is none, or a pattern of `scope` matches none.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"model: found a {type(model).__name__}; give a torch.nn.Module")
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if not linear:
        raise UserError(f"{type(model).__name__} has no nn.Linear layer to prune")
    if scope is None:
        chosen = _of_the_encoder(model, list(linear))
    else:
        patterns = [scope] if isinstance(scope, str) else scope
        if not (isinstance(patterns, Iterable) and (patterns := list(patterns))):
            raise UserError(f"scope: found {scope!r}; give a pattern of layers' names, or a list of some")
        called = {name: _names(model, name) for name in linear}
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise UserError(f"scope: found {pattern!r}; patterns are text, such as 'encoder.*.dense'")
            if not any(fnmatchcase(name, pattern) for names in called.values() for name in names):
                raise unknown_name("layer", pattern, linear, "scope")
        chosen = [layer for layer, names in called.items() if any(fnmatchcase(n, p) for n in names for p in patterns)]
    return {f"{name}.weight".lstrip("."): linear[name] for name in chosen}


def _names(model: nn.Module, name: str) -> tuple[str, ...]:
    """What a layer is called with and without the prefix that models of Transformers give their base under a head."""
    prefix = getattr(model, "base_model_prefix", "")
    if not prefix:
        return (name,)
    return (name, name.removeprefix(f"{prefix}.") if name.startswith(f"{prefix}.") else f"{prefix}.{name}")


def _of_the_encoder(model: nn.Module, linear: list[str]) -> list[str]:
    """The names of the layers that are pruned by default."""
    described: list[str] = []
    for name, network in _of_transformers(model):
        from obert.models.architecture import architecture_of

        with suppress(UserError):  # not understood: by name, as any other module
            encoder = architecture_of(network).parts()["encoder"]
            described += [f"{name}.{weight}".removesuffix(".weight").lstrip(".") for weight in encoder]
    if described:
        return [name for name in linear if name in set(described)]
    encoders = (name for name, _ in model.named_modules() if name.rpartition(".")[2] == "encoder")
    prefix = f"{next(encoders, '')}.".lstrip(".")
    return [name for name in linear if name.startswith(prefix)] or linear


def _of_transformers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The models of Transformers in a model, by name: the model itself, or the outermost ones in it."""
    if "transformers" not in sys.modules:  # then there is none, and the library takes seconds to import
        return
    from transformers import PreTrainedModel

    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if isinstance(module, PreTrainedModel) and not f"{name}.".startswith(inside):
            inside = (*inside, f"{name}.".lstrip("."))
            yield name, module


def left_out(model: nn.Module, layers: Mapping[str, nn.Linear]) -> dict[str, LeftOut]:
    """The model's other weights of two dimensions or more, by name: those of convolutions, embeddings, other layers."""
    seen = {id(layer.weight) for layer in layers.values()}
    found = {}
    for prefix, module in model.named_modules():
        for name, weight in module.named_parameters(recurse=False):
            if id(weight) not in seen and not is_lazy(weight) and weight.dim() > 1:
                found[f"{prefix}.{name}".lstrip(".")] = LeftOut(type(module).__name__, weight.numel())
                seen.add(id(weight))
    return found


def check_mask(name: str, mask: Tensor, weight: Tensor) -> None:
    """Raise UserError unless this is a mask of the weight: bool, in its shape, with values."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        found = f"{mask.dtype} tensor" if isinstance(mask, Tensor) else type(mask).__name__
        raise UserError(f"masks: '{name}' is a {found}; give a bool tensor, True where the weight is kept")
    if mask.is_meta or mask.layout != torch.strided:
        raise UserError(f"masks: '{name}' is {mask.layout} on {mask.device}; give a dense mask with values")
    if mask.shape != weight.shape:
        raise UserError(f"masks: '{name}' is {list(mask.shape)}, the weight is {list(weight.shape)}")


def check_masks(masks: Masks) -> None:
    """Raise UserError unless these are masks by name."""
    if not isinstance(masks, Mapping):
        raise UserError(f"masks: found a {type(masks).__name__}; give `report.masks`, masks by the name of the weight")


def masks_at_start(
    masks: Masks | None, weights: Mapping[str, Tensor], pattern: Pattern, sparsity: float, distribution: Distribution
) -> tuple[Masks, int]:
    """The masks that pruning begins with, and how many zeros they were made of.

    Args:
        masks: of an earlier call. None: weights that are zero are pruned already, where they make whole groups.
        sparsity: that is to be reached first.

    Raises:
        UserError: they are not of these weights and this pattern, or prune more than the sparsity.
    """
    found = zeros_as_pruned(weights, pattern) if masks is None else checked_masks(masks, weights, pattern)
    compared = [list(found)] if distribution == "global" else [[name] for name in found]
    for names in compared:
        size, pruned = (sum(int(count) for count in counts) for counts in zip(
            *((found[name].numel(), (~found[name]).sum()) for name in names), strict=True))  # fmt: skip
        if pattern.groups_at(size, sparsity) * pattern.zeros < pruned:
            where = "" if distribution == "global" else f" in '{names[0]}'"
            if masks is not None:
                raise UserError(f"sparsity {sparsity:g} is below that of the masks{where}, {pruned / size:g}")
            raise UserError(
                f"sparsity {sparsity:g} is below the share of weights that are zero already{where}, "
                f"{pruned / size:g}: they count as pruned. If they are not, give `masks` that keep them"
            )
    return found, 0 if masks is not None else sum(int((~mask).sum()) for mask in found.values())


def zeros_as_pruned(weights: Mapping[str, Tensor], pattern: Pattern) -> Masks:
    """Masks that prune what is zero, where it makes whole groups of the pattern."""
    result = {}
    for name, weight in weights.items():
        groups = pattern.groups(weight.abs())
        lowest = groups.argsort(dim=1, stable=True)[:, : pattern.zeros]
        empty = (groups.gather(1, lowest) == 0).all(dim=1, keepdim=True)
        kept = torch.ones_like(groups, dtype=torch.bool).scatter(1, lowest, ~empty.expand_as(lowest))
        result[name] = pattern.ungroup(kept, weight.shape)
    return result


def checked_masks(masks: Masks, weights: Mapping[str, Tensor], pattern: Pattern) -> Masks:
    """Masks of an earlier call, on the weights' device.

    Raises:
        UserError: they are not of these weights and this pattern.
    """
    check_masks(masks)
    if set(masks) != set(weights):
        differing = ", ".join(sorted(map(str, set(masks) ^ set(weights))))
        raise UserError(f"masks and the layers to prune differ: {differing}. Give the `scope` that the masks were for")
    for name, weight in weights.items():
        check_mask(name, masks[name], weight)
        counts = pattern.groups(~masks[name]).sum(dim=1)
        if not bool(((counts == 0) | (counts == pattern.zeros)).all()):
            raise UserError(f"masks: groups pruned in part do not go on as pattern {pattern}")
    return {name: masks[name].to(weight.device) for name, weight in weights.items()}


@contextmanager
def with_gradients(layers: Mapping[str, nn.Linear]) -> Iterator[None]:
    """Inside the block the layers' weights require gradients."""
    frozen = [layer.weight for layer in layers.values() if not layer.weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)


@contextmanager
def all_or_nothing(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """The weights are as they were if the block ends in an error. A copy of them is held meanwhile."""
    before = {name: weight.clone() for name, weight in weights.items()}
    try:
        yield
    except BaseException:
        for name, weight in weights.items():
            weight.copy_(before[name])
        raise
