"""Write a recipe by the guidelines for one task and sparsity, if there is the time that it takes."""

from __future__ import annotations

import copy
import math
import re
import shlex
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from pydantic import TypeAdapter, ValidationError
from transformers import PreTrainedModel

from obert.experiment.guidelines import Value, as_yaml, by_guidelines
from obert.experiment.plan import Plan, PlannedRun
from obert.experiment.reading import validate
from obert.experiment.recipe import Recipe
from obert.experiment.recipes import RECIPES, load_method
from obert.experiment.schema import Model
from obert.experiment.strict import Sparsity
from obert.foundation import processes, registry
from obert.foundation.errors import UserError, unknown_name
from obert.foundation.files import check_place, write_text
from obert.models.encoders import load_pretrained
from obert.stages import stage
from obert.training.features import Features
from obert.training.pace import Pace, measure
from obert.training.schedules import check_steps, pruning_events, steps_per_epoch, total_steps

STAGE = "downstream"
SHORTEST = 0.1  # of dense fine-tuning, that a cycle is shortened to: below it, prune less
ABOUT = "Gradual pruning of {model} on {task} with {method}, by the guidelines of Kurtic, Hoefler and Alistarh (2023)."
HEADER = (
    "Written by `obert recipe` for {task} at {percent:g} %. The abstract of Kurtic, Hoefler and Alistarh (2023, arXiv "
    "2312.13547) names three guidelines: which components are pruned, schedules that scale with the sparsity, and "
    "distillation. Its values are not known to us; where these are from is said with each."
)


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
    """A recipe whose schedule scales, with the number of features that it trains on.

    Attributes:
        values: that it is made of.
    """

    values: tuple[Value, ...]
    recipe: Recipe
    features: int

    def work(self, sparsity: float) -> Work:
        """Of a run to a target.

        Raises:
            ValueError: there are too few cycles for it.
            UserError: two pruning events fall on one step.
        """
        plain = self.recipe.at(sparsity)
        epoch = steps_per_epoch(plain.training, self.features)
        events = pruning_events(plain.schedule, epoch, sparsity)
        check_steps(plain.training, self.features, events)
        return Work(self.recipe.scaling.cycles_at(sparsity), total_steps(plain.training, epoch), len(events))

    def highest(self, pace: Pace, minutes: float, below: float) -> float | None:
        """The highest sparsity, in whole percent, that a budget is long enough for; None if there is none."""
        for percent in range(math.ceil(100 * below) - 1, 0, -1):
            try:
                if self.work(percent / 100).minutes(pace) <= minutes:
                    return percent / 100
            except ValueError:  # so low that there is no cycle to prune in
                return None
        return None


@dataclass(frozen=True)
class Drafts:
    """The guidelines' recipes for a task, by the length of a cycle."""

    teacher: PlannedRun
    method: str
    layers: int
    features: int

    @property
    def about(self) -> str:
        """What a recipe says of itself."""
        return ABOUT.format(model=self.teacher.model.source, task=self.teacher.key.task, method=self.method)

    @property
    def whole(self) -> int:
        """Optimiser steps of dense fine-tuning, which a cycle is at the most."""
        training = self.teacher.recipe.training
        return max(1, int(training.epochs * steps_per_epoch(training, self.features)))

    @property
    def shortest(self) -> int:
        """Steps that a cycle is at the least."""
        return math.ceil(SHORTEST * self.whole)

    def of(self, steps: int) -> Draft:
        """The recipe whose cycles have so many steps."""
        dense, share = self.teacher.recipe, steps / self.whole
        values = by_guidelines(dense, self.method, self.layers, self.features, steps, share)
        written = as_yaml(values, self.about, self.teacher.key.recipe)
        recipe = validate(Recipe, yaml.safe_load(written), f"the recipe for {self.teacher.key.task}")
        return Draft(values, recipe, self.features)

    def longest(self, sparsity: float, pace: Pace, minutes: float | None) -> Draft:
        """The recipe with the longest cycles whose run to a target takes no more than so many minutes.

        Raises:
            UserError: even the one with the shortest cycles takes longer; with what would fit.
        """
        if minutes is None:
            return self.of(self.whole)
        steps = range(self.shortest, self.whole + 1)
        fitting = bisect_right(steps, minutes, key=lambda count: self.of(count).work(sparsity).minutes(pace))
        if fitting:
            return self.of(steps[fitting - 1])
        draft = self.of(self.shortest)
        work, highest = draft.work(sparsity), draft.highest(pace, minutes, sparsity)
        fits = "No sparsity fits" if highest is None else f"{100 * highest:g} % fits"
        share = 100 * self.shortest / self.whole
        raise UserError(
            f"--minutes {minutes:g} is too short for {100 * sparsity:g} %, even with cycles of {share:.0f} % of dense "
            f"fine-tuning: {_cost(work, pace)} {fits} into {minutes:g} minutes; {100 * sparsity:g} % takes --minutes "
            f"{_rounded(work.minutes(pace))}"
        )


