"""A gradual pruner in the Trainer of Transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import TrainerCallback

from obert.foundation.errors import UserError
from obert.training.checkpoints import checkpoint_of

if TYPE_CHECKING:
    from obert.library.gradual import GradualPruner

FILE = "pruner.safetensors"  # in each checkpoint


class PruningCallback(TrainerCallback):
    """Calls the pruner after each optimiser step, and keeps its state in the Trainer's checkpoints."""

    def __init__(self, pruner: GradualPruner):
        self.pruner = pruner

    def on_train_begin(self, args, state, control, **kwargs):
        """Called when a checkpoint has been loaded, if training goes on from one.

        Raises:
            UserError: the checkpoint has no pruner's state, or the method's loss cannot be added at this precision.
        """
        if args.fp16 and self.pruner.has_penalty:
            raise UserError(
                f"method '{self.pruner.method}' adds a term to the loss, which fp16 would have to scale: train in "
                "bf16 or float32"
            )
        if state.global_step == self.pruner.steps:
            return
        path = checkpoint_of(args, state) / FILE
        if not path.is_file():
            raise UserError(
                f"training goes on from step {state.global_step}, the pruner is at step {self.pruner.steps}, and there "
                f"is no {path}. Load its state with pruner.load() before train()"
            )
        self.pruner.load(path)

    def on_step_begin(self, args, state, control, **kwargs):
        """Called before the first forward pass of a step: the gradient of the method's own term goes first."""
        penalty = self.pruner.penalty()
        if penalty.requires_grad:
            penalty.backward()

    def on_optimizer_step(self, args, state, control, **kwargs):
        """Called right after the optimiser's step."""
        self.pruner.step()

    def on_save(self, args, state, control, **kwargs):
        """Called after the Trainer has written a checkpoint."""
        if state.is_world_process_zero:
            self.pruner.save(checkpoint_of(args, state) / FILE)
