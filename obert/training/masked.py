"""Gradual pruning in whatever loop trains: events on schedule, masks held after every optimiser step, their state."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from obert.foundation.errors import UserError
from obert.masks.patterns import AnyPattern, Distribution
from obert.masks.selection import Cut, Masks, dense_masks
from obert.pruning import Context, GradientData, Method, WeightsBehindMasks, prune_event


@dataclass(frozen=True)
class Drawn:
    """What one event may draw from; see `pruning.Context`."""

    data: GradientData
    losses: Callable[[Any], Tensor]
    distillation_losses: Callable[[Any], Tensor] | None = None


class Evaluations(Counter[str]):
    """Counts evaluations of the loss, those that a gradient is taken of apart from the others."""

    def add(self, count: int) -> None:
        """So many more, of the kind that are made at present."""
        self["gradient" if torch.is_grad_enabled() else "forward"] += count

    def costs(self) -> dict[str, int]:
        """As an event or a run tells them: what is only passed forward where there is any."""
        forward = {"forward_evaluations": self["forward"]} if self["forward"] else {}
        return {"gradient_evaluations": self["gradient"], **forward}


class MaskedModel:
    """A model with its masks, and the method that prunes it.

    Attributes:
        masks: True where a weight is kept.
        events: step, sparsity, seconds and evaluations (with a gradient, and forward only) of each event, and what the
            method says of it.
        hook: the method's, at work on the model.

    Raises:
        UserError: a weight does not consist of whole groups, or is of two layers where the method keeps pruned weights
            behind masks.
    """

    def __init__(
        self,
        network: nn.Module,
        method: Method,
        layers: Mapping[str, nn.Linear | nn.Embedding],
        pattern: AnyPattern,
        distribution: Distribution,
        seeds: dict[str, int],
    ):
        self.network = network
        self.method = method
        self.layers = dict(layers)
        self.pattern = pattern
        self.distribution = method.compares_within or distribution
        self.seeds = seeds
        pattern.by_layer({name: layer.weight.shape for name, layer in layers.items()})
        tied = _tied(network, self.layers)
        self.hook = method.training_hook(network, self.layers, pattern)
        if isinstance(self.hook, WeightsBehindMasks) and tied:
            raise UserError(
                f"method {type(method).__name__} keeps pruned weights behind a mask, and '{tied}' is the weight of two "
                "layers. Leave it out of the scope"
            )
        self.masks: Masks = dense_masks(self.hook.weights)
        self.events: list[dict[str, Any]] = []

    @property
    def sparsity(self) -> float:
        """The target of the last event, 0 before the first."""
        return self.events[-1]["sparsity"] if self.events else 0.0

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.hook.weights.values())).device

    def cuts(self, sparsity: float, target: float) -> tuple[Cut, ...]:
        """What an event prunes to: by default one cut for all weights.

        Args:
            target: the sparsity at the end.
        """
        return (Cut(tuple(self.layers), sparsity),)

    def drawn(self, step: int, evaluations: Evaluations) -> Drawn:
        """What an event draws from; its losses count themselves in `evaluations`."""
        raise NotImplementedError

    def prune(
        self,
        sparsity: float,
        step: int = 0,
        optimizer: torch.optim.Optimizer | None = None,
        progress: float = 0.0,
        target: float | None = None,
    ) -> None:
        """Prune to a sparsity now, in evaluation mode; the modes are restored.

        What is drawn at random depends on the seeds and the step, so that a resumed run draws the same.

        Args:
            progress: how far training is on its way to the last event, from 0 to 1.
            target: the sparsity at the end, this one by default.
        """
        target = sparsity if target is None else target
        started = time.perf_counter()
        self.masks = {name: mask.to(self.device) for name, mask in self.masks.items()}
        evaluations = Evaluations()
        drawn = self.drawn(step, evaluations)
        context = Context(
            self.hook,
            self.masks,
            drawn.data,
            drawn.losses,
            torch.Generator().manual_seed(self.seeds["pruning"] + step),
            self.pattern,
            self.distribution,
            distillation_losses=drawn.distillation_losses,
            progress=progress,
            model=self.network,
        )
        with evaluating(self.network):
            try:
                done = prune_event(self.method, context, sparsity, self.cuts(sparsity, target))
            except UserError as error:
                raise UserError(f"pruning to {sparsity:.4g} before step {step}: {error}") from None
            self.masks = done.masks
            self.hook.after_event(self.masks, optimizer)
        increases = {"predicted_loss_increase": done.predicted_loss_increase} if done.predicted_loss_increase else {}
        seconds = time.perf_counter() - started
        self.events.append({"step": step, "sparsity": sparsity, "seconds": seconds, **evaluations.costs(), **increases})

    def restore(self, masks: Masks, state: Mapping[str, Tensor], events: list[dict[str, Any]]) -> None:
        """Take back masks, the hook's state and the events. The weights stay: those of the model's own checkpoint."""
        self.masks = dict(masks)
        self.hook.load(dict(state))
        before = {name: weight.clone() for name, weight in self.hook.weights.items()}
        self.hook.impose(self.masks)
        for name, weight in self.hook.weights.items():
            weight.copy_(before[name])  # a method may let pruned weights train on between events
        self.events = list(events)


class OnSchedule:
    """Prunes a model before the steps that a schedule names, and calls the method's hook after every optimiser step.

    Args:
        schedule: sparsity by the step that the event precedes, the first of training being 0.

    Raises:
        UserError: the first event comes before the method has seen the steps it needs.
    """

    def __init__(self, pruner: MaskedModel, schedule: dict[int, float]):
        self.pruner = pruner
        self.schedule = schedule
        self.target = max(schedule.values())
        check_first_event(pruner.method, schedule)

    def penalty(self) -> Tensor | None:
        """The method's term of the training loss."""
        return self.pruner.hook.penalty(self.pruner.sparsity / self.target if self.target else 1.0)

    def before_step(self, step: int, optimizer: torch.optim.Optimizer | None) -> None:
        """Prune if the schedule says so. To be called when no gradient is lost to the event."""
        sparsity = self.schedule.get(step)
        if sparsity is not None and (sparsity != self.pruner.sparsity or self.pruner.hook.returns):
            progress = step / max(*self.schedule, 1)
            self.pruner.prune(sparsity, step, optimizer, progress, self.target)

    def after_step(self) -> None:
        """To be called right after the optimiser's step, while its gradients are still there."""
        self.pruner.hook.after_step(self.pruner.masks, at_target=self.pruner.sparsity == self.target)


def check_first_event(method: Method, schedule: dict[int, float]) -> None:
    """Raise UserError if the schedule prunes before the method's scores have seen the steps that they need."""
    if min(schedule) < method.steps_needed():
        raise UserError(
            f"method {type(method).__name__} learns its scores in training and needs {method.steps_needed()} optimiser "
            f"steps before the first pruning event, which is at step {min(schedule)}. Prune later (in a recipe, raise "
            "schedule.start_epoch)."
        )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside the block the model is in evaluation mode; afterwards each module is in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _tied(network: nn.Module, layers: Mapping[str, nn.Linear | nn.Embedding]) -> str | None:
    """The first of these weights that another module of the network has too."""
    owners = Counter(id(p) for m in network.modules() for p in m.parameters(recurse=False))
    return next((name for name, layer in layers.items() if owners[id(layer.weight)] > 1), None)
