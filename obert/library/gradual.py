"""Gradual pruning in anyone's training loop: events on schedule, masks held, state that resumes bit by bit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from obert.foundation.errors import UserError
from obert.foundation.files import atomic_path
from obert.library.batches import Batches, Losses, check_draws, draws, forward, losses_of
from obert.library.choices import checked_method, checked_pattern, checked_schedule
from obert.library.inspection import check_layers
from obert.library.layers import all_or_nothing, checked_masks, layers_of, left_out, masks_at_start, with_gradients
from obert.library.mask_files import read_tensors
from obert.library.report import PruningReport, report_on
from obert.library.used_weights import check_pruned, used_weights
from obert.masks.patterns import Distribution
from obert.masks.selection import MAKERS, Masks
from obert.training.masked import Drawn, Evaluations, MaskedModel, OnSchedule, check_first_event, evaluating

if TYPE_CHECKING:
    from transformers import TrainerCallback

KIND = "obert.GradualPruner"
PARTS = ("masks", "hook")  # of a state, that are tensors by name


class _CallersModel(MaskedModel):
    """A masked model that draws from the caller's batches, from the first at each event."""

    def __init__(self, batches: Iterable[Any], losses: Losses, *settings: Any):
        super().__init__(*settings)
        self.batches = batches
        self.losses = losses
        self.drawing = 0.0

    def drawn(self, step: int, evaluations: Evaluations) -> Drawn:
        """The batches. A loss of one value is one evaluation, whatever it is the mean of."""
        self.data = Batches(self.batches)

        def losses(batch: Any) -> Tensor:
            values = self.losses(batch)
            evaluations.add(values.numel())
            return values

        return Drawn(self.data, losses)


