"""The layers that are pruned: which, the masks they have already, and the state they are in meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from obert.foundation.errors import UserError, unknown_name
from obert.masks.patterns import Pattern
from obert.masks.selection import Masks


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
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise UserError(f"scope: found {pattern!r}; patterns are text, such as 'encoder.*.dense'")
            if not any(fnmatchcase(name, pattern) for name in linear):
                raise unknown_name("layer", pattern, linear, "scope")
        chosen = [name for name in linear if any(fnmatchcase(name, pattern) for pattern in patterns)]
    return {f"{name}.weight".lstrip("."): linear[name] for name in chosen}


def _of_the_encoder(model: nn.Module, linear: list[str]) -> list[str]:
    """The names of the layers that are pruned by default."""
    if "transformers" in sys.modules:  # else it is no model of that library, which takes seconds to import
        from transformers import PreTrainedModel

        from obert.models.architecture import architecture_of

        if isinstance(model, PreTrainedModel):
            with suppress(UserError):  # not understood: by name, as any other module
                return [name.removesuffix(".weight") for name in architecture_of(model).parts()["encoder"]]
    encoders = (name for name, _ in model.named_modules() if name.rpartition(".")[2] == "encoder")
    prefix = f"{next(encoders, '')}.".lstrip(".")
    return [name for name in linear if name.startswith(prefix)] or linear


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


def checked_masks(masks: Masks, weights: Mapping[str, Tensor], pattern: Pattern, sparsity: float) -> Masks:
    """Masks of an earlier call, on the weights' device.

    Raises:
        UserError: they are not of these weights and this pattern, or prune more than the sparsity.
    """
    check_masks(masks)
    if set(masks) != set(weights):
        differing = ", ".join(sorted(map(str, set(masks) ^ set(weights))))
        raise UserError(f"masks and the layers to prune differ: {differing}. Give the `scope` that the masks were for")
    pruned, groups = 0, []
    for name, weight in weights.items():
        check_mask(name, masks[name], weight)
        counts = pattern.groups(~masks[name]).sum(dim=1)
        groups.append(bool(((counts == 0) | (counts == pattern.zeros)).all()))
        pruned += int(counts.sum())
    if not all(groups):
        raise UserError(f"masks: groups pruned in part do not go on as pattern {pattern}")
    size = sum(weight.numel() for weight in weights.values())
    if pattern.groups_at(size, sparsity) * pattern.zeros < pruned:
        raise UserError(f"sparsity {sparsity:g} is below that of the masks, {pruned / size:g}")
    return {name: masks[name].to(weight.device) for name, weight in weights.items()}


@contextmanager
def evaluating(model: nn.Module, layers: Mapping[str, nn.Linear]) -> Iterator[None]:
    """Inside the block the model is in evaluation mode, and the layers' weights require gradients."""
    modes = {module: module.training for module in model.modules()}
    frozen = [layer.weight for layer in layers.values() if not layer.weight.requires_grad]
    model.eval()
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
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