def run(
    plan: Plan,
    config: Path,
    task: str,
    sparsity: float,
    method: str,
    model: str | None = None,
    minutes: float | None = None,
    name: str | None = None,
) -> str:
    """Write the recipe, and say where it is, what a run costs and how it is started.

    Args:
        config: the experiment's file, as commands name it.
        task: of the experiment.
        method: one of `guidelines.METHODS`.
        model: in place of the experiment's.
        minutes: what one run may take; cycles are shortened to fit.
        name: of the recipe, made of task and sparsity if not given.

    Raises:
        UserError: a name that cannot be, a recipe that is there already, or too few minutes.
    """
    if task not in plan.experiment.tasks:
        raise unknown_name("task", task, plan.experiment.tasks, plan.where)
    if not 0 < sparsity < 1:
        raise UserError(f"--sparsity {sparsity:g}: allowed is a fraction between 0 and 1, such as 0.9")
    if minutes is not None and not minutes > 0:
        raise UserError(f"--minutes {minutes:g}: allowed is what is above 0")
    try:
        TypeAdapter(Sparsity).validate_python(sparsity)
    except ValidationError as error:
        raise UserError(f"--sparsity {sparsity!r}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    name = name if name is not None else re.sub(r"\W", "_", f"guidelines_{task}_{100 * sparsity:g}")
    path = _new_file(name)
    teacher = _dense(plan, task, model)
    network, data = _load(teacher)
    drafts = Drafts(teacher, method, network.config.num_hidden_layers, len(data.features))
    recipe = drafts.of(drafts.whole).recipe
    stage(STAGE).check_recipe(recipe)
    try:
        drafts.of(drafts.whole).work(sparsity)
    except ValueError as error:
        raise UserError(f"--sparsity {sparsity:g}: {error}") from None
    loaded = load_method(method, recipe.methods[method], f"the recipe for {task}")
    print(f"timing {teacher.model.source} on {task}", flush=True)
    pace = measure(network, copy.deepcopy(network).eval(), data, recipe, loaded, teacher.seeds)
    draft = drafts.longest(sparsity, pace, minutes)
    cost = _cost(draft.work(sparsity), pace)
    header = f"{HEADER.format(task=task, percent=100 * sparsity)} {cost}"
    write_text(path, as_yaml(draft.values, drafts.about, teacher.key.recipe, header))
    return "\n".join(
        [f"{path}: written", cost, *_shortened(draft, drafts), *_how_to_run(config, name, method, task, sparsity)]
    )


def _new_file(name: str) -> Path:
    """Where the recipe is to be."""
    if not re.fullmatch(r"[a-z0-9_]{1,100}", name):
        raise UserError(f"--name {name}: a recipe's name has 1 to 100 lower-case letters, digits and underscores")
    outside = registry.folder()
    folders = [RECIPES] if outside is None else [outside / registry.RECIPES, RECIPES]
    for path in (folder / f"{name}.yaml" for folder in folders):
        if path.exists():
            raise UserError(f"recipe {path} is there already, and is not overwritten. Give another --name")
    path = folders[0] / f"{name}.yaml"
    check_place(path, f"--name {name}")
    return path


def _dense(plan: Plan, task: str, model: str | None) -> PlannedRun:
    """The run that makes the task's dense model."""
    if model is None:
        return plan.teacher(task)
    others = {name: known for name, known in plan.experiment.models.items() if name != task}
    changed = plan.experiment.model_copy(update={"model": Model(source=model), "models": others})
    return Plan.of(changed, plan.where).teacher(task)


def _load(dense: PlannedRun) -> tuple[PreTrainedModel, Features]:
    """The model that pruning starts from, with a new head, and the training features; sets torch's threads."""
    torch.set_num_threads(dense.experiment.threads)
    examples, task = dense.task.load()["train"], dense.task
    network, tokenizer = load_pretrained(dense.model, task.head, task.classes(examples))
    return network.to(processes.join()), Features.encode(task, examples, tokenizer)


def _shortened(draft: Draft, drafts: Drafts) -> list[str]:
    """How much shorter a cycle is than dense fine-tuning, if it is."""
    unit, whole = draft.recipe.scaling.unit_epochs, drafts.teacher.recipe.training.epochs
    return (
        [f"To fit, a cycle is {unit:.3g} epochs in place of {whole:g}: expect a lower score."] if unit < whole else []
    )


def _rounded(minutes: float) -> str:
    """Two digits, rounded up."""
    unit = 10 ** (math.floor(math.log10(minutes)) - 1)
    return f"{math.ceil(minutes / unit) * unit:.10g}"


def _cost(work: Work, pace: Pace) -> str:
    """In words, with how it was found."""
    drawn = f", events with up to {pace.gradients} gradients" if pace.gradients else ", an event"
    return (
        f"One run takes about {_rounded(work.minutes(pace))} minutes: {work.cycles} cycles, {work.steps:,} optimiser "
        f"steps of {pace.step:.2g} s, distillation included, and {work.events} pruning events of {pace.event:.2g} s. "
        f"Timed on this machine with the task's own data: {pace.steps} steps{drawn}. The dense model's own training is "
        "not in it."
    )


def _how_to_run(config: Path, name: str, method: str, task: str, sparsity: float) -> list[str]:
    where = shlex.quote(str(config))
    return [
        f"To run it, add this to 'downstream' of {config}:",
        f"  - {{recipes: [{name}], methods: [{method}], tasks: [{task}], sparsities: [{sparsity:g}]}}",
        f"python -m obert plan --config {where} --recipe {name}",
        f"snakemake --cores all --configfile {where}",
    ]
