"""Sweeps: what of a recipe is searched, the plans that its trials are, and the recipe that it ends in.

A trial is an ordinary run, or several, of an experiment whose tasks hold out a part of their training examples in place
of validation. Its teachers, and the models it quantises, are trained without that part too; upstream models are the
experiment's own, as they are made before any task.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from obert.experiment import folders
from obert.experiment.plan import Plan, PlannedRun
from obert.experiment.reading import merge, validate
from obert.experiment.recipe import Recipe
from obert.experiment.recipes import load_recipe
from obert.experiment.schema import Experiment
from obert.experiment.yaml_file import read_yaml
from obert.foundation.errors import UserError, unknown_name
from obert.foundation.files import json_hash
from obert.stages import Stage, stage, stages, stages_before
from obert.sweeps.schema import NOT_SEARCHED, Sweep, Value


@dataclass(frozen=True)
class Search:
    """A sweep and the plan of its experiment.

    Attributes:
        path: the sweep's file.
        original: the plan of the experiment, as its own file has it.
    """

    path: Path
    sweep: Sweep
    original: Plan

    @property
    def folder(self) -> Path:
        """Where journal, trials, figures and recipe are."""
        return folders.sweep_folder(self.sweep.name)

    @property
    def stage(self) -> Stage:
        """The stage that is run."""
        return stage(self.sweep.stage)

    @cached_property
    def _experiment(self) -> Experiment:
        """The experiment with a part of its training data held out, and its own seeds."""
        sweep, experiment = self.sweep, self.original.experiment
        experiment = experiment.model_copy(
            update={
                "name": f"sweeps/{sweep.name}/sources",
                "tasks": {name: {**o, "held_out": sweep.held_out} for name, o in experiment.tasks.items()},
                "seeds": sweep.block.seeds or (sweep.seed,),
                "benchmark": None,
            }
        )
        before = stages_before(self.stage.name)
        for other in stages():  # those that trials may start from stay, with the sweep's seeds
            if other.block is None:
                continue
            blocks = other.blocks(experiment) if other.name in before else ()
            if other is self.stage:
                blocks = (sweep.block,)
            experiment = other.with_blocks(experiment, tuple(b.model_copy(update={"seeds": ()}) for b in blocks))
        return experiment

    @cached_property
    def held_out(self) -> Plan:
        """The plan of the experiment with a part of its training data held out: what trials start from is in it."""
        return Plan.of(self._experiment, f"{self.path}", f"{self.path}, {self.stage.name}")

    @cached_property
    def levels(self) -> tuple[tuple[PlannedRun, ...], ...]:
        """The runs of a trial, those of one sparsity together, the highest first."""
        runs = sorted(self.held_out.of_stage(self.stage.name), key=lambda run: -(run.key.sparsity or 0.0))
        return tuple(tuple(level) for _, level in itertools.groupby(runs, key=lambda run: run.key.sparsity))

    @property
    def runs(self) -> tuple[PlannedRun, ...]:
        """The runs of a trial."""
        return tuple(itertools.chain(*self.levels))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of a trial's runs."""
        return self.original.experiment.tasks_of(self.sweep.block)

    @cached_property
    def points(self) -> tuple[dict[str, Value], ...]:
        """A grid's points in the order that they are tried; none of sampler tpe."""
        if self.sweep.sampler == "tpe":
            return ()
        points: list[dict[str, Value]] = [{}]
        for key, parameter in self.sweep.space.items():
            points = [
                {**point, **more}
                for point in points
                for more in ([{key: value} for value in parameter.points] if parameter.is_tried(point) else [{}])
            ]
        return tuple(points)

    @property
    def budget(self) -> int:
        """Trials, those not counted that are run again after their worker died."""
        return self.sweep.trials or len(self.points)

    def with_values(self, values: dict[str, Value]) -> Plan:
        """The plan with values in place of the recipe's own. Raises UserError for values that make no valid recipe."""
        base, overrides = self.sweep.base, dict(self._experiment.recipe_overrides)
        for task in self.tasks:
            own = overrides.get(task, {})
            overrides[task] = {**own, base: merge(own.get(base, {}), nested(values))}
        experiment = self._experiment.model_copy(update={"recipe_overrides": overrides})
        return Plan.of(experiment, f"{self.path}, space", f"{self.path}, space")

    def trial(self, values: dict[str, Value]) -> tuple[tuple[PlannedRun, ...], ...]:
        """The runs of a trial by level. Each has a folder of its own, by the hash of its specification, and starts from
        the runs that all trials share."""
        plan = self.with_values(values)
        return tuple(tuple(self._run(plan[run.key]) for run in level) for level in self.levels)

    def _run(self, run: PlannedRun) -> PlannedRun:
        name = f"sweeps/{self.sweep.name}/{run.specification_hash[:16]}"
        shared = {role: self.source(source) for role, source in run.sources.items()}
        return replace(run, experiment=run.experiment.model_copy(update={"name": name}), sources=shared)

    def source(self, run: PlannedRun) -> PlannedRun:
        """The run that stands for a source of a trial's run: made once for all trials, or upstream the experiment's."""
        if run.stage.upstream:
            return self.original[replace(run.key, seed=self.original.experiment.seeds[0])]
        own = self.held_out[run.key]
        return replace(own, sources={role: self.source(source) for role, source in own.sources.items()})

    def recipe_content(self, values: dict[str, Value], source: str) -> dict[str, Any]:
        """A recipe's file: the base recipe, as the experiment runs it, with a trial's values.

        Args:
            source: what is said of where the values are from.
        """
        base = self.original.definitions.recipe(self.sweep.base, self.tasks[0])
        content: dict[str, Any] = {
            "extends": self.sweep.base,
            "description": f"{base.description} Values of the sweep {self.sweep.name}.",
            "source": source,
        }
        if base.family == "as published":
            content["family"] = "equal terms"
        return merge(content, merge(self.overrides_of(self.tasks[0]), nested(values)))

    def recipe(self, content: dict[str, Any]) -> Recipe:
        """The recipe that a file with this content is. Raises UserError as `load_recipe`."""
        changes = {key: value for key, value in content.items() if key != "extends"}
        return load_recipe(content["extends"], f"{self.path}, recipe {self.sweep.recipe}", changes)

    def overrides_of(self, task: str) -> dict[str, Any]:
        """What the experiment changes in the base recipe on a task."""
        return self.original.experiment.recipe_overrides.get(task, {}).get(self.sweep.base, {})

    @property
    def upstream_sources(self) -> tuple[PlannedRun, ...]:
        """The experiment's own upstream runs that trials start from."""
        return tuple(run for run in self.sources if run.stage.upstream)

    @cached_property
    def identity(self) -> str:
        """Hash of all that decides the trials: what is searched and how, and the runs with their code and sources."""
        sweep = self.sweep.model_dump(mode="json", include={"space", "sampler", "seed", "stop_early"})
        runs = [(run.specification, run.code_hash) for run in (*self.runs, *self.sources)]
        return json_hash([sweep, runs])[:12]

    @cached_property
    def sources(self) -> tuple[PlannedRun, ...]:
        """The runs that a trial's are made from, those that others need first."""
        found: dict[Any, PlannedRun] = {}

        def add(run: PlannedRun) -> None:
            for source in run.made_from:
                own = self.source(source)
                if not own.stage.upstream:
                    add(source)
                found.setdefault(own.key, own)

        for run in self.runs:
            add(run)
        return tuple(found.values())


