"""Learning-rate and sparsity schedules as functions of the optimiser step."""

from obert.config import LearningRate, SparsitySchedule
from obert.errors import UserError


def linear_with_rewinds(step: int, total_steps: int, steps_per_epoch: int, rate: LearningRate) -> float:
    """Learning rate of a step (counted from 0): linear inside each cycle, back at `initial` at each rewind.

    A cycle of C steps goes from `initial` at its first step to `final` at its last (methods.md 9.10); C is the cycle's
    own length, so a shorter last cycle reaches `final` too.
    """
    starts = [0, *(round(epoch * steps_per_epoch) for epoch in rate.rewind_epochs)]
    first = max(start for start in starts if start <= step)
    end = min([start for start in starts if start > step], default=total_steps)
    progress = (step - first) / max(end - first - 1, 1)
    return rate.initial - min(progress, 1.0) * (rate.initial - rate.final)


def cubic_sparsity(progress: float, initial: float, final: float) -> float:
    """Sparsity at `progress` in [0, 1] through the pruning window (Zhu and Gupta 2018)."""
    return final - (final - initial) * (1 - progress) ** 3


def pruning_events(schedule: SparsitySchedule, steps_per_epoch: int, final: float) -> dict[int, float]:
    """Sparsity targets by the optimiser step that they precede: at the start, every `every_epochs`, and at the end.

    A window that is a single event goes straight to the target.

    Raises:
        UserError: two events fall on one step.
    """
    start, end, every = schedule.start_epoch, schedule.end_epoch, schedule.every_epochs
    count = int((end - start) / every + 1e-9)
    epochs = [start + i * every for i in range(count + 1)]
    if epochs[-1] < end - 1e-9:
        epochs.append(end)
    events = {}
    for epoch in epochs:
        progress = 1.0 if end == start else (epoch - start) / (end - start)
        step = round(epoch * steps_per_epoch)
        if step in events:
            raise UserError(
                f"schedule.every_epochs {every:g} is less than one optimiser step ({1 / steps_per_epoch:g} epochs): "
                f"two pruning events fall on step {step}. Prune less often or use more training examples."
            )
        events[step] = cubic_sparsity(progress, schedule.initial_sparsity, final)
    return events
