"""Callbacks that prune on schedule, or hold a fixed pattern of zeros, while the Trainer trains."""

from __future__ import annotations

import torch
from transformers import TrainerCallback

from obert.foundation import processes
from obert.masks.holding import FixedPattern
from obert.training.checkpoints import checkpoint_of
from obert.training.pruner import Pruner, check_first_event


class HoldPattern(TrainerCallback):
    """Keeps a pattern of zeros through training."""

    def __init__(self, pattern: FixedPattern):
        self.pattern = pattern

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        """Called right after the optimiser's step."""
        self.pattern.hold({name: model.get_parameter(name).detach() for name in self.pattern.masks})


class GradualPruning(TrainerCallback):
    """Prunes before the steps that the schedule names, and calls the method's hook after every optimiser step.

    Args:
        schedule: sparsity by the step that the event precedes.

    Raises:
        UserError: the first event comes before the method has seen the steps it needs.
    """

    def __init__(self, pruner: Pruner, schedule: dict[int, float]):
        self.pruner = pruner
        self.schedule = schedule
        self.target = max(schedule.values())
        check_first_event(pruner.method, schedule)

    def penalty(self) -> torch.Tensor | None:
        """The method's term of the training loss."""
        return self.pruner.hook.penalty(self.pruner.sparsity / self.target)

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        """Called before the forward pass of an optimiser step: no gradient is lost to the event."""
        sparsity = self.schedule.get(state.global_step)
        if sparsity is not None and (sparsity != self.pruner.sparsity or self.pruner.hook.returns):
            progress = state.global_step / max(*self.schedule, 1)
            self.pruner.prune(sparsity, state.global_step, optimizer, progress, self.target)

    def on_optimizer_step(self, args, state, control, **kwargs):
        """Called right after the optimiser's step."""
        self.pruner.hook.after_step(self.pruner.masks, at_target=self.pruner.sparsity == self.target)

    def on_save(self, args, state, control, **kwargs):
        """Called after the Trainer has written a checkpoint."""
        if processes.rank() > 0:
            return
        self.pruner.save(checkpoint_of(args, state))
