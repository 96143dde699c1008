"""The stages of the DAG, one file each: which runs there are, what each is made from, and how it is made.

A stage's file imports neither torch nor transformers at its top, since every plan reads all of them; `run` does.
"""

from __future__ import annotations

import argparse
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, ClassVar

from obert.experiment.keys import RunKey
from obert.experiment.reading import validate
from obert.experiment.schema import OnTasks
from obert.foundation import registry
from obert.foundation.code_identity import code_hash
from obert.foundation.errors import UserError, unknown_name
from obert.models import architectures
from obert.records.record import MODEL

if TYPE_CHECKING:
    from obert.experiment.plan import Plan, PlannedRun
    from obert.experiment.recipe import Recipe
    from obert.experiment.schema import Experiment
    from obert.records.record import Record

Sources = Mapping[str, "PlannedRun"]
TRAINING = "training"  # in `Stage.after`: every stage that trains
TEACHER = "teacher"  # the role of the run that is distilled from


class Stage(ABC):
    """A stage. The first line of its docstring is its help on the command line.

    Attributes:
        name: of its file; set where it is loaded.
        after: stages whose runs this one's are made from; `TRAINING` stands for all that train.
        trains: whether a run ends with a trained model in the folder `model`.
        upstream: whether that model is made before any task.
        on_task: whether that model is on a task, and is compared there with the task's teacher.
        prunes: whether the method of a run's key prunes in this stage (and not in one before it).
        block: schema of a block of an experiment's configuration, None for a stage that has none.
        recipe_fields: fields of a recipe that this stage alone reads.
        folders, files: what a run leaves beside its record, by a name of its own.
        exclusive: whether a run takes all cores, because it measures time.
        memory_mb, minutes: what a job asks a cluster for.
    """

    name: str
    after: ClassVar[tuple[str, ...]] = ()
    trains: ClassVar[bool] = False
    upstream: ClassVar[bool] = False
    on_task: ClassVar[bool] = False
    prunes: ClassVar[bool] = False
    block: ClassVar[type[OnTasks] | None] = None
    recipe_fields: ClassVar[tuple[str, ...]] = ()
    folders: ClassVar[dict[str, str]] = {}
    files: ClassVar[dict[str, str]] = {}
    exclusive: ClassVar[bool] = False
    memory_mb: ClassVar[int] = 3000
    minutes: ClassVar[int] = 60

    @abstractmethod
    def plan(self, plan: Plan) -> Iterator[tuple[RunKey, Sources]]:
        """The stage's runs, each with the runs that it is made from, by role.

        Called when the runs of all stages in `after` are in the plan. A run that is named twice is made once.

        Raises:
            UserError: a mistake in the experiment, with the place in `plan.where`.
        """

    @abstractmethod
    def run(self, planned: PlannedRun) -> Record | None:
        """Make a run: read its sources, work, write its files and, last, its record.

        Returns:
            The record; None in all but the first of several processes.
        """

    @property
    def help(self) -> str:
        """One line on what the stage does."""
        return inspect.getdoc(type(self)).splitlines()[0].rstrip(".")

    def check_recipe(self, recipe: Recipe) -> None:
        """Raise ValueError if a recipe for this stage contradicts itself, or sets what is another stage's."""
        if "scope" in recipe.model_fields_set and not self.prunes:
            raise ValueError("'scope' belongs to recipes that prune: what was pruned before is held as it is")
        if recipe.scaling is not None and not self.prunes:
            raise ValueError("'scaling' goes by the sparsity that a run prunes to: leave it out of what does not prune")
        for other in stages():
            for field in set(other.recipe_fields) - set(self.recipe_fields):
                if getattr(recipe, field) is not None:
                    raise ValueError(f"'{field}' belongs to recipes of stage {other.name}: leave it out")

    def blocks(self, experiment: Experiment) -> tuple[Any, ...]:
        """The stage's blocks in an experiment: by default those under `stages.<name>`."""
        where = f"experiment {experiment.name}, stages.{self.name}"
        return tuple(validate(self.block, content, where) for content in experiment.stages.get(self.name, ()))

    def with_blocks(self, experiment: Experiment, blocks: tuple[Any, ...]) -> Experiment:
        """An experiment with other blocks of this stage."""
        contents = tuple(block.model_dump() for block in blocks)
        return experiment.model_copy(update={"stages": {**experiment.stages, self.name: contents}})

    def settings(self, planned: PlannedRun) -> dict[str, Any]:
        """What decides a run's result besides its key, its task and the threads: part of the specification."""
        return {}

    def code(self, planned: PlannedRun) -> str:
        """Hash of the code that makes a run."""
        method = planned.key.method if self.prunes else None
        return code_hash(stages=self.name, tasks=planned.task_kind, pruning=method, **architectures.code())

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:  # noqa: B027 (most stages add none)
        """Add command-line arguments of the stage's own."""

    def run_by_hand(self, arguments: argparse.Namespace) -> str | None:
        """Do what the stage's own arguments ask for, without an experiment; None if they ask for nothing."""
        return None


