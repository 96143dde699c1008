"""The caller's batches and loss as what a method draws, checked before any weight changes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from inspect import isfunction
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from obert.foundation.errors import UserError
from obert.pruning import Method
from obert.second_order.gradients import exact_float32, per_example_gradients

Losses = Callable[[Any], Tensor]


class Batches:
    """The caller's batches as data for gradients (`pruning.GradientData`): read as far as needed, and kept.

    Attributes:
        seconds: spent so far on what methods do with them, gradients or forward passes.
    """

    def __init__(self, batches: Iterable[Any]):
        _check_batches(batches)
        self.seconds = 0.0
        self._batches = batches
        self._source: Iterator[Any] | None = None
        self._read: list[Any] = []
        self._starts = {0: 0}  # by draw; each begins where the one before ended

    def __iter__(self) -> Iterator[Any]:
        for place in itertools.count():
            if not self._reaches(place):
                return
            yield self._read[place]

    def first(self) -> Any:
        """The first batch, None if there is none."""
        return next(iter(self), None)

    def _reaches(self, place: int) -> bool:
        if self._source is None:
            self._source = iter(self._batches)
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


def _check_batches(batches: Any) -> None:
    """Raise UserError unless batches can be taken one after the other."""
    found = None
    if isinstance(batches, str | bytes):
        found = "text"
    elif isinstance(batches, Mapping):
        found = "a mapping, of which a loop takes the keys"
    elif not (isinstance(batches, Iterable) or hasattr(batches, "__getitem__")):
        found = f"a function, {batches.__name__}: call it" if isfunction(batches) else f"a {type(batches).__name__}"
    elif isinstance(batches, type) or (isinstance(batches, Tensor) and not batches.dim()):
        found = "a class" if isinstance(batches, type) else "a single number"
    if found:
        raise UserError(f"batches: found {found}. Give an iterable of batches, such as a list or a DataLoader")


def checked_loss(values: Tensor, per_example: bool) -> Tensor:
    """What the caller's loss gave.

    Raises:
        UserError: it is no tensor, or has the wrong shape; it is not finite; gradients are on, and it has none.
    """
    if not isinstance(values, Tensor):
        hint = ""
        if isinstance(values, tuple | list | Mapping):
            hint = ". Of several outputs return the losses alone"
        elif isinstance(values, float | int | np.ndarray | np.generic):
            hint = ". Leave out item(), tolist() or numpy(), which cut it from the model"
        raise UserError(f"loss: it returned a {type(values).__name__} where a tensor is needed{hint}")
    if not values.is_floating_point() or values.is_meta or values.layout != torch.strided:
        found = f"{values.layout} {values.dtype} on {values.device}"
        raise UserError(f"loss: it returned a tensor of {found}; give dense floating-point numbers with values")
    if per_example and values.dim() != 1:
        raise UserError(
            f"loss: the method needs one value an example, [batch], found shape {list(values.shape)}. Leave out the "
            "mean over the batch (reduction='none')"
            + (", or use gradients='minibatch'" if torch.is_grad_enabled() else "")
        )
    if not values.numel():
        raise UserError("loss: it returned no value; is the batch empty?")
    if not torch.isfinite(values).all():
        raise UserError("loss: a value is not finite")
    if torch.is_grad_enabled() and not values.requires_grad:
        raise UserError("loss: no gradient reaches the model from it; was it computed under no_grad, or detached?")
    return values


def draws(method: Method) -> bool:
    """Whether a method takes gradients or makes forward passes at an event."""
    return method.gradient_examples() + method.forward_examples() > 0


def losses_of(model: nn.Module, loss: Callable[[nn.Module, Any], Tensor] | None, method: Method) -> Losses:
    """The caller's loss as a function of a batch, checked at each call.

    Raises:
        UserError: it is no function, and the method needs one or something else is given.
    """
    if not callable(loss) and (draws(method) or loss is not None):
        raise UserError(f"loss: found {loss!r}; give a function of the model and a batch")
    each = takes_each_example(method)
    return lambda batch: checked_loss(loss(model, batch), each)


def check_draws(batches: Iterable[Any], data: Batches, losses: Losses, layers: Mapping[str, nn.Linear], method: Method):
    """Try what a method will draw on the first batch, before anything larger is computed.

    Raises:
        UserError: its gradients cannot be had, or there are too few examples.
    """
    if draws(method):
        check_enough(batches, data, losses, method, try_first(data, losses, layers, method))


def forward(model: nn.Module, loss: Callable[[nn.Module, Any], Tensor] | None, data: Batches) -> None:
    """One forward pass, if there is anything to make it with."""
    batch = None if loss is None else data.first()
    if batch is not None:
        loss(model, batch)


def takes_each_example(method: Method) -> bool:
    """Whether a method needs one value of the loss for each example: to take gradients by, or to count examples."""
    return getattr(method, "gradients", None) == "per_example" or method.forward_examples() > 0


def try_first(data: Batches, losses: Losses, layers: Mapping[str, nn.Linear], method: Method) -> int:
    """Examples of the first batch. Finds what cannot work on it, before anything larger is computed.

    Raises:
        UserError: there is none, or its gradients, where the method draws any, cannot be had.
    """
    first = data.first()
    if first is None:
        raise UserError("batches: there is none")
    if not method.gradient_examples():
        with torch.no_grad():
            return losses(first).numel()
    if getattr(method, "gradients", None) != "per_example":
        with torch.enable_grad():
            return losses(first).numel()
    with exact_float32(next(iter(layers.values())).weight.device):
        found = {name: len(each) for name, each in per_example_gradients(layers, partial(losses, first), check=True)}
    return next(iter(found.values()))


def check_enough(batches: Iterable[Any], data: Batches, losses: Losses, method: Method, size: int) -> None:
    """Raise UserError if a collection of known length has too few examples, judged by the first batch's size; only
    where it seems to are its examples counted. An iterator's end is met when the method draws."""
    try:
        unit, count = "batches", len(batches)
    except TypeError:
        return
    setting = "num_gradients" if method.gradient_examples() else "examples"
    wanted = getattr(method, "num_gradients", method.forward_examples())
    if takes_each_example(method):
        unit, count = "examples", count * size
        if count < wanted:
            with torch.no_grad():
                count = sum(len(losses(batch)) for batch in data)
    if count < wanted:
        raise UserError(f"{setting} {wanted}: there are {count} {unit}. Give more batches, or ask for fewer")
