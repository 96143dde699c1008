"""Pruned weights that stay zero in the caller's own training."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from obert.foundation.errors import UserError, unknown_name
from obert.library.layers import check_mask, check_masks
from obert.masks.holding import apply_masks
from obert.masks.selection import Masks


def hold_masks(model: nn.Module, masks: Masks, optimizer: torch.optim.Optimizer) -> RemovableHandle:
    """Keep pruned weights at zero: now, and after every step of an optimiser, whatever its momentum says.

    Args:
        model: the model that was pruned. It may move to another device later.
        masks: a report's.

    Returns:
        A handle; its `remove()` ends it.

    Raises:
        UserError: no optimiser, or a mask that is not bool, or without a weight of its shape, with values, in the
            model.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UserError(f"optimizer: found a {type(optimizer).__name__}; give a torch.optim.Optimizer")
    check_masks(masks)
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        if name not in parameters:
            raise unknown_name("weight", name, parameters, "masks")
        if parameters[name].is_meta:
            raise UserError(f"weight '{name}' is on the meta device and has no values: load the model first")
        check_mask(name, mask, parameters[name])
    held = dict(masks)

    def hold(*_) -> None:
        try:
            weights = {name: model.get_parameter(name).detach() for name in held}  # anew: it may be on another device
        except AttributeError:
            raise UserError(
                "hold_masks: a held weight is now computed anew in each forward pass, such as by a GradualPruner whose "
                "method keeps pruned weights behind masks. Call remove() of what hold_masks gave"
            ) from None
        held.update((name, mask.to(weights[name].device)) for name, mask in held.items())
        apply_masks(weights, held)

    hold()
    return optimizer.register_step_post_hook(hold)
