"""Gradual pruning during training: events on schedule, masks held after every optimiser step, state in checkpoints."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from obert.experiment.recipe import Distillation, Recipe, Scope
from obert.foundation.errors import UserError
from obert.foundation.files import write_text
from obert.masks.patterns import AnyPattern, Distribution, parse_pattern
from obert.masks.selection import Cut, dense_masks
from obert.models.encoders import ENCODER, prunable_parts
from obert.pruning import Context, Method, WeightsBehindMasks, prune_event
from obert.training.features import Features

MASKS, STATE, EVENTS = "masks.safetensors", "pruning_state.safetensors", "pruning_events.json"


def check_features(method: Method, features: int, where: str) -> None:
    """Raise UserError if a pruning event draws more distinct training features than there are."""
    for drawn, what in ((method.gradient_examples(), "gradients"), (method.forward_examples(), "examples")):
        if drawn > features:
            raise UserError(
                f"{where}: a pruning event draws {drawn} training features, there are {features}. Lower the number of "
                f"{what}, or use more training examples."
            )


def check_first_event(method: Method, schedule: dict[int, float]) -> None:
    """Raise UserError if the schedule prunes before the method's scores have seen the steps that they need."""
    if min(schedule) < method.steps_needed():
        raise UserError(
            f"method {type(method).__name__} learns its scores in training and needs {method.steps_needed()} optimiser "
            f"steps before the first pruning event, which is at step {min(schedule)}. Raise schedule.start_epoch."
        )


