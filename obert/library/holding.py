"""Pruned weights that stay zero in the caller's own training."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from obert.foundation.errors import UserError, unknown_name
from obert.masks.holding import apply_masks
from obert.masks.selection import Masks


def hold_masks(model: nn.Module, masks: Masks, optimizer: torch.optim.Optimizer) -> RemovableHandle:
    """Keep pruned weights at zero: now, and after every step of an optimiser, whatever its momentum says.

    Args:
        model: the model that was pruned, on the device that it is trained on.
        masks: a report's.

    Returns:
        A handle; its `remove()` ends it.

    Raises:
        UserError: a mask without a weight of its shape in the model.
    """
    parameters = dict(model.named_parameters())
    held = {}
    for name, mask in masks.items():
        if name not in parameters:
            raise unknown_name("weight", name, parameters, "masks")
        if parameters[name].shape != mask.shape:
            raise UserError(f"masks: '{name}' is {list(mask.shape)}, the weight is {list(parameters[name].shape)}")
        held[name] = mask.to(parameters[name].device)
    weights = {name: parameters[name].detach() for name in held}
    apply_masks(weights, held)
    return optimizer.register_step_post_hook(lambda *_: apply_masks(weights, held))
