"""Training on the Hugging Face Trainer: distillation, learning-rate rewinds, length-grouped batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ProgressCallback, TrainerState

from obert.experiment.recipe import Distillation, Training
from obert.foundation import processes
from obert.foundation.errors import UserError
from obert.models.architecture import architecture_of
from obert.training.checkpoints import load_weights
from obert.training.data_order import EpochSeededSampler
from obert.training.features import Features
from obert.training.padding import AttentionMask
from obert.training.pending import FETCH_EVERY, PendingSteps
from obert.training.schedules import linear_with_rewinds, steps_per_epoch, total_steps


def share_of_batch(training: Training, count: int) -> tuple[int, int]:
    """Batch size and accumulation of each of `count` processes, so that a step sees the recipe's batch in all.

    Raises:
        UserError: the batch cannot be shared out evenly.
    """
    if training.gradient_accumulation % count == 0:
        return training.batch_size, training.gradient_accumulation // count
    if training.gradient_accumulation == 1 and training.batch_size % count == 0:
        return training.batch_size // count, 1
    raise UserError(
        f"{count} processes cannot share a batch of {training.batch_size} x {training.gradient_accumulation} "
        "(training.batch_size x gradient_accumulation): their number must divide gradient_accumulation, or the batch "
        "size where that is 1"
    )


MASK = "attention_mask"
COLUMNS = ("step", "epoch", "loss", "learning_rate", "sparsity")


class LossProgress(ProgressCallback):
    """A progress bar that shows the loss, in place of a line for each step."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Called for every step, some steps later."""
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.4f}", sparsity=f"{logs['sparsity']:.3f}")


