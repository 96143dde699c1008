"""The plan: every run of an experiment, resolved once. Snakemake, commands, sweeps and tables go through it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from obert.experiment.definitions import Definitions
from obert.experiment.folders import checkpoint_folder, run_folder
from obert.experiment.keys import RunKey
from obert.experiment.reading import validate
from obert.experiment.recipes import require_sweep
from obert.experiment.schema import Experiment, Model, OnTasks
from obert.experiment.seeds import PURPOSES, derive_seed
from obert.experiment.yaml_file import read_yaml
from obert.foundation import registry
from obert.foundation.errors import UserError, unknown_name
from obert.foundation.files import json_hash
from obert.records.record import MODEL
from obert.stages import Stage, stage, stages

if TYPE_CHECKING:
    from obert.experiment.recipe import Recipe
    from obert.pruning import Method
    from obert.tasks import Task


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """A run with all that it takes to make it.

    Attributes:
        experiment: whose run it is.
        stage: makes it.
        sources: the runs it is made from, by role.
        task: with its options.
        recipe: with the experiment's overrides; None for a stage that does not train.
        method: with its parameters; None for what is not pruned, and for a stage that does not train.
        config: the experiment's file, if it has one.
    """

    experiment: Experiment
    key: RunKey
    stage: Stage
    sources: Mapping[str, PlannedRun]
    task: Task
    recipe: Recipe | None
    method: Method | None
    config: str | None = None

    @property
    def folder(self) -> Path:
        """Where the run's record and its files are."""
        return run_folder(self.experiment, self.key)

    @property
    def model(self) -> Model:
        """The encoder that the task's runs start from."""
        return self.experiment.model_of(self.key.task)

    @property
    def checkpoints(self) -> Path:
        """Where the run keeps its training checkpoints."""
        return checkpoint_folder(self.experiment, self.key)

    def drop_checkpoints(self) -> None:
        """Delete its checkpoints: its result is safe, and nothing more is to come that could make the run a failure."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    @property
    def made_from(self) -> tuple[PlannedRun, ...]:
        """Its sources, each once."""
        return tuple(dict.fromkeys(self.sources.values()))

    @property
    def family(self) -> str:
        """Whether the model's recipe follows a paper or compares methods in equal terms; empty without a recipe."""
        if self.recipe is not None:
            return self.recipe.family
        return self.sources[MODEL].family if MODEL in self.sources else ""

    @property
    def task_kind(self) -> str:
        """The name of the extension that its task is."""
        return self.task.kind or self.key.task

    @cached_property
    def seeds(self) -> dict[str, int]:
        """Seed by purpose."""
        key = self.key
        return {p: derive_seed(self.experiment.base_seed, key.task, key.seed, p) for p in PURPOSES}

    @cached_property
    def specification(self) -> dict[str, Any]:
        """Everything that decides the run's result, defaults filled in.

        Only what the run itself uses is in it, so a change elsewhere in the configuration reruns nothing.
        """
        return {
            "key": self.key.as_dict(),
            "task": self.task.model_dump(mode="json"),
            "threads": self.experiment.threads,
            **self.stage.settings(self),
        }

    @cached_property
    def specification_hash(self) -> str:
        """sha256 of the specification; part of the record."""
        return json_hash(self.specification)

    @cached_property
    def code_hash(self) -> str:
        """Hash of the code that makes the run; part of the record."""
        return self.stage.code(self)


