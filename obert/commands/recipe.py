"""Write a recipe by the guidelines for one task and sparsity, if there is the time that it takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from obert.compression.budget import fit_run
from obert.compression.draft import WHENCE, Draft, cost, start_of
from obert.experiment.plan import Plan, PlannedRun
from obert.experiment.recipes import RECIPES
from obert.experiment.schema import Model
from obert.experiment.strict import Sparsity
from obert.foundation import registry
from obert.foundation.errors import UserError, unknown_name
from obert.foundation.files import check_place, write_text

HEADER = "Written by `obert recipe` for {task} at {percent:g} %. "


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
        minutes: what one run may take; gradients and schedule are cut to fit.
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
    network, data = start_of(teacher)
    draft = Draft.by_guidelines(teacher, method, network.config.num_hidden_layers, len(data.features))
    try:
        draft.work(sparsity)
    except ValueError as error:
        raise UserError(f"--sparsity {sparsity:g}: {error}") from None
    print(f"timing {teacher.model.source} on {task}", flush=True)
    fitted = fit_run(draft, draft.measure(network, data), minutes, sparsity)
    costs = cost(fitted.draft.work(sparsity), fitted.pace)
    write_text(path, fitted.draft.file(f"{_header(task, sparsity)} {costs}"))
    said = [f"{path}: written", costs, *_how_to_run(config, name, method, task, sparsity)]
    return "\n".join([*said[:2], *fitted.cuts(draft), *said[2:]])


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


def _header(task: str, sparsity: float) -> str:
    return HEADER.format(task=task, percent=100 * sparsity) + WHENCE


def _how_to_run(config: Path, name: str, method: str, task: str, sparsity: float) -> list[str]:
    where = shlex.quote(str(config))
    return [
        f"To run it, add this to 'downstream' of {config}:",
        f"  - {{recipes: [{name}], methods: [{method}], tasks: [{task}], sparsities: [{sparsity:g}]}}",
        f"python -m obert plan --config {where} --recipe {name}",
        f"snakemake --cores all --configfile {where}",
    ]