@dataclass(frozen=True)
class TrainingFeatures:
    """The training features as the data that gradients are taken on.

    Attributes:
        seed: decides, with `draw`, which features.
    """

    features: Features
    seed: int
    device: torch.device

    def examples(self, count: int, batch_size: int, draw: int) -> Iterator[Any]:
        """Features of similar length together, which saves padding and makes no difference to their own gradients."""
        sizes = [batch_size] * (count // batch_size) + ([count % batch_size] if count % batch_size else [])
        return self._batches(sizes, draw, by_length=True)

    def minibatches(self, count: int, batch_size: int, draw: int) -> Iterator[Any]:
        """Random minibatches."""
        return self._batches([batch_size] * count, draw, by_length=False)

    def _batches(self, sizes: list[int], draw: int, by_length: bool) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(self.seed + draw)
        return (batch.to(self.device) for batch in self.features.batches(sizes, generator, by_length))


class Pruner:
    """A model with its masks, and the method that prunes it.

    Attributes:
        masks: True where a weight is kept.
        sparsity: the target of the last event, 0 before the first.
        events: step, sparsity, seconds and evaluations (with a gradient, and forward only) of each event, and what the
            method says of it.
    """

    def __init__(
        self,
        network: nn.Module,
        method: Method,
        data: Features,
        seeds: dict[str, int],
        pattern: AnyPattern,
        distribution: Distribution = "global",
        teacher: nn.Module | None = None,
        distillation: Distillation | None = None,
        scope: Scope = ENCODER,
    ):
        self.network = network
        self.head = data.task.head
        self.method = method
        self.data = data
        self.seeds = seeds
        self.pattern = pattern
        self.distribution = method.compares_within or distribution
        self.teacher = teacher
        self.distillation = distillation
        self.scope = scope
        parts = prunable_parts(network, scope)
        if empty := [part for part, layers in parts.items() if not layers]:
            raise UserError(f"scope.{empty[0]}: the model has no such weights. Leave it out of the recipe's scope")
        self._names = {part: tuple(layers) for part, layers in parts.items()}
        self.layers = {name: layer for layers in parts.values() for name, layer in layers.items()}
        pattern.by_layer({name: layer.weight.shape for name, layer in self.layers.items()})
        tied = _tied(network, self.layers)
        self.hook = method.training_hook(network, self.layers, pattern)
        if isinstance(self.hook, WeightsBehindMasks) and tied:
            raise UserError(
                f"method {type(method).__name__} keeps pruned weights behind a mask, and '{tied}' is the weight of two "
                "layers. Leave its part out of the recipe's scope"
            )
        self.masks = dense_masks(self.hook.weights)
        self.events: list[dict[str, Any]] = []
        check_features(method, len(data.features), f"method {type(method).__name__}")

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        network: nn.Module,
        method: Method,
        data: Features,
        seeds: dict[str, int],
        teacher: nn.Module | None,
    ) -> Pruner:
        """The pruner of a recipe."""
        return cls(
            network,
            method,
            data,
            seeds,
            parse_pattern(recipe.pattern),
            recipe.distribution,
            teacher,
            recipe.distillation,
            recipe.scope,
        )

    @property
    def sparsity(self) -> float:
        """The target of the last event."""
        return self.events[-1]["sparsity"] if self.events else 0.0

    def cuts(self, sparsity: float, target: float) -> tuple[Cut, ...]:
        """What an event prunes to: parts of the scope that share a cut, and those with one of their own.

        Args:
            target: the sparsity at the end. A part with a target of its own is as far on its way to that.
        """
        targets = self._targets(sparsity, target)
        return tuple(
            Cut(tuple(name for part in parts for name in self._names[part]), targets.get(parts[0], sparsity))
            for parts in self.scope.cuts
        )

    def prune(
        self,
        sparsity: float,
        step: int = 0,
        optimizer: torch.optim.Optimizer | None = None,
        progress: float = 0.0,
        target: float | None = None,
    ) -> None:
        """Prune to a sparsity now, in evaluation mode; the mode is restored.

        The gradients' data order depends on the seed and the step, so that a resumed run draws the same.

        Args:
            progress: how far training is on its way to the last event, from 0 to 1.
            target: the sparsity at the end, this one by default.
        """
        target = sparsity if target is None else target
        started = time.perf_counter()
        device = next(self.network.parameters()).device
        self.masks = {name: mask.to(device) for name, mask in self.masks.items()}
        evaluations = {"gradient": 0, "forward": 0}

        def logits(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
            evaluations["gradient" if torch.is_grad_enabled() else "forward"] += len(batch["input_ids"])
            return self.head.forward(self.network, batch)

        def losses(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.head.losses(logits(batch), batch)

        def from_teacher(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            with torch.no_grad():
                taught = self.head.forward(self.teacher, batch)
            return self.head.distillation_losses(logits(batch), taught, self.distillation.temperature, batch)

        context = Context(
            self.hook,
            self.masks,
            TrainingFeatures(self.data, self.seeds["gradients"] + step, device),
            losses,
            torch.Generator().manual_seed(self.seeds["pruning"] + step),
            self.pattern,
            self.distribution,
            from_teacher if self.distillation and self.teacher is not None else None,
            progress=progress,
            model=self.network,
        )
        was_training = self.network.training
        self.network.eval()
        try:
            done = prune_event(self.method, context, sparsity, self.cuts(sparsity, target))
        except UserError as error:
            raise UserError(f"pruning to {sparsity:.4g} before step {step}: {error}") from None
        self.masks = done.masks
        self.hook.after_event(self.masks, optimizer)
        self.network.train(was_training)
        self.events.append(
            {
                "step": step,
                "sparsity": sparsity,
                **({"targets": self._targets(sparsity, target)} if self.scope.targets else {}),
                "seconds": time.perf_counter() - started,
                "gradient_evaluations": evaluations["gradient"],
                **({"forward_evaluations": evaluations["forward"]} if evaluations["forward"] else {}),
                **({"predicted_loss_increase": done.predicted_loss_increase} if done.predicted_loss_increase else {}),
            }
        )

    def _targets(self, sparsity: float, target: float) -> dict[str, float]:
        share = sparsity / target if target else 1.0
        return {part: share * own for part, own in self.scope.targets.items()}

    def save(self, folder: Path) -> None:
        """Write masks, events and the method's own state beside a checkpoint."""
        save_file({name: mask.cpu() for name, mask in self.masks.items()}, folder / MASKS)
        save_file({name: value.cpu() for name, value in self.hook.state().items()}, folder / STATE)
        write_text(folder / EVENTS, json.dumps(self.events))

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        device = next(self.network.parameters()).device
        self.masks = load_file(folder / MASKS, device=str(device))
        self.hook.load(load_file(folder / STATE, device=str(device)))
        self.hook.impose(self.masks)
        self.events = json.loads((folder / EVENTS).read_text(encoding="utf-8"))


def _tied(network: nn.Module, layers: Mapping[str, nn.Linear | nn.Embedding]) -> str | None:
    """The first of these weights that another module of the network has too."""
    owners = Counter(id(p) for m in network.modules() for p in m.parameters(recurse=False))
    return next((name for name, layer in layers.items() if owners[id(layer.weight)] > 1), None)