class Plan:
    """The runs of an experiment, stage by stage, in the order of its configuration.

    Attributes:
        where: how a message names the experiment: its file, if it has one.
        config: the file, if it has one.
        definitions: recipes, methods and tasks.
        runs: by key.
    """

    def __init__(self, experiment: Experiment, where: str, block_where: str | None = None, config: str | None = None):
        self.experiment = experiment
        self.where = where
        self.config = config
        self._block_where = block_where
        self.definitions = Definitions(experiment)
        self.runs: dict[RunKey, PlannedRun] = {}
        self._by_stage: dict[str, list[PlannedRun]] = {}

    @classmethod
    def load(cls, path: Path | str) -> Plan:
        """The plan of the experiment in a file, with every name, recipe, option and parameter in it checked.

        Raises:
            UserError: any mistake, with file and key.
        """
        experiment = validate(Experiment, read_yaml(Path(path)), str(path))
        registry.use_folder(experiment.extensions, f"{path}, extensions")
        plan = cls.of(experiment, str(path), config=str(path))
        plan._check_names()
        return plan

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        where: str | None = None,
        block_where: str | None = None,
        config: str | None = None,
    ) -> Plan:
        """The plan of an experiment.

        Args:
            where: how a message names the experiment, by its name if not given.
            block_where: how a message names a block, by its section and number if not given.
            config: the experiment's file, if it has one.

        Raises:
            UserError: a name, recipe, option or combination that its runs cannot be made with.
        """
        plan = cls(experiment, where or f"experiment {experiment.name}", block_where, config)
        for name in experiment.tasks:
            plan.definitions.task(name, f"{plan.where}, tasks.{name}")
        for each in stages():
            plan._add(each)
        return plan

    def _add(self, stage: Stage) -> None:
        own = self._by_stage[stage.name] = []
        for key, sources in stage.plan(self):
            if key in self.runs:
                continue
            recipe = method = None
            if stage.trains:
                recipe = self.definitions.recipe(key.lineage[0], key.task)
                if key.method is not None:
                    recipe = recipe.at(key.sparsity, key.method)
                    method = self.definitions.method(key.method, recipe, f"recipe {key.recipe}, methods.{key.method}")
            task = self.definitions.task(key.task)
            self.runs[key] = PlannedRun(self.experiment, key, stage, sources, task, recipe, method, self.config)
            own.append(self.runs[key])

    def __iter__(self) -> Iterator[PlannedRun]:
        return iter(self.runs.values())

    def __len__(self) -> int:
        return len(self.runs)

    def __getitem__(self, key: RunKey) -> PlannedRun:
        return self.runs[key]

    def of_stage(self, *names: str) -> tuple[PlannedRun, ...]:
        """The runs of some stages."""
        return tuple(run for name in names for run in self._by_stage.get(name, ()))

    @property
    def trained(self) -> tuple[PlannedRun, ...]:
        """The runs that end with a trained model."""
        return tuple(run for run in self if run.stage.trains)

    @property
    def on_tasks(self) -> tuple[PlannedRun, ...]:
        """The runs that end with a model on a task, other than the task's teacher."""
        return tuple(run for run in self if run.stage.on_task)

    def teacher(self, task: str) -> PlannedRun:
        """The dense teacher of a task: one, from the first seed, for every method and seed."""
        return next(run for run in self.of_stage("teacher") if run.key.task == task)

    def place(self, section: str, index: int) -> str:
        """How a message names a block of the experiment."""
        return self._block_where or f"{self.where}, {section}.{index}"

    def tasks_of(self, block: OnTasks, where: str, from_upstream: bool = False) -> tuple[str, ...]:
        """The tasks that a block is run on.

        Args:
            from_upstream: whether its runs start from upstream models, which are made of the experiment's own encoder.

        Raises:
            UserError: one that the experiment does not have, or one of another encoder than the upstream models'.
        """
        for name in block.tasks:
            if name not in self.experiment.tasks:
                raise unknown_name("task", name, self.experiment.tasks, f"{where}.tasks")
            if from_upstream and name in self.experiment.models:
                raise UserError(
                    f"{where}.tasks: '{name}' has an encoder of its own (models.{name}), and upstream models are made "
                    "of the experiment's. Leave it out, or start from the pre-trained model"
                )
        tasks = self.experiment.tasks_of(block)
        return tuple(name for name in tasks if not (from_upstream and name in self.experiment.models))

    def recipes_on(self, task: str) -> set[str]:
        """The recipes that are run on a task."""
        return {run.key.lineage[0] for run in self if run.key.task == task and run.stage.trains}

    def find(self, stage: str, **chosen: Any) -> PlannedRun:
        """The run of a stage with the given task, recipe, method, sparsity and seed.

        Raises:
            UserError: the experiment has no such run, or several; the candidates are listed.
        """
        candidates = self.of_stage(stage)
        wanted = {name: value for name, value in chosen.items() if value is not None}
        matching = [r for r in candidates if all(getattr(r.key, name) == value for name, value in wanted.items())]
        if len(matching) == 1:
            return matching[0]
        asked = " ".join(f"--{name} {value}" for name, value in wanted.items())
        listed = "\n  ".join(run.key.arguments for run in (matching or candidates)[:20])
        problem = f"{len(matching)} runs match; name one of them" if matching else "names no run. There are"
        raise UserError(f"experiment '{self.experiment.name}', stage {stage}: {asked} {problem}:\n  {listed}")

    def chosen(self, by: Mapping[str, Any]) -> list[PlannedRun]:
        """The runs with the given task, recipe and so on; None stands for any.

        Raises:
            UserError: there is none.
        """
        wanted = {name: value for name, value in by.items() if value is not None}
        runs = [run for run in self if all(getattr(run.key, name) == value for name, value in wanted.items())]
        if runs:
            return runs
        asked = " ".join(f"--{name} {value}" for name, value in wanted.items())
        there = {name: dict.fromkeys(getattr(run.key, name) for run in self) for name in wanted}
        listed = "; ".join(
            f"{name} {', '.join(str(value) for value in values if value is not None)}"
            for name, values in there.items()
            if any(value is not None for value in values)
        )
        raise UserError(f"experiment '{self.experiment.name}' plans no run with {asked}. It has {listed}")

    def _check_names(self) -> None:
        """Raise UserError for a name in the experiment that no stage has looked up."""
        experiment = self.experiment
        tasks = (*experiment.tasks, *([experiment.upstream.task] if experiment.upstream else []))
        for task, overrides in experiment.recipe_overrides.items():
            if task not in tasks:
                raise unknown_name("task", task, tasks, f"{self.where}, recipe_overrides")
            known = self.recipes_on(task)
            for name in overrides:
                if name not in known:
                    raise unknown_name("recipe", name, known, f"{self.where}, recipe_overrides.{task}")
        for name in experiment.stages:
            known = stage(name, f"{self.where}, stages")
            if known.block is None or type(known).blocks is not Stage.blocks:
                raise UserError(
                    f"{self.where}, stages.{name}: stage {name} takes no blocks here. Those of the project's own "
                    "stages have keys of their own: see docs/reference/configuration.md"
                )
        for name in experiment.sweeps:
            require_sweep(name, f"{self.where}, sweeps")
        if experiment.tables != "all":
            for table in experiment.tables:
                registry.require("tables", table, f"{self.where}, tables")
