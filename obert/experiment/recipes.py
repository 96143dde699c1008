"""Recipes, methods and tasks by name, with their parameters checked."""

from pathlib import Path
from typing import Any

from obert.experiment.reading import merge, validate
from obert.experiment.recipe import Recipe
from obert.experiment.scaling import check_unscaled
from obert.experiment.yaml_file import read_yaml
from obert.foundation import registry
from obert.foundation.errors import UserError, unknown_name
from obert.stages import stage

RECIPES, SWEEPS = Path("configs/recipes"), Path("configs/sweeps")


def recipe_file(name: str, where: str = "") -> Path:
    """The file of a recipe: in `configs/recipes`, or in `recipes` of the folder that the experiment takes extensions
    from.

    Raises:
        UserError: there is no such recipe, or there are two.
    """
    outside = registry.folder()
    folders = [RECIPES] if outside is None else [outside / registry.RECIPES, RECIPES]
    found = [path for path in (folder / f"{name}.yaml" for folder in folders) if path.is_file()]
    if not found:
        if not RECIPES.is_dir():
            raise UserError(
                f"there is no folder {RECIPES} below {Path.cwd()}: configurations, recipes and results are looked for "
                "from the working directory. Change to the project's folder, and run the same command there"
            )
        raise unknown_name("recipe", name, [path.stem for folder in folders for path in folder.glob("*.yaml")], where)
    if len(found) > 1:
        raise UserError(f"recipe '{name}' is there twice: {' and '.join(map(str, found))}. Rename one of them")
    return found[0]


def _recipe_content(name: str, where: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    path = recipe_file(name, where)
    if name in seen:
        raise UserError(f"{path}: 'extends' goes in a circle: {' -> '.join((*seen, name))}")
    content = read_yaml(path)
    parent = content.pop("extends", None)
    return content if parent is None else merge(_recipe_content(parent, f"{path}, extends", (*seen, name)), content)


def load_recipe(name: str, where: str = "", overrides: dict[str, Any] | None = None) -> Recipe:
    """The recipe of a name, laid over the recipe it `extends`, with `overrides` on top."""
    content = merge(_recipe_content(name, where), overrides or {})
    place = f"{recipe_file(name)}" + (f" with the overrides of {where}" if overrides else "")
    try:
        if content.get("scaling") is not None:
            check_unscaled(content)
        recipe = validate(Recipe, content, place)
        stage(recipe.stage, f"{place}, stage").check_recipe(recipe)
    except ValueError as error:
        raise UserError(f"{place}: {error}") from None
    for method, parameters in recipe.methods.items():
        load_method(method, parameters, f"{place}, methods.{method}")
    for method in recipe.intervals:
        registry.require("pruning", method, f"{place}, intervals")
    return recipe


def load_method(name: str, parameters: dict[str, Any], where: str):
    """A pruning method with its parameters checked against its own schema."""
    return validate(registry.load("pruning", name, where), parameters, where)


def load_task(name: str, options: dict[str, Any], where: str):
    """A task with its options checked against its own schema: the task of that name, or of the name in `kind`."""
    kind = options.get("kind")
    schema = registry.load("tasks", name, where) if kind is None else registry.load("tasks", str(kind), f"{where}.kind")
    return validate(schema, options, where)


def require_sweep(name: str, where: str) -> None:
    """Raise UserError, with the closest name, if there is no such sweep."""
    if not (SWEEPS / f"{name}.yaml").is_file():
        raise unknown_name("sweep", name, [file.stem for file in SWEEPS.glob("*.yaml")], where)