def nested(values: dict[str, Value]) -> dict[str, Any]:
    """Values by dotted key as mappings in mappings."""
    content: dict[str, Any] = {}
    for key, value in values.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        content = merge(content, value)
    return content


def load_sweep(path: Path | str) -> Search:
    """The sweep in a file, with every name, key and point in it checked.

    Raises:
        UserError: any mistake, with file and key.
    """
    path = Path(path)
    content = read_yaml(path)
    if isinstance(content.get("experiment"), str):  # first, as the stage that is swept may be from its extensions
        original = Plan.load(content["experiment"])
    sweep = validate(Sweep, content, str(path))
    search = Search(path, sweep, original)
    where = f"{path}, {sweep.stage}"
    if sweep.stage == "transfer" and search.original.experiment.upstream is None:
        raise UserError(f"{where}: {sweep.experiment} has no 'upstream' models to transfer")
    if search.stage.prunes:
        _check_method(search, where)
    if not search.runs:
        raise UserError(f"{where}: {sweep.experiment} has no such model to start from")
    _check_seeds(search)
    first = search.tasks[0]
    for task in search.tasks[1:]:
        if search.overrides_of(task) != search.overrides_of(first):
            raise UserError(
                f"{where}.tasks: {sweep.experiment} runs recipe '{sweep.base}' with other recipe_overrides on '{task}' "
                f"than on '{first}', and the sweep ends in one recipe. Sweep one of them at a time."
            )
    if sweep.stop_early and len(search.levels) < 2:
        raise UserError(f"{path}, stop_early: only a trial with several sparsities has a score before its end")
    if sweep.recipe == sweep.base:
        raise UserError(f"{path}, recipe: '{sweep.recipe}' is what the sweep starts from; choose another name")
    _check_space(search)
    return search


def _check_method(search: Search, where: str) -> None:
    """One method, and no key of another's."""
    sweep = search.sweep
    methods = tuple(dict.fromkeys(run.key.method for run in search.runs))
    if len(methods) != 1:
        raise UserError(f"{where}.methods: a sweep is for one method, found {', '.join(methods)}")
    for key in sweep.space:
        root, *rest = key.split(".")
        if root == "methods" and rest[:1] != list(methods):
            raise unknown_name("method", ".".join(rest[:1]), methods, f"{search.path}, space.{key}")


def _check_seeds(search: Search) -> None:
    """The recipe is to be run with seeds that did not choose it."""
    experiment = search.original.experiment
    blocks = [block for known in stages() if known.block is not None for block in known.blocks(experiment)]
    taken = {*experiment.seeds, *(seed for block in blocks for seed in block.seeds)}
    if both := sorted(taken & set(search.held_out.experiment.seeds)):
        raise UserError(
            f"{search.path}: seed {both[0]} is one of {search.sweep.experiment}'s, with which the recipe is to be run "
            "afterwards. Choose another 'seed'."
        )


def _check_space(search: Search) -> None:
    """Every point of a grid, or the lowest and the highest values together, make recipes that the block can run."""
    where, space = f"{search.path}, space", search.sweep.space
    for key in space:
        if key.split(".")[0] in NOT_SEARCHED:
            raise unknown_name("key", key, set(Recipe.model_fields) - NOT_SEARCHED, where)
    ends: list[dict[str, Value]] = [{}, {}]
    for i, point in enumerate(ends):
        for key, parameter in space.items():
            if parameter.is_tried(point):
                point[key] = parameter.ends[i]
    for values in search.points or ends:
        search.with_values(values)
