"""How long an optimiser step and a pruning event take: the real ones, a few of them, on the real model and data."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from obert.experiment.recipe import Recipe
from obert.pruning import Method
from obert.training.features import Features
from obert.training.gradual import GradualPruning
from obert.training.pruner import Pruner
from obert.training.schedules import steps_per_epoch
from obert.training.trainer import CompressionTrainer

SECONDS = 20.0  # that timing steps, and timing events, may take
FEW, MANY = 4, 40  # steps that are timed


@dataclass(frozen=True)
class Pace:
    """Seconds of the two things that a gradual run is made of.

    Attributes:
        step: of an optimiser step, distillation and masks included; a mean.
        event: of a pruning event.
        steps: how many were timed.
        gradients: how many the longest event that was timed drew; 0 for a method that draws none.
        per_gradient: seconds of an event that each of its gradients takes; the rest is the solving, which takes as long
            with fewer. 0 where one number of gradients alone was timed.
    """

    step: float
    event: float
    steps: int
    gradients: int
    per_gradient: float = 0.0


def measure(
    network: PreTrainedModel,
    teacher: PreTrainedModel | None,
    data: Features,
    recipe: Recipe,
    method: Method,
    seeds: dict[str, int],
) -> Pace:
    """Prune and train a network for a short time. It is of no use afterwards.

    Args:
        teacher: to distil from, where the recipe distils.
        data: the training features.
        recipe: of gradual pruning; its training may be of any length.

    Raises:
        UserError: an event draws more features than there are, or training diverges.
    """
    pruner = Pruner.of(recipe, network, method, data, seeds, teacher)
    event, gradients, per_gradient = _event(pruner)
    step, steps = _step(pruner, teacher, recipe, seeds)
    return Pace(step, event, steps, gradients, per_gradient)


def _event(pruner: Pruner) -> tuple[float, int, float]:
    """Seconds of an event, the gradients of the longest that was timed, and the seconds of each.

    Events with ever more gradients are timed until they have all, or have taken their time. From the last two of those
    the seconds of one with all are extrapolated: they grow in a straight line.
    """
    whole = pruner.method
    target = getattr(whole, "num_gradients", 0)
    timed: list[tuple[int, float]] = []
    count = min(getattr(whole, "gradient_batch_size", 0), target)
    started = time.perf_counter()
    while True:
        pruner.method = whole.model_copy(update={"num_gradients": count}) if target else whole
        pruner.prune(0.5 + 0.01 * len(timed))
        timed.append((count, pruner.events[-1]["seconds"]))
        if count == target:
            break
        if len(timed) > 1 and time.perf_counter() - started > SECONDS:
            break
        count = min(2 * count, target)
    pruner.method = whole
    if len(timed) == 1:
        return timed[0][1], count, 0.0
    (fewer, less), (more, longer) = timed[-2:]
    each = max(longer - less, 0.0) / (more - fewer)
    return longer + each * (target - more), count, each


def _step(pruner: Pruner, teacher: PreTrainedModel | None, recipe: Recipe, seeds: dict[str, int]) -> tuple[float, int]:
    """Mean seconds of a step, and how many steps were timed: first a few, then as many as there is time for."""
    seconds = _train(pruner, teacher, recipe, seeds, FEW)
    count = int(min(max(SECONDS / _mean(seconds), FEW), MANY))
    seconds = _train(pruner, teacher, recipe, seeds, count + 1)
    return _mean(seconds), len(seconds) - 1


def _mean(seconds: list[float]) -> float:
    """Of all but the first, which also sets things up."""
    counted = seconds[1:] or seconds
    return sum(counted) / len(counted)


def _train(
    pruner: Pruner, teacher: PreTrainedModel | None, recipe: Recipe, seeds: dict[str, int], steps: int
) -> list[float]:
    """Seconds of each of so many steps, which together are an epoch of a random sample of the data: batches are ordered
    by length, so that the first ones of a long epoch are not like the others."""
    data, training = pruner.data, recipe.training
    chosen = min(steps * training.batch_size * training.gradient_accumulation, len(data.features))
    order = torch.randperm(len(data.features), generator=torch.Generator().manual_seed(seeds["data order"]))
    sample = replace(data, features=data.features.select(sorted(order[:chosen].tolist())))
    changes: dict[str, Any] = {"epochs": steps / steps_per_epoch(training, chosen), "checkpoint_steps": None}
    with tempfile.TemporaryDirectory() as folder:
        trainer = CompressionTrainer(
            pruner.network,
            sample,
            training.model_copy(update=changes),
            seeds,
            Path(folder),
            distillation=recipe.distillation,
            teacher=teacher,
            sparsity=lambda: pruner.sparsity,
            callbacks=(GradualPruning(pruner, {steps + 1: pruner.sparsity}),),  # holds the masks, and prunes no more
        )
        trainer.train()
    return [line["seconds"] for line in trainer.state.log_history if "loss" in line]
