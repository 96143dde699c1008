"""A recipe's masked model: which weights, what events draw from, state in checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
from obert.masks.selection import Cut
from obert.models.encoders import ENCODER, prunable_parts
from obert.pruning import Method
from obert.training.features import Features
from obert.training.masked import Drawn, Evaluations, MaskedModel

MASKS, STATE, EVENTS = "masks.safetensors", "pruning_state.safetensors", "pruning_events.json"


def check_features(method: Method, features: int, where: str) -> None:
    """Raise UserError if a pruning event draws more distinct training features than there are."""
    for drawn, what in ((method.gradient_examples(), "gradients"), (method.forward_examples(), "examples")):
        if drawn > features:
            raise UserError(
                f"{where}: a pruning event draws {drawn} training features, there are {features}. Lower the number of "
                f"{what}, or use more training examples."
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


class Pruner(MaskedModel):
    """A masked model of a recipe: the parts of its scope, training features, and a teacher to distil from."""

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
        self.head = data.task.head
        self.data = data
        self.teacher = teacher
        self.distillation = distillation
        self.scope = scope
        parts = prunable_parts(network, scope)
        if empty := [part for part, layers in parts.items() if not layers]:
            raise UserError(f"scope.{empty[0]}: the model has no such weights. Leave it out of the recipe's scope")
        self._names = {part: tuple(layers) for part, layers in parts.items()}
        layers = {name: layer for layers in parts.values() for name, layer in layers.items()}
        super().__init__(network, method, layers, pattern, distribution, seeds)
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

    def cuts(self, sparsity: float, target: float) -> tuple[Cut, ...]:
        """Parts of the scope that share a cut, and those with one of their own.

        Args:
            target: the sparsity at the end. A part with a target of its own is as far on its way to that.
        """
        targets = self._targets(sparsity, target)
        return tuple(
            Cut(tuple(name for part in parts for name in self._names[part]), targets.get(parts[0], sparsity))
            for parts in self.scope.cuts
        )

    def drawn(self, step: int, evaluations: Evaluations) -> Drawn:
        """Training features in an order of the step's own."""

        def logits(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
            evaluations.add(len(batch["input_ids"]))
            return self.head.forward(self.network, batch)

        def losses(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.head.losses(logits(batch), batch)

        def from_teacher(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            with torch.no_grad():
                taught = self.head.forward(self.teacher, batch)
            return self.head.distillation_losses(logits(batch), taught, self.distillation.temperature, batch)

        data = TrainingFeatures(self.data, self.seeds["gradients"] + step, self.device)
        return Drawn(data, losses, from_teacher if self.distillation and self.teacher is not None else None)

    def prune(
        self,
        sparsity: float,
        step: int = 0,
        optimizer: torch.optim.Optimizer | None = None,
        progress: float = 0.0,
        target: float | None = None,
    ) -> None:
        """As `MaskedModel.prune`; the event also says what parts with targets of their own were pruned to."""
        super().prune(sparsity, step, optimizer, progress, target)
        if self.scope.targets:
            self.events[-1]["targets"] = self._targets(sparsity, sparsity if target is None else target)

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
        masks, state = (load_file(folder / name, device=str(self.device)) for name in (MASKS, STATE))
        self.restore(masks, state, json.loads((folder / EVENTS).read_text(encoding="utf-8")))
