"""Experiments and recipes as they are read from files, each name, parameter and combination in them checked."""

from pathlib import Path

from obert.experiment.reading import read_yaml, validate
from obert.experiment.recipe import Recipe
from obert.experiment.recipes import SWEEPS, load_recipe, load_task, method_of, methods_of, recipe_for
from obert.experiment.schema import PRETRAINED, Downstream, Experiment, Grid, OnTasks, Quantize, Transfer
from obert.foundation import registry
from obert.foundation.errors import UserError, unknown_name
from obert.masks.patterns import parse_pattern


def load_experiment(path: Path | str) -> Experiment:
    """The experiment in a file, with every name, recipe, option and parameter in it checked.

    Raises:
        UserError: any mistake, with file and key.
    """
    path = Path(path)
    experiment = validate(Experiment, read_yaml(path), str(path))
    for name, options in experiment.tasks.items():
        load_task(name, options, f"{path}, tasks.{name}")
    _check_overrides(experiment, path)
    if experiment.upstream is not None:
        _check_upstream(experiment, path)
    for task in experiment.tasks:
        _recipe_of_stage(experiment, experiment.teacher, task, "teacher", f"{path}, teacher")
    for index, block in enumerate(experiment.downstream):
        check_downstream(experiment, block, f"{path}, downstream.{index}")
    for name in experiment.sweeps:
        if not (SWEEPS / f"{name}.yaml").is_file():
            raise unknown_name("sweep", name, [file.stem for file in SWEEPS.glob("*.yaml")], f"{path}, sweeps")
    if experiment.tables != "all":
        for table in experiment.tables:
            registry.require("tables", table, f"{path}, tables")
    for index, block in enumerate(experiment.quantize):
        check_quantize(experiment, block, f"{path}, quantize.{index}")
    if experiment.benchmark is not None:
        _check_benchmark(experiment, path)
    return experiment


def _recipe_of_stage(experiment: Experiment, name: str, task: str, stage: str, where: str) -> Recipe:
    recipe = recipe_for(experiment, name, task, where)
    if recipe.stage != stage:
        raise UserError(f"{where}: recipe '{name}' is for stage '{recipe.stage}', not '{stage}'")
    return recipe


def _check_upstream(experiment: Experiment, path: Path) -> None:
    upstream = experiment.upstream
    if upstream.task in experiment.tasks:
        raise UserError(f"{path}, upstream.task: '{upstream.task}' is one of the experiment's tasks already")
    load_task(upstream.task, upstream.options, f"{path}, upstream.options")
    _recipe_of_stage(experiment, upstream.teacher, upstream.task, "upstream_teacher", f"{path}, upstream.teacher")
    for index, block in enumerate(upstream.grid):
        _check_block(experiment, block, upstream.task, "upstream", f"{path}, upstream.grid.{index}")
    for index, transfer in enumerate(upstream.transfer):
        check_transfer(experiment, transfer, f"{path}, upstream.transfer.{index}")


def _known_tasks(experiment: Experiment, block: OnTasks, where: str) -> tuple[str, ...]:
    for name in block.tasks:
        if name not in experiment.tasks:
            raise unknown_name("task", name, experiment.tasks, f"{where}.tasks")
    return experiment.tasks_of(block)


def _check_block(experiment: Experiment, block: Grid, task: str, stage: str, where: str) -> None:
    for name in block.recipes:
        recipe = _recipe_of_stage(experiment, name, task, stage, f"{where}.recipes")
        methods = methods_of(block, recipe)
        if stage == "upstream" and not methods:
            continue  # drops layers only
        if not methods:
            raise UserError(f"{where}: recipe '{name}' is for no method of its own; list 'methods' (or 'all')")
        if not block.sparsities:
            raise UserError(f"{where}: recipe '{name}' prunes; list 'sparsities'")
        pattern = parse_pattern(recipe.pattern)
        for method in methods:
            loaded = method_of(recipe, method, f"{where}.methods")
            loaded.check_pattern(pattern)
            if recipe.is_one_shot and loaded.steps_needed():
                raise UserError(
                    f"{where}: method '{method}' learns its scores in training, recipe '{name}' prunes in one shot. "
                    "Run it with a gradual recipe."
                )
        for sparsity in block.sparsities:
            if sparsity > pattern.largest_sparsity:
                raise UserError(
                    f"{where}.sparsities: {sparsity:g} is more than pattern {pattern} of recipe '{name}' allows "
                    f"({pattern.largest_sparsity:g})"
                )
            if recipe.schedule and sparsity < recipe.schedule.initial_sparsity:
                raise UserError(
                    f"{where}.sparsities: {sparsity:g} is below the first step of recipe '{name}' "
                    f"(schedule.initial_sparsity {recipe.schedule.initial_sparsity:g}); lower that or leave it out"
                )


