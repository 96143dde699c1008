"""Callbacks that prune on schedule, or hold a fixed pattern of zeros, while the Trainer trains."""

from __future__ import annotations

from transformers import TrainerCallback

from obert.foundation import processes
from obert.masks.holding import FixedPattern
from obert.training.checkpoints import checkpoint_of
from obert.training.masked import OnSchedule


class HoldPattern(TrainerCallback):
    """Keeps a pattern of zeros through training."""

    def __init__(self, pattern: FixedPattern):
        self.pattern = pattern

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        """Called right after the optimiser's step."""
        self.pattern.hold({name: model.get_parameter(name).detach() for name in self.pattern.masks})


class GradualPruning(OnSchedule, TrainerCallback):
    """Prunes on schedule while the Trainer trains, and writes the pruner's state into its checkpoints."""

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        """Called before the forward pass of an optimiser step: no gradient is lost to the event."""
        self.before_step(state.global_step, optimizer)

    def on_optimizer_step(self, args, state, control, **kwargs):
        """Called right after the optimiser's step."""
        self.after_step()

    def on_save(self, args, state, control, **kwargs):
        """Called after the Trainer has written a checkpoint."""
        if processes.rank() > 0:
            return
        self.pruner.save(checkpoint_of(args, state))
