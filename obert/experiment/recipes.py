"""Recipes, methods and tasks by name, with their parameters checked."""

from pathlib import Path
from typing import Any

from obert.experiment.reading import merge, read_yaml, validate
from obert.experiment.recipe import Recipe
from obert.experiment.schema import Experiment, Grid
from obert.foundation import registry
from obert.foundation.errors import UserError, unknown_name

RECIPES, SWEEPS = Path("configs/recipes"), Path("configs/sweeps")


def _recipe_content(name: str, where: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    path = RECIPES / f"{name}.yaml"
    if not path.is_file():
        raise unknown_name("recipe", name, [p.stem for p in RECIPES.glob("*.yaml")], where)
    if name in seen:
        raise UserError(f"{path}: 'extends' goes in a circle: {' -> '.join((*seen, name))}")
    content = read_yaml(path)
    parent = content.pop("extends", None)
    return content if parent is None else merge(_recipe_content(parent, f"{path}, extends", (*seen, name)), content)


def load_recipe(name: str, where: str = "", overrides: dict[str, Any] | None = None) -> Recipe:
    """The recipe in `configs/recipes/<name>.yaml`, laid over the recipe it `extends`, with `overrides` on top."""
    content = merge(_recipe_content(name, where), overrides or {})
    place = f"{RECIPES / name}.yaml" + (f" with the overrides of {where}" if overrides else "")
    recipe = validate(Recipe, content, place)
    for method, parameters in recipe.methods.items():
        load_method(method, parameters, f"{place}, methods.{method}")
    return recipe


def load_method(name: str, parameters: dict[str, Any], where: str):
    """A pruning method with its parameters checked against its own schema."""
    return validate(registry.load("pruning", name, where), parameters, where)


def load_task(name: str, options: dict[str, Any], where: str):
    """A task with its options checked against its own schema."""
    return validate(registry.load("tasks", name, where), options, where)


def recipe_for(experiment: Experiment, name: str, task: str, where: str = "") -> Recipe:
    """A recipe as this experiment runs it on a task, with `recipe_overrides.<task>.<recipe>` on top.

    Args:
        name: a recipe's file, or `<file>@<recipe>`, as runs that start from another's model are named.
    """
    file = name.partition("@")[0]
    overrides = experiment.recipe_overrides.get(task, {}).get(file)
    return load_recipe(file, where or f"experiment {experiment.name}, task {task}", overrides)


def methods_of(block: Grid, recipe: Recipe) -> tuple[str, ...]:
    """The methods that a block of the grid runs with a recipe: its own list, all, or the one the recipe is for.

    "all" leaves out of one-shot pruning what learns its scores in training.
    """
    if block.methods == "all":
        names = registry.names("pruning")
        return tuple(name for name in names if not (recipe.is_one_shot and method_of(recipe, name).steps_needed()))
    return block.methods or tuple(recipe.methods)


def method_of(recipe: Recipe, name: str, where: str = ""):
    """A pruning method with the parameters that a recipe gives it."""
    return load_method(name, recipe.methods.get(name, {}), where)