class GradualPruner:
    """Prunes a model while it trains, in the caller's own loop: `step()` after each `optimizer.step()`.

    An event at step k of the schedule comes after k optimiser steps; one at step 0 when the pruner is made. Gradients
    are drawn in evaluation mode, and only by methods that need them. Modes, gradients and the random state of torch are
    as before an event when it is over; after an error in it, the weights are too.

    Make it when the model is on its device, and before the learning-rate scheduler. To resume, make it anew, then load
    the states of model, optimiser and pruner.

    Attributes:
        steps: optimiser steps so far.
        has_penalty: the method adds a term to the training loss.

    Args:
        model: any module; its weights change in place. While a method keeps weights behind a mask, they are called
            `parametrizations.weight.original`, until `finish`.
        schedule: sparsity by step, in [0, 1), such as `sparsity_schedule` makes.
        method: its name in the registry, e.g. a file of `obert/pruning/`.
        optimizer: of the loop. What a method learns, such as the scores of movement pruning, becomes a group of it.
        batches: a collection that can be gone through at every event, such as a list or a DataLoader, on the model's
            device. One that shuffles by torch's random numbers shuffles the same at the same step. Several processes
            must be given the same.
        loss: as for `prune`.
        pattern, scope, masks, parameters: as for `prune`.
        distribution: `global`, the cheapest weights of all layers together; `uniform`, the same sparsity in each layer;
            `row`, in each row too. A method that is defined by one has that.
        seed: of what methods draw at random.

    Raises:
        UserError: a mistake in the arguments, before anything is computed; whatever `prune` refuses; an event before
            the method has seen the steps that it needs; a learning-rate scheduler that is there already, where the
            method adds a group.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Mapping[int, float],
        method: str = "obert",
        *,
        optimizer: torch.optim.Optimizer,
        batches: Iterable[Any] = (),
        loss: Callable[[nn.Module, Any], Tensor] | None = None,
        pattern: str = "unstructured",
        scope: str | Sequence[str] | None = None,
        distribution: Distribution = "global",
        masks: Masks | None = None,
        seed: int = 0,
        **parameters: Any,
    ):
        planned = checked_schedule(schedule)
        chosen_pattern = checked_pattern(pattern, max(planned.values()))
        chosen = checked_method(method, chosen_pattern, parameters, "GradualPruner")
        check_first_event(chosen, planned)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise UserError(f"optimizer: found a {type(optimizer).__name__}; give a torch.optim.Optimizer")
        if distribution not in MAKERS:
            raise UserError(f"distribution {distribution!r}: allowed are {', '.join(MAKERS)}")
        layers = layers_of(model, scope)
        check_layers(model, layers)
        losses, data = losses_of(model, loss, chosen), Batches(batches)
        if draws(chosen) and isinstance(batches, Iterator):
            raise UserError("batches: an iterator ends at the first event. Give a list or a DataLoader")
        with evaluating(model), with_gradients(layers), _own_random_numbers(seed):
            check_draws(batches, data, losses, layers, chosen)
        self.method = method
        self.optimizer = optimizer
        self.steps = 0
        self._loss = loss
        self._seed = seed
        self._finished = self._penalty_taken = False
        self._left_out = left_out(model, layers)
        seeds = {"pruning": seed, "gradients": seed}
        self._model = _CallersModel(batches, losses, model, chosen, layers, chosen_pattern, distribution, seeds)
        try:
            self._schedule = OnSchedule(self._model, planned)
            self._model.masks, self._kept_zeros = self._at_start(masks, min(planned.values()))
            self._model.hook.impose(self._model.masks)
            self._add_groups()
        except UserError:
            self._model.hook.finish()  # the model is as before
            raise
        self._device = self._model.device
        self.has_penalty = self._schedule.penalty() is not None
        self._prune_if_due()

    @property
    def masks(self) -> Masks:
        """By the name of the weight, True where it is kept."""
        return dict(self._model.masks)

    @property
    def sparsity(self) -> float:
        """Of the last event, 0 before the first."""
        return self._model.sparsity

    @property
    def events(self) -> list[dict[str, Any]]:
        """Step, sparsity, seconds and evaluations of the loss of each event, and the loss increase if one is predicted.

        A loss of one value for several examples is one evaluation.
        """
        return [dict(event) for event in self._model.events]

    def penalty(self) -> Tensor:
        """What the method adds to the loss of each step, such as soft movement's pull on its scores; mostly 0."""
        self._penalty_taken = True
        term = self._schedule.penalty()
        return torch.zeros((), device=self._device) if term is None else term

    def step(self) -> None:
        """To be called right after `optimizer.step()`, before its gradients are cleared: holds masks, and prunes if the
        schedule says so.

        Raises:
            UserError: the model is on another device; a term of the loss was left out; an event failed.
        """
        if self._finished:
            raise UserError("step() is called after finish(): pruning is over")
        if self._model.device != self._device:
            raise UserError(
                f"the model has moved from {self._device} to {self._model.device}: move it before the GradualPruner is "
                "made"
            )
        if self.has_penalty and not self._penalty_taken:
            raise UserError(f"method '{self.method}' has a term of the loss: add pruner.penalty() to it, at each step")
        self._penalty_taken = False
        self._schedule.after_step()
        self.steps += 1
        self._prune_if_due()

    def finish(self) -> PruningReport:
        """Training is over: leave a plain model, pruned weights zero, and count them.

        Raises:
            UserError: a pruned weight is not zero.
        """
        model, self._finished = self._model, True
        if self.sparsity < self._schedule.target:
            model.hook.impose(model.masks)  # before the target, a method may let pruned weights train on
        model.hook.finish()
        weights = {name: layer.weight.detach() for name, layer in model.layers.items()}
        for name, weight in weights.items():
            if lost := int(weight[~model.masks[name]].count_nonzero()):
                raise UserError(
                    f"weight '{name}': {lost} pruned values are not zero. Were there optimiser steps without "
                    "pruner.step(), or were other weights loaded since?"
                )
        increases: Counter[str] = Counter()
        for event in model.events:
            increases.update(event.get("predicted_loss_increase", {}))
        return report_on(
            self.method,
            model.method,
            model.pattern,
            model.distribution,
            weights,
            model.masks,
            self.sparsity,
            increases,
            self._left_out,
            self._kept_zeros,
            (model.drawing, sum(event["seconds"] for event in model.events)),
        )

    def callback(self) -> TrainerCallback:
        """For the Trainer of Transformers: calls `step` and `penalty`, and keeps the state in its checkpoints."""
        from obert.library.callback import PruningCallback

        return PruningCallback(self)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold besides model and optimiser: numbers, text and tensors."""
        return {
            "method": self.method,
            "steps": self.steps,
            "events": self.events,
            "masks": {name: mask.clone() for name, mask in self._model.masks.items()},
            "hook": {name: value.clone() for name, value in self._model.hook.state().items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave. The model's own state must have been loaded before.

        Raises:
            UserError: it is of another method, or of other layers.
        """
        own = self.state_dict()
        if not isinstance(state, Mapping) or set(state) != set(own):
            raise UserError("state: it is not what state_dict() of a GradualPruner gives")
        if state["method"] != self.method:
            raise UserError(f"state: it is of method '{state['method']}', this is '{self.method}'")
        masks = checked_masks(state["masks"], self._model.hook.weights, self._model.pattern)
        shapes, own_shapes = ({n: tuple(v.shape) for n, v in hook.items()} for hook in (state["hook"], own["hook"]))
        if shapes != own_shapes:
            raise UserError(f"state: what it holds for method '{self.method}' is of other layers, or another version")
        hook = {name: value.to(self._device, copy=True) for name, value in state["hook"].items()}
        self._model.restore(masks, hook, state["events"])
        self.steps = state["steps"]

    def save(self, path: str | Path) -> None:
        """Write the state as a safetensors file, whole or not at all."""
        state = self.state_dict()
        tensors = {f"{part}/{name}": value for part in PARTS for name, value in state[part].items()}
        about = {name: value for name, value in state.items() if name not in PARTS}
        with atomic_path(Path(path)) as temporary:
            save_file(tensors, temporary, {KIND: json.dumps(about)})

    def load(self, path: str | Path) -> None:
        """Take back what `save` wrote; see `load_state_dict`.

        Raises:
            UserError: it is no such file, or of another method or other layers.
        """
        tensors, about = read_tensors(Path(path), KIND)
        state: dict[str, Any] = json.loads(about) | {part: {} for part in PARTS}
        for name, value in tensors.items():
            part, _, own = name.partition("/")
            state[part][own] = value
        self.load_state_dict(state)

    def _at_start(self, masks: Masks | None, first: float) -> tuple[Masks, int]:
        """Masks to begin with, and how many zeros they keep. Where weights return, they may be more than the first
        event's."""
        model = self._model
        first = model.pattern.largest_sparsity if model.hook.returns else first
        found, zeros = masks_at_start(masks, model.hook.weights, model.pattern, first, model.distribution)
        return found, 0 if model.hook.returns else zeros

    def _add_groups(self) -> None:
        groups = self._model.hook.parameter_groups()
        if groups and any("initial_lr" in group for group in self.optimizer.param_groups):
            raise UserError(
                f"method '{self.method}' adds a group to the optimiser, and a learning-rate scheduler is there: "
                "make it after the GradualPruner"
            )
        for group in groups:
            self.optimizer.add_param_group(dict(group))

    def _prune_if_due(self) -> None:
        model, count = self._model, len(self._model.events)
        if self.steps not in self._schedule.schedule:
            return
        with (
            _own_random_numbers(self._seed + self.steps),
            with_gradients(model.layers),
            all_or_nothing(model.hook.weights),
        ):
            self._schedule.before_step(self.steps, self.optimizer)
            if len(model.events) > count:
                model.drawing += model.data.seconds
                with evaluating(model.network):
                    used = used_weights(model.layers, lambda: forward(model.network, self._loss, model.data))
                check_pruned(model.layers, used, model.masks)


@contextmanager
def _own_random_numbers(seed: int) -> Iterator[None]:
    """Inside the block torch's random numbers are those of a seed; afterwards they go on as if none had been drawn."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