class CompressionTrainer(Trainer):
    """The Trainer with the loss, schedule and data order of a recipe. Its state's `log_history` has each step's loss
    and learning rate, and survives a restart.

    No step waits for the device: losses and gradient norms are fetched every FETCH_EVERY steps, before a checkpoint and
    in the end, and callbacks learn of each step's then (`on_log`, with `step` in the logs). A loss that is not finite
    is found then, too. From that step on nothing is learned, so that what is found is what was.

    Args:
        training: the recipe's settings.
        seeds: by purpose.
        folder: where checkpoints go.
        teacher: dense model to distil from, or None; used with `distillation`.
        sparsity: called at each step, gives the sparsity to log.
        parameter_groups: further groups of the optimiser, each with its own initial learning rate under the schedule.
        penalty: called at each step, gives a term of the loss or None.
    """

    def __init__(
        self,
        network: PreTrainedModel,
        data: Features,
        training: Training,
        seeds: dict[str, int],
        folder: Path,
        *,
        distillation: Distillation | None = None,
        teacher: PreTrainedModel | None = None,
        sparsity: Callable[[], float] = lambda: 0.0,
        parameter_groups: Sequence[dict[str, Any]] = (),
        penalty: Callable[[], torch.Tensor | None] = lambda: None,
        callbacks: tuple = (),
    ):
        self.head = data.task.head
        self.training = training
        self.data = data
        self.data_seed = seeds["data order"]
        self._step, self._batch = -1, 0
        self._pending = PendingSteps()
        self.distillation = distillation
        self.teacher = teacher
        self.sparsity = sparsity
        self.parameter_groups = parameter_groups
        self.penalty = penalty
        self.epoch_steps = steps_per_epoch(training, len(data.features))
        self.total_steps = total_steps(training, self.epoch_steps)
        architecture_of(network).embeddings.requires_grad_(not training.freeze_embeddings)
        batch_size, accumulation = share_of_batch(training, processes.count())
        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=self.total_steps,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            learning_rate=training.learning_rate.initial,
            weight_decay=training.weight_decay,
            adam_beta2=training.adam_beta2,
            adam_epsilon=training.adam_epsilon,
            optim="adamw_torch_fused",
            max_grad_norm=training.max_grad_norm,
            logging_steps=FETCH_EVERY,
            logging_nan_inf_filter=False,
            save_strategy="no" if training.checkpoint_steps is None else "steps",
            save_steps=training.checkpoint_steps or 1,
            save_total_limit=2,  # the older one serves while the newer is being written
            seed=seeds["dropout"] + processes.rank(),  # else all would drop the same of their shares
            report_to="none",
            remove_unused_columns=False,
            use_cpu=not torch.cuda.is_available(),
            ddp_backend=processes.backend(),
            disable_tqdm=False,
        )
        if arguments.world_size != processes.count():  # each would train a model of its own
            raise RuntimeError(f"{processes.count()} processes, of which the Trainer knows {arguments.world_size}")
        if arguments.n_gpu > 1:  # the Trainer would multiply the batch by their number
            raise UserError(
                f"one process sees {arguments.n_gpu} GPUs: start one process a GPU with torchrun, or show one GPU with "
                "CUDA_VISIBLE_DEVICES=0"
            )
        super().__init__(
            network,
            arguments,
            data_collator=data.collator,
            train_dataset=data.model_inputs,
            callbacks=list(callbacks),
        )
        self.remove_callback(ProgressCallback)
        self.add_callback(LossProgress())
        # The loss is a mean over the minibatch, so the Trainer must divide it by the number of them in a step. Releases
        # that have `loss_is_scaled_for_ga` follow this too, older ones know nothing else; tests/training holds it.
        self.model_accepts_loss_kwargs = False
        self._lost = torch.zeros((), device=self.args.device)  # 1 from the first loss on that is not finite
        if teacher is not None:
            teacher.to(self.args.device)

    def get_train_dataloader(self) -> DataLoader:
        """Batches in the order that the data-order seed and the epoch decide, shared out among the processes."""
        of_step = self.training.batch_size * self.training.gradient_accumulation
        order = EpochSeededSampler(of_step, list(self.data.features["length"]), self.data_seed)
        batches = DataLoader(
            self.train_dataset,
            batch_size=self.args.per_device_train_batch_size,  # not times the GPUs that one process may see
            sampler=order,
            collate_fn=self.data_collator,
        )
        return self.accelerator.prepare(batches, device_placement=[False])  # `_prepare_inputs` moves them

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """AdamW over the weights, and over the parameter groups of their own rates. It does nothing once a loss is not
        finite."""
        if self.optimizer is None:
            own = [p for group in self.parameter_groups for p in group["params"]]
            for parameter in own:
                parameter.requires_grad_(False)
            super().create_optimizer(model)
            for parameter in own:
                parameter.requires_grad_(True)
            for group in self.parameter_groups:
                self.optimizer.add_param_group(dict(group))
            self.optimizer.found_inf = self._lost  # what a gradient scaler sets; torch asks it on the device
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None) -> LambdaLR:
        """Linear decay with rewinds; the factor is relative to the initial learning rate."""
        rate = self.training.learning_rate
        schedule = partial(
            linear_with_rewinds, total_steps=num_training_steps, steps_per_epoch=self.epoch_steps, rate=rate
        )
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda step: schedule(step) / rate.initial)
        return self.lr_scheduler

    def compute_loss(self, model, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch=None) -> Any:
        """(1 - h) * task loss + h * distillation loss."""
        with self._autocast():
            logits = _in_float32(self.head.forward(model, inputs))
        hardness = self.distillation.hardness if self.distillation else 0.0
        loss = torch.zeros((), device=logits[0].device)
        if hardness < 1:
            loss = loss + (1 - hardness) * self.head.losses(logits, inputs).mean()
        if hardness > 0:
            with torch.no_grad(), self._autocast():
                taught = _in_float32(self.head.forward(self.teacher, inputs))
            softened = self.head.distillation_losses(logits, taught, self.distillation.temperature, inputs)
            loss = loss + hardness * softened.mean()
        penalty = self.penalty()
        if penalty is not None:
            loss = loss + penalty
        self._lost.masked_fill_(~torch.isfinite(loss.detach()), 1)
        processes.take_largest(self._lost)
        return (loss, logits) if return_outputs else loss

    def _autocast(self) -> torch.autocast:
        """bfloat16 where the recipe says so; pruning's gradients and evaluation are not made in here."""
        enabled = self.training.precision == "bfloat16"
        return torch.autocast(self.args.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _batch_seed(self) -> int:
        """A seed for each batch of the run, whatever was drawn before it; a resumed run meets the same."""
        step, several = self.state.global_step, processes.count()
        self._batch = self._batch + 1 if step == self._step else 0
        self._step = step
        of_step = self.args.gradient_accumulation_steps * several
        return self.data_seed + step * of_step + self._batch * several + processes.rank()

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """A batch with what is drawn at random for it, on the device: drawn on the CPU, and copied while it works."""
        prepared, device = dict(self.data.prepared(inputs, self._batch_seed())), self.args.device
        whole = bool(prepared[MASK].numpy().all())
        if device.type != "cpu":
            prepared = {name: value.pin_memory().to(device, non_blocking=True) for name, value in prepared.items()}
        return prepared | {MASK: AttentionMask.of(prepared[MASK], whole)}

    def _maybe_log_save_evaluate(self, tr_loss, grad_norm, *others, learning_rate=None, **options) -> None:
        """What the Trainer does after a step; its losses are fetched some steps at a time, each with a line of its own.

        Raises:
            UserError: a loss is not finite.
        """
        step = self.state.global_step
        if step > self._globalstep_last_logged:
            line = {
                "learning_rate": learning_rate,
                "sparsity": self.sparsity(),
                "epoch": self.state.epoch,
                "step": step,
            }
            self._pending.add(line, tr_loss, grad_norm)
            tr_loss.zero_()
            self._globalstep_last_logged = step
        if self.control.should_log or self.control.should_save or step >= self.state.max_steps:
            self._tell_pending()
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *others, learning_rate=learning_rate, **options)

    def _tell_pending(self) -> None:
        for line in self._pending.fetch():
            if not math.isfinite(line["loss"]):
                raise UserError(f"the loss is not finite at step {line['step'] - 1}: {self._what_is_not_finite()}")
            self._total_loss_scalar += line["loss"]
            self.state.log_history.append(line)
            self.control = self.callback_handler.on_log(self.args, self.state, self.control, dict(line))

    def _what_is_not_finite(self) -> str:
        for name, parameter in self.model.named_parameters():
            if not torch.isfinite(parameter).all():
                return f"parameter '{name}' holds values that are not finite. Lower the learning rate."
        return "all parameters are finite. Check the data, or lower the learning rate."

    def go_on_from(self, checkpoint: Path) -> None:
        """Train from a checkpoint on. Of one that was written at the last step, only the model and the state are read:
        the Trainer itself would take one more step where the last epoch is not a whole one."""
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        if state.global_step < self.total_steps:
            self.train(resume_from_checkpoint=str(checkpoint))
        else:
            load_weights(self.model, checkpoint)
            self.state = state

    def curves(self) -> list[dict[str, float]]:
        """Step, epoch, loss, learning rate and sparsity of every optimiser step so far."""
        return [{name: line.get(name) for name in COLUMNS} for line in self.state.log_history if "loss" in line]

    @property
    def seconds(self) -> float:
        """What the optimiser steps so far took, those of the sessions before this one included."""
        return sum(line["seconds"] for line in self.state.log_history if "loss" in line)


def _in_float32(logits: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(x.float() for x in logits)
