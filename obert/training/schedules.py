"""Learning-rate and sparsity schedules as functions of the optimiser step."""

import math

from obert.experiment.recipe import LearningRate, SparsitySchedule, Training
from obert.experiment.scaling import evenly
from obert.foundation.errors import UserError


def steps_per_epoch(training: Training, features: int) -> int:
    """Optimiser steps of one pass over the features."""
    return math.ceil(math.ceil(features / training.batch_size) / training.gradient_accumulation)


def total_steps(training: Training, steps_per_epoch: int) -> int:
    """Optimiser steps of training, at least one."""
    return max(1, round(training.epochs * steps_per_epoch))


def check_steps(training: Training, features: int, events: dict[int, float] | None = None) -> None:
    """Raise UserError for schedules that come to nothing with so many features.

    A cycle of the learning rate has a step after its warm-up, and the one of the pruning `events` that reaches
    the target comes before the last step; masks may be made anew at the very end.
    """
    epoch, rate = steps_per_epoch(training, features), training.learning_rate
    total = total_steps(training, epoch)
    starts = [round(start * epoch) for start in (0, *rate.rewind_epochs)]
    shortest = min(end - start for start, end in zip(starts, [*starts[1:], total], strict=True))
    counted = f"an epoch has {epoch} optimiser steps ({features} training features). "
    if shortest <= (warmup := round(rate.warmup_epochs * epoch)):
        raise UserError(
            f"training.learning_rate: a cycle of it has {shortest} steps, {warmup} of them warm-up, so that none "
            f"is at its rate; {counted}Train for more epochs (scaling.unit_epochs), warm up for fewer "
            "(learning_rate.warmup_epochs), or use smaller batches or more training examples"
        )
    reached = max(events, key=lambda step: (events[step], -step)) if events else 0
    if reached >= total:
        raise UserError(
            f"schedule: the pruning event that reaches the target falls on step {reached}, after the last of {total} "
            f"steps; {counted}"
            "Let schedule.end_epoch be earlier (scaling.recovery_cycles more), or use more training examples"
        )


def linear_with_rewinds(step: int, total_steps: int, steps_per_epoch: int, rate: LearningRate) -> float:
    """Learning rate of a step (counted from 0): linear inside each cycle, back at `initial` at each rewind.

    A cycle of C steps goes from `initial` at its first step to `final` at its last (oBERT, Table 9 and figures 6 and 8;
    `cyclic_linear` of SparseML), each to its own where `final` is a list. C is the cycle's own length, so a shorter one
    at the end reaches `final` too. In each cycle a warm-up rises linearly from 0 first (Sanh, Wolf, Rush 2020); in the
    only one, a constant phase may stay at `initial`.
    """
    starts = [0, *(round(epoch * steps_per_epoch) for epoch in rate.rewind_epochs)]
    cycle = sum(start <= step for start in starts) - 1
    first, end = starts[cycle], [*starts, total_steps][cycle + 1]
    warmup = round(rate.warmup_epochs * steps_per_epoch)
    if step < first + warmup:
        return rate.initial * (step - first) / warmup
    decay = max(first + warmup, round(rate.constant_until_epoch * steps_per_epoch))
    if step < decay:
        return rate.initial
    progress = (step - decay) / max(end - decay - 1, 1)
    return rate.initial - min(progress, 1.0) * (rate.initial - rate.final_of(cycle))


def sparsity_at(progress: float, initial: float, final: float, shape: str) -> float:
    """Sparsity at `progress` in [0, 1] through the pruning window: cubic (Zhu and Gupta 2018), linear, or geometric.

    Geometric prunes the same share of the weights left in the same time.
    """
    if shape == "geometric":
        return 1 - (1 - initial) ** (1 - progress) * (1 - final) ** progress
    return final - (final - initial) * (1 - progress) ** (3 if shape == "cubic" else 1)


def pruning_events(schedule: SparsitySchedule, steps_per_epoch: int, final: float) -> dict[int, float]:
    """Sparsity targets by the optimiser step that they precede: at the start, at every interval, and at the end; from
    there at the same interval and the target, if masks are to be made anew.

    A window that is a single event goes straight to the target.

    Raises:
        UserError: two events fall on one step.
    """
    start, end, last = schedule.start_epoch, schedule.end_epoch, schedule.rerank_until_epoch or schedule.end_epoch
    every = schedule.every_epochs or 1.0
    if schedule.every_steps:
        start, end, last = (round(epoch * steps_per_epoch) / steps_per_epoch for epoch in (start, end, last))
        every = schedule.every_steps / steps_per_epoch
    if (end - start) / every > (end - start) * steps_per_epoch + 2:  # surely, and it may be very many
        raise _too_often(every, steps_per_epoch, round(start * steps_per_epoch))
    events: dict[int, float] = {}
    reached = 0.0  # what a power of numbers gives may fall by a rounding error
    for epoch in [*evenly(start, end, every), *evenly(end, last, every)[1:]]:
        step = round(epoch * steps_per_epoch)
        if step in events and epoch < end:  # the last interval may be next to nothing
            raise _too_often(every, steps_per_epoch, step)
        wanted = final
        if epoch < end - 1e-6 * every:
            progress = (epoch - start) / (end - start)
            wanted = min(sparsity_at(progress, schedule.initial_sparsity, final, schedule.shape), final)
        events[step] = reached = max(reached, wanted)
    return events


def _too_often(every: float, steps_per_epoch: int, step: int) -> UserError:
    return UserError(
        f"schedule.every_epochs {every:g} is less than one optimiser step ({1 / steps_per_epoch:g} epochs): two "
        f"pruning events fall on step {step}. Prune less often (scaling.events_per_cycle), or use more training "
        "examples."
    )
