"""Tells of each optimiser step while the Trainer trains."""

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback


class TellSteps(TrainerCallback):
    """Tells the lines of the Trainer's log that have come since the last time, those from before a restart left out.

    Args:
        tell: called with lines that have `step`, `loss`, `learning_rate` and `sparsity`.
    """

    def __init__(self, tell: Callable[[list[dict[str, Any]]], None]):
        self._tell = tell
        self._told = 0

    def on_train_begin(self, args, state, control, **kwargs):
        """Called before the first step, or the first after a restart."""
        self._told = len(state.log_history)

    def on_log(self, args, state, control, **kwargs):
        """Called when lines have been added."""
        lines = [line for line in state.log_history[self._told :] if "loss" in line]
        self._told = len(state.log_history)
        if lines:
            self._tell(lines)
