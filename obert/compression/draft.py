"""A recipe by the guidelines for a task's dense model, before it is a file: its schedule, and what a run costs."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import yaml
from transformers import PreTrainedModel

from obert.experiment.guidelines import FINE_TUNING, Value, as_yaml, by_guidelines
from obert.experiment.plan import PlannedRun
from obert.experiment.reading import validate
from obert.experiment.recipe import Recipe
from obert.experiment.recipes import load_method, load_recipe
from obert.foundation import processes
from obert.models.encoders import load_pretrained
from obert.stages import stage
from obert.training.features import Features
from obert.training.pace import Pace, measure
from obert.training.schedules import check_steps, pruning_events, steps_per_epoch, total_steps

STAGE = "downstream"
GRADIENTS = "methods.obert.num_gradients"
TAKEN = Value("start", "teacher", "the dense model is given, fine-tuned already", "ours")
WHENCE = (
    "The abstract of Kurtic, Hoefler and Alistarh (2023, arXiv 2312.13547) names three guidelines: which components "
    "are pruned, schedules that scale with the sparsity, and distillation. Its values are not known to us; where these "
    "are from is said with each."
)
ABOUT = "Gradual pruning of {model} on {task} with {method}, by the guidelines of Kurtic, Hoefler and Alistarh (2023)."


@dataclass(frozen=True)
class Work:
    """What a run is made of."""

    cycles: int
    steps: int
    events: int

    def minutes(self, pace: Pace) -> float:
        """Of training and pruning."""
        return (self.steps * pace.step + self.events * pace.event) / 60


@dataclass(frozen=True)
class Draft:
    """A recipe whose schedule scales.

    Attributes:
        teacher: the run that makes the dense model.
        method: prunes.
        values: of the recipe, each with its reason.
        features: that it trains on.
    """

    teacher: PlannedRun
    method: str
    values: tuple[Value, ...]
    features: int

    @classmethod
    def by_guidelines(cls, teacher: PlannedRun, method: str, layers: int, features: int) -> Draft:
        """The recipe that the guidelines have for a dense model of so many layers.

        Raises:
            UserError: no recipe can be made of them.
        """
        dense = _schedule_of(teacher)
        training = dense.training
        cycle_steps = max(1, int(training.epochs * steps_per_epoch(training, features)))
        values = by_guidelines(dense, method, layers, features, cycle_steps)
        if not teacher.recipe.training:
            values = tuple(TAKEN if value.key == TAKEN.key else value for value in values)
        draft = cls(teacher, method, values, features)
        stage(STAGE).check_recipe(draft.recipe)
        return draft

    @property
    def dense_steps(self) -> int:
        """Optimiser steps of the dense schedule."""
        training = _schedule_of(self.teacher).training
        return total_steps(training, steps_per_epoch(training, self.features))

    @property
    def where(self) -> str:
        """How a message names it."""
        return f"the recipe for {self.teacher.key.task}"

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe. Raises UserError for values that make none."""
        return validate(Recipe, yaml.safe_load(self.file()), self.where)

    def file(self, header: str = "") -> str:
        """The recipe's file, with `header` as comments above all."""
        run, method = self.teacher, self.method
        about = ABOUT.format(model=run.model.source, task=run.key.task, method=method)
        return as_yaml(self.values, about, run.key.recipe, header)

    def work(self, sparsity: float) -> Work:
        """Of a run to a target.

        Raises:
            ValueError: there are too few cycles for it.
            UserError: two pruning events fall on one step.
        """
        recipe = self.recipe
        plain = recipe.at(sparsity)
        epoch = steps_per_epoch(plain.training, self.features)
        events = pruning_events(plain.schedule, epoch, sparsity)
        check_steps(plain.training, self.features, events)
        return Work(recipe.scaling.cycles_at(sparsity), total_steps(plain.training, epoch), len(events))

    def highest(self, pace: Pace, minutes: float, below: float) -> float | None:
        """The highest sparsity, in whole percent, that a budget is long enough for; None if there is none."""
        for percent in range(math.ceil(100 * below) - 1, 0, -1):
            try:
                if self.work(percent / 100).minutes(pace) <= minutes:
                    return percent / 100
            except ValueError:  # so low that there is no cycle to prune in
                return None
        return None

    def drawing_from(self, examples: int) -> Draft:
        """The draft with no more gradients of an event than there are examples to draw them from."""

        def bounded(value: Value) -> Value:
            if value.key != GRADIENTS or value.value <= examples:
                return value
            return replace(value, value=examples, why=f"{value.why}; the search has {examples} examples to draw from")

        return replace(self, values=tuple(bounded(value) for value in self.values))

    def measure(self, network: PreTrainedModel, data: Features) -> Pace:
        """How long its steps and events take: the real ones, a few of them. The network is of no use afterwards."""
        recipe = self.recipe
        method = load_method(self.method, recipe.methods[self.method], self.where)
        return measure(network, copy.deepcopy(network).eval(), data, recipe, method, self.teacher.seeds)


def _schedule_of(teacher: PlannedRun) -> Recipe:
    """The recipe of a dense model; of one that is given, that of fine-tuning in its place."""
    return teacher.recipe if teacher.recipe.training else load_recipe(FINE_TUNING)


def start_of(dense: PlannedRun) -> tuple[PreTrainedModel, Features]:
    """The model that pruning starts from, with a new head, and the training features; sets torch's threads."""
    torch.set_num_threads(dense.experiment.threads)
    examples, task = dense.task.load()["train"], dense.task
    network, tokenizer = load_pretrained(dense.model, task.head, task.classes(examples))
    return network.to(processes.join()), Features.encode(task, examples, tokenizer)


def rounded(minutes: float) -> str:
    """Two digits, rounded up."""
    unit = 10 ** (math.floor(math.log10(minutes)) - 1)
    return f"{math.ceil(minutes / unit) * unit:.10g}"


def cost(work: Work, pace: Pace) -> str:
    """What a run costs, in words, with how it was found."""
    drawn = f", events with up to {pace.gradients} gradients" if pace.gradients else ", an event"
    return (
        f"One run takes about {rounded(work.minutes(pace))} minutes: {work.cycles} cycles, {work.steps:,} optimiser "
        f"steps of {pace.step:.2g} s, distillation included, and {work.events} pruning events of {pace.event:.2g} s. "
        f"Timed on this machine with the task's own data: {pace.steps} steps{drawn}. The dense model's own training is "
        "not in it."
    )
