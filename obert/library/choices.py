"""What the caller chooses by name and number, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any, get_args

from obert.experiment.recipe import SparsitySchedule
from obert.experiment.recipes import load_method
from obert.foundation import registry
from obert.foundation.errors import UserError
from obert.masks.patterns import Pattern
from obert.pruning import Method
from obert.training.schedules import pruning_events

SETTLED = {"gradient_batch_size": "each of `batches` is one pass", "gradient_loss": "`loss` is the loss"}
SHAPES = get_args(SparsitySchedule.model_fields["shape"].annotation)


def checked_text(argument: str, value: Any) -> str:
    """The value, or UserError if it is no text."""
    if not isinstance(value, str):
        raise UserError(f"{argument}: found {value!r}; give a name, as text")
    return value


def checked_sparsity(value: Any, where: str = "sparsity") -> float:
    """The value as a float, or UserError if it is no sparsity."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UserError(f"{where} {value!r} is a {type(value).__name__}: give a number, at least 0 and below 1")
    if not 0 <= value < 1:
        raise UserError(f"{where} {value}: it is a fraction, at least 0 and below 1")
    return float(value)


def checked_pattern(value: Any, sparsity: float) -> Pattern:
    """The pattern of a name, or UserError if there is none, or it cannot have so many zeros."""
    try:
        pattern = Pattern.parse(checked_text("pattern", value))
    except ValueError as error:
        raise UserError(str(error)) from None
    if sparsity > pattern.largest_sparsity:
        raise UserError(f"sparsity {sparsity:g} is more than pattern {pattern} allows ({pattern.largest_sparsity:g})")
    return pattern


def checked_method(name: Any, pattern: Pattern, parameters: dict[str, Any], caller: str) -> Method:
    """The method with the library's defaults under the caller's parameters.

    Args:
        caller: whose arguments these are, for messages.

    Raises:
        UserError: there is no such method or parameter, a value is not allowed, or the pattern is not.
    """
    name = checked_text("method", name)
    for parameter, reason in SETTLED.items():
        if parameter in parameters:
            raise UserError(f"{parameter} is for recipes: here, {reason}")
    fields = registry.load("pruning", name, f"{caller}()").model_fields
    takes_examples = "gradients" in fields and "per_example" in get_args(fields["gradients"].annotation)
    defaults: dict[str, Any] = {"gradients": "per_example"} if takes_examples else {}
    if "fisher_block_size" in fields:
        size = fields["fisher_block_size"].default
        defaults["fisher_block_size"] = max(size - size % pattern.size, pattern.size)
    method = load_method(name, {**defaults, **parameters}, f"{caller}(method='{name}')")
    method.check_pattern(pattern)
    return method


def chosen_method(method: Any, pattern: Pattern, parameters: dict[str, Any], caller: str) -> tuple[str, Method]:
    """A method by its name, as `checked_method`, or one that the caller has made; with what reports call it.

    Raises:
        UserError: as `checked_method`, or there are parameters beside a method that has its own.
    """
    if not isinstance(method, Method):
        return method, checked_method(method, pattern, parameters, caller)
    name = type(method).__name__
    if parameters:
        raise UserError(f"{next(iter(parameters))} is beside a method that is made already: give it to {name}(...)")
    method.check_pattern(pattern)
    return name, method


def checked_schedule(schedule: Any) -> dict[int, float]:
    """Sparsity by step, in the order of the steps.

    Raises:
        UserError: it is empty, a step or a sparsity is none, or the sparsity falls.
    """
    if not isinstance(schedule, Mapping) or not schedule:
        raise UserError(
            f"schedule: found {schedule!r}; give sparsities by optimiser step, such as {{0: 0.5, 100: 0.8}}, or what "
            "sparsity_schedule() makes"
        )
    for step in schedule:
        checked_step("schedule: step", step)
    ordered = {int(step): checked_sparsity(schedule[step], f"schedule: step {step}:") for step in sorted(schedule)}
    before = 0.0
    for step, sparsity in ordered.items():
        if sparsity < before:
            raise UserError(f"schedule: the sparsity falls to {sparsity:g} at step {step}, from {before:g}")
        before = sparsity
    return ordered


def checked_step(where: str, value: Any, least: int = 0) -> int:
    """The value, or UserError if it is no number of steps."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{where} {value!r}: give a whole number of optimiser steps, at least {least}")
    return value


def sparsity_schedule(
    final: float, start: int, end: int, every: int, initial: float = 0.0, shape: str = "cubic", until: int | None = None
) -> dict[int, float]:
    """Sparsity by the number of optimiser steps after which it is reached, for `GradualPruner`.

    Args:
        final: reached at step `end`.
        start: of the first event. At 0 the first event is before training.
        every: steps from one event to the next.
        initial: sparsity of the first event.
        shape: of the way there: `cubic` (Zhu and Gupta 2018), `linear`, or `geometric` (the same share of the weights
            left at each event).
        until: step up to which masks are made anew at the final sparsity, for methods whose pruned weights may return.

    Raises:
        UserError: a value that is not allowed.
    """
    final, initial = checked_sparsity(final, "final"), checked_sparsity(initial, "initial")
    start, every = checked_step("start", start), checked_step("every", every, 1)
    end = checked_step("end", end, start)
    until = None if until is None else checked_step("until", until, end + 1)
    if initial > final:
        raise UserError(f"initial {initial:g} is more than final {final:g}")
    if shape not in SHAPES:
        raise UserError(f"shape {shape!r}: allowed are {', '.join(SHAPES)}")
    planned = SparsitySchedule(
        start_epoch=start,
        end_epoch=end,
        every_epochs=every,
        initial_sparsity=initial,
        shape=shape,
        rerank_until_epoch=until,
    )
    return pruning_events(planned, 1, final)  # an epoch of one step
