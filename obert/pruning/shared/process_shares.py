"""Which process works on which tensor, and how each learns what the others have found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from obert.foundation import processes
from obert.foundation.errors import UserError
from obert.masks.selection import Masks


@contextmanager
def failing_together() -> Iterator[None]:
    """A block whose mistake in one process is raised in all, which would else wait for what it was to send."""
    error = None
    try:
        yield
    except UserError as mistake:
        error = mistake
    if processes.are_several():
        messages: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(messages, error and str(error))
        error = error or next((UserError(message) for message in messages if message), None)
    if error:
        raise error


def owners(sizes: Mapping[str, int]) -> dict[str, int]:
    """The process that works on each tensor, by name: largest first, to the one with least. A size counts weights."""
    load = [0] * processes.count()
    found = {}
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        found[name] = load.index(min(load))
        load[found[name]] += sizes[name]
    return found


def gathered(own: dict[str, Tensor], masks: Masks, dtype: torch.dtype, scalar: bool = False) -> dict[str, Tensor]:
    """What every process has found for its own tensors (of the masks' shape, or one number each), in all of them."""
    if not processes.are_several():
        return {name: own[name] for name in masks}
    owner = owners({name: mask.numel() for name, mask in masks.items()})
    result = {}
    for name, mask in masks.items():
        shape = () if scalar else mask.shape
        result[name] = own[name] if name in own else torch.empty(shape, dtype=dtype, device=mask.device)
        dist.broadcast(result[name], src=owner[name])
    return result