def _check_start(experiment: Experiment, block: Downstream, task: str, where: str) -> None:
    """A recipe that starts from an upstream model is told which, and no other is."""
    dense = set()
    if experiment.upstream is not None:
        recipes = {name for grid in experiment.upstream.grid for name in grid.recipes}
        dense = {name for name in recipes if not load_recipe(name, where).methods}
    for name in block.recipes:
        starts_upstream = recipe_for(experiment, name, task).start == "upstream"
        if starts_upstream != (block.upstream is not None):
            needed = "needs 'upstream'" if starts_upstream else "does not start from an upstream model: leave it out"
            raise UserError(f"{where}.upstream: recipe '{name}' {needed}")
    if block.upstream is not None and block.upstream not in dense:
        raise unknown_name("dense upstream recipe", block.upstream, dense, f"{where}.upstream")


def _recipes_on(experiment: Experiment, task: str) -> set[str]:
    """The recipes that are run on a task, downstream or upstream."""
    if experiment.upstream is not None and task == experiment.upstream.task:
        return {experiment.upstream.teacher, *(name for block in experiment.upstream.grid for name in block.recipes)}
    transfers = experiment.upstream.transfer if experiment.upstream else ()
    of_blocks = {name for b in experiment.downstream if task in experiment.tasks_of(b) for name in b.recipes}
    started = {b.recipe for b in (*transfers, *experiment.quantize) if task in experiment.tasks_of(b)}
    return {experiment.teacher, *started, *of_blocks}


def _check_overrides(experiment: Experiment, path: Path) -> None:
    tasks = (*experiment.tasks, *([experiment.upstream.task] if experiment.upstream else []))
    for task, overrides in experiment.recipe_overrides.items():
        if task not in tasks:
            raise unknown_name("task", task, tasks, f"{path}, recipe_overrides")
        known = _recipes_on(experiment, task)
        for name in overrides:
            if name not in known:
                raise unknown_name("recipe", name, known, f"{path}, recipe_overrides.{task}")


def check_downstream(experiment: Experiment, block: Downstream, where: str) -> None:
    """Raise UserError for a mistake in a block of the downstream grid of an experiment."""
    for task in _known_tasks(experiment, block, where):
        _check_block(experiment, block, task, "downstream", where)
        _check_start(experiment, block, task, where)


def check_transfer(experiment: Experiment, block: Transfer, where: str) -> None:
    """Raise UserError for a mistake in what an experiment with an upstream part transfers."""
    grid = experiment.upstream.grid
    known = {experiment.upstream.teacher, PRETRAINED, *(name for other in grid for name in other.recipes)}
    for task in _known_tasks(experiment, block, where):
        _recipe_of_stage(experiment, block.recipe, task, "transfer", where)
    for name in block.upstream:
        if name not in known:
            raise unknown_name("upstream recipe", name, known, f"{where}.upstream")


def check_quantize(experiment: Experiment, block: Quantize, where: str) -> None:
    """Raise UserError for a mistake in what an experiment quantises."""
    for task in _known_tasks(experiment, block, where):
        _recipe_of_stage(experiment, block.recipe, task, "quantize", f"{where}.recipe")
        known = _recipes_on(experiment, task)
        for name in block.models:
            if name.partition("@")[0] not in known:
                raise unknown_name("recipe", name, known, f"{where}.models")


def _check_benchmark(experiment: Experiment, path: Path) -> None:
    known = set().union(*(_recipes_on(experiment, task) for task in experiment.tasks))
    for name in experiment.benchmark.recipes:
        if name not in known:
            raise unknown_name("recipe", name, known, f"{path}, benchmark.recipes")
    for name in experiment.benchmark.methods:
        registry.require("pruning", name, f"{path}, benchmark.methods")
    for engine in experiment.benchmark.engines:
        registry.require("engines", engine, f"{path}, benchmark.engines")
