"""The caller's batches and loss as what gradients are taken on, checked before any weight changes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from obert.foundation.errors import UserError
from obert.pruning.shared.gradient_based import GradientBased


class Batches:
    """The caller's batches as data for gradients (`pruning.GradientData`): read as far as needed, and kept.

    Attributes:
        seconds: spent on gradients so far.
    """

    def __init__(self, batches: Iterable[Any]):
        self.seconds = 0.0
        self._source = iter(batches)
        self._read: list[Any] = []
        self._starts = {0: 0}  # by draw; each begins where the one before ended

    def __iter__(self) -> Iterator[Any]:
        for place in itertools.count():
            if not self._reaches(place):
                return
            yield self._read[place]

    def _reaches(self, place: int) -> bool:
        while len(self._read) <= place:
            try:
                self._read.append(next(self._source))
            except StopIteration:
                return False
        return True

    def examples(self, count: int, batch_size: int, draw: int) -> Iterator[Any]:
        """Batches from where the draw before ended, each at most once; the caller stops when it has enough."""
        began, start = time.perf_counter(), self._starts[draw]
        try:
            for place in itertools.count(start):
                self._reaches(place)
                if place - start >= len(self._read):
                    return
                self._starts[draw + 1] = place + 1
                yield self._read[place % len(self._read)]
        finally:
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            self.seconds += time.perf_counter() - began

    minibatches = examples


def checked_loss(values: Tensor, per_example: bool) -> Tensor:
    """What the caller's loss gave. Raises UserError if its shape is wrong, it is not finite or it has no gradient."""
    if per_example and values.dim() != 1:
        raise UserError(
            f"loss: per-example gradients need one value an example, [batch], found shape {list(values.shape)}. Leave "
            "out the mean over the batch (reduction='none'), or use gradients='minibatch'"
        )
    if not torch.isfinite(values).all():
        raise UserError("loss: a value is not finite")
    if not values.requires_grad:
        raise UserError("loss: no gradient reaches the model from it; was it computed under no_grad, or detached?")
    return values


def try_first(
    data: Batches, losses: Callable[[Any], Tensor], layers: Mapping[str, nn.Linear], per_example: bool
) -> int:
    """Examples of the first batch. Finds what cannot work at the cost of one forward pass.

    Raises:
        UserError: there is none, or per-example gradients cannot be had from it.
    """
    first = next(iter(data), None)
    if first is None:
        raise UserError("batches: there is none")
    rows: dict[str, int] = {}
    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: rows.update({name: len(inputs[0])}))
        for name, layer in layers.items()
    ]
    try:
        with torch.enable_grad():
            count = losses(first).numel()
    finally:
        for handle in handles:
            handle.remove()
    if per_example:
        for name in layers:
            if name not in rows:
                raise UserError(
                    f"layer of '{name}' is not called in the first batch, so its per-example gradients cannot be seen. "
                    "Use gradients='minibatch', or leave it out of `scope`"
                )
            if not count or rows[name] % count:
                raise UserError(
                    f"layer of '{name}' has inputs of first dimension {rows[name]} where the loss has {count} values: "
                    "per-example gradients need the example first. Or use gradients='minibatch'"
                )
    return count


def check_enough(
    batches: Iterable[Any], data: Batches, losses: Callable[[Any], Tensor], method: GradientBased, size: int
) -> None:
    """Raise UserError if a collection of known length has too few examples, judged by the first batch's size; only
    where it seems to are its examples counted. An iterator's end is met when the gradients are drawn."""
    try:
        unit, count = "batches", len(batches)
    except TypeError:
        return
    if method.gradients == "per_example":
        unit, count = "examples", count * size
        if count < method.num_gradients:
            with torch.enable_grad():
                count = sum(len(losses(batch)) for batch in data)
    if count < method.num_gradients:
        raise UserError(
            f"num_gradients {method.num_gradients}: there are {count} {unit}. Give more batches, or set num_gradients"
        )