class TrainingStage(Stage):
    """A stage whose runs end with a trained model; recipe and method are part of their specification."""

    trains = True
    folders = {MODEL: MODEL}
    minutes = 1440

    def settings(self, planned: PlannedRun) -> dict[str, Any]:
        """The model, the seed that others are derived from, the recipe, and what its method prunes with."""
        experiment = planned.experiment
        settings: dict[str, Any] = {
            "model": planned.model.model_dump(mode="json"),
            "base_seed": experiment.base_seed,
            "recipe": planned.recipe.model_dump(mode="json", exclude={"description", "source", "methods", "family"}),
        }
        if planned.method is not None and self.prunes:
            settings["method"] = planned.method.model_dump(mode="json")
        return settings


@cache
def _loaded(kind: type[Stage], name: str) -> Stage:
    place = f"stage '{name}' ({inspect.getfile(kind)})"
    if missing := sorted(kind.__abstractmethods__):
        raise UserError(f"{place} lacks {', '.join(missing)}")
    if kind.block is not None and not issubclass(kind.block, OnTasks):
        raise UserError(f"{place}: its block must be a subclass of OnTasks, whose tasks and seeds sweeps set")
    stage = kind()
    stage.name = name
    return stage


def stage(name: str, where: str = "") -> Stage:
    """The stage of a name. Raises UserError if there is none, with the closest name, or if it is not whole."""
    return _loaded(registry.load("stages", name, where), name)


def _made_from() -> dict[str, set[str]]:
    """By name of every stage, the names of those in its `after`, with `TRAINING` spelled out.

    Raises:
        UserError: a stage is not whole, or stands behind one that there is not.
    """
    found = {name: stage(name) for name in registry.names("stages")}
    trained = {name for name, known in found.items() if known.trains}
    before = {}
    for name, known in found.items():
        before[name] = set(known.after) - {TRAINING} | (trained if TRAINING in known.after else set())
        for other in before[name] - set(found):
            raise unknown_name("stage", other, found, f"'after' of stage '{name}'")
    return before


def stages_before(name: str) -> set[str]:
    """Names of the stages that a stage's runs are made from, in one step or several."""
    before, found, pending = _made_from(), set(), [name]
    while pending:
        new = before[pending.pop()] - found
        found |= new
        pending += new
    return found


def stages() -> tuple[Stage, ...]:
    """Every stage, each behind those that its runs are made from; otherwise by name.

    Raises:
        UserError: one is not whole, or stands behind itself or one that there is not.
    """
    sorter = TopologicalSorter(_made_from())
    try:
        sorter.prepare()
    except CycleError as error:
        raise UserError(f"stages wait for one another: {' -> '.join(error.args[1])}. Mend their 'after'") from None
    ordered: list[Stage] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        ordered += [stage(name) for name in ready]
        sorter.done(*ready)
    return tuple(ordered)
