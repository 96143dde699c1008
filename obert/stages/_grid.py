"""What the stages that prune share in their plans: the methods and sparsities of a block of the grid."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import ValidationError

from obert.experiment.schema import Grid
from obert.foundation.errors import UserError
from obert.masks.patterns import parse_pattern

if TYPE_CHECKING:
    from obert.experiment.plan import Plan
    from obert.experiment.recipe import Recipe


def _reason(error: ValueError) -> str:
    """What a schema or its own rules say of a value."""
    return "; ".join(each["msg"] for each in error.errors()) if isinstance(error, ValidationError) else str(error)


def pruned(plan: Plan, block: Grid, name: str, recipe: Recipe, where: str) -> Iterator[tuple[str, float]]:
    """Method and sparsity of each run of a recipe in a block.

    Raises:
        UserError: a method, pattern or sparsity that the recipe cannot be run with.
    """
    pattern = parse_pattern(recipe.pattern)
    methods = plan.definitions.methods_of(block, recipe)
    if methods and not block.sparsities:
        raise UserError(f"{where}: recipe '{name}' prunes; list 'sparsities'")
    for method in methods:
        loaded = plan.definitions.method(method, recipe, f"{where}.methods")
        try:
            loaded.check_pattern(pattern)
        except UserError as error:
            raise UserError(f"{where}: recipe '{name}', method '{method}': {error}") from None
        if recipe.scope.embeddings and loaded.forward_examples():
            raise UserError(
                f"{where}: recipe '{name}' prunes embeddings, and method '{method}' looks at what linear layers are "
                "given. Leave scope.embeddings out"
            )
        if recipe.scope.embeddings and loaded.sees_inputs():
            raise UserError(
                f"{where}: recipe '{name}' prunes embeddings, whose gradients method '{method}' cannot take example by "
                f"example. Set methods.{method}.gradients: minibatch, or leave scope.embeddings out"
            )
        if recipe.is_one_shot and loaded.steps_needed():
            raise UserError(
                f"{where}: method '{method}' learns its scores in training, recipe '{name}' prunes in one shot. "
                "Run it with a gradual recipe."
            )
    for sparsity in block.sparsities if methods else ():
        if sparsity > pattern.largest_sparsity:
            raise UserError(
                f"{where}.sparsities: {sparsity:g} is more than pattern {pattern} of recipe '{name}' allows "
                f"({pattern.largest_sparsity:g})"
            )
        try:
            schedule = recipe.at(sparsity).schedule
        except ValueError as error:
            raise UserError(f"{where}.sparsities: recipe '{name}' at {sparsity:g}: {_reason(error)}") from None
        if schedule and sparsity < schedule.initial_sparsity:
            raise UserError(
                f"{where}.sparsities: {sparsity:g} is below the first step of recipe '{name}' "
                f"(schedule.initial_sparsity {schedule.initial_sparsity:g}); lower that or leave it out"
            )
    for method in methods:
        for sparsity in block.sparsities:
            yield method, sparsity
