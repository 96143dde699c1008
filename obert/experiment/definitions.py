"""What an experiment's names stand for: recipes, methods and tasks, each resolved once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from obert.experiment.recipes import load_method, load_recipe, load_task
from obert.experiment.schema import Experiment, Grid
from obert.foundation import registry
from obert.foundation.errors import UserError

if TYPE_CHECKING:
    from obert.experiment.recipe import Recipe
    from obert.pruning import Method
    from obert.tasks import Task


class Definitions:
    """The recipes, methods and tasks of an experiment, read when they are first asked for."""

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self._recipes: dict[tuple[str, str], Recipe] = {}
        self._methods: dict[tuple[str, str], Method] = {}
        self._tasks: dict[str, Task] = {}

    def recipe(self, name: str, task: str, where: str = "", stage: str | None = None) -> Recipe:
        """A recipe as the experiment runs it on a task, with `recipe_overrides.<task>.<recipe>` on top.

        Args:
            stage: that the recipe has to be for, if that matters.

        Raises:
            UserError: no such recipe, a mistake in it, or a recipe for another stage.
        """
        overrides = self.experiment.recipe_overrides.get(task, {}).get(name)
        identity = name, json.dumps(overrides, sort_keys=True)
        if identity not in self._recipes:
            place = where or f"experiment {self.experiment.name}, task {task}"
            self._recipes[identity] = load_recipe(name, place, overrides)
        recipe = self._recipes[identity]
        if stage is not None and recipe.stage != stage:
            raise UserError(f"{where}: recipe '{name}' is for stage '{recipe.stage}', not '{stage}'")
        return recipe

    def method(self, name: str, recipe: Recipe, where: str = "") -> Method:
        """A pruning method with the parameters that a recipe gives it."""
        parameters = recipe.methods.get(name, {})
        identity = name, json.dumps(parameters, sort_keys=True)
        if identity not in self._methods:
            self._methods[identity] = load_method(name, parameters, where)
        return self._methods[identity]

    def task(self, name: str, where: str = "") -> Task:
        """A task with its options."""
        if name not in self._tasks:
            place = where or f"experiment {self.experiment.name}, tasks.{name}"
            self._tasks[name] = load_task(name, self.experiment.options_of(name), place)
        return self._tasks[name]

    def methods_of(self, block: Grid, recipe: Recipe) -> tuple[str, ...]:
        """The methods that a block of the grid runs with a recipe: its own list, all, or those the recipe has
        parameters for.

        "all" leaves out of one-shot pruning what learns its scores in training.
        """
        if block.methods != "all":
            return block.methods or tuple(recipe.methods)
        names = registry.names("pruning")
        return tuple(n for n in names if not (recipe.is_one_shot and self.method(n, recipe).steps_needed()))
