"""Sweeps: what of a recipe is searched, the experiments that its trials are, and the recipe that it ends in.

A trial is an ordinary run, or several, of an experiment whose tasks hold out a part of their training examples in place
of validation. Its teachers, and the models it quantises, are trained without that part too; upstream models are the
experiment's own, as they are made before any task.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from obert.experiment import folders, plan
from obert.experiment.checks import check_downstream, check_quantize, check_transfer, load_experiment
from obert.experiment.keys import RunKey
from obert.experiment.reading import merge, read_yaml, validate
from obert.experiment.recipe import Recipe
from obert.experiment.recipes import load_recipe, methods_of, recipe_for
from obert.experiment.schema import Experiment
from obert.foundation.errors import UserError, unknown_name
from obert.sweeps.schema import NOT_SEARCHED, Sweep, Value

CHECKS = {"downstream": check_downstream, "transfer": check_transfer, "quantize": check_quantize}
KEYS = {"downstream": plan.downstream_keys, "transfer": plan.transfer_keys, "quantize": plan.quantized_keys}


@dataclass(frozen=True)
class Search:
    """A sweep and the experiment of its file.

    Attributes:
        path: the sweep's file.
        original: the experiment, as its own file has it.
    """

    path: Path
    sweep: Sweep
    original: Experiment

    @property
    def folder(self) -> Path:
        """Where journal, trials, figures and recipe are."""
        return folders.sweep_folder(self.sweep.name)

    @cached_property
    def held_out(self) -> Experiment:
        """The experiment with a part of its training data held out, and its own seeds: what trials start from."""
        sweep, original = self.sweep, self.original
        blocks = dict.fromkeys(CHECKS, ()) | {sweep.stage: (sweep.block,)}
        if sweep.stage == "quantize":  # it starts from models of the other stages
            blocks["downstream"] = original.downstream
            blocks["transfer"] = original.upstream.transfer if original.upstream else ()
        blocks = {stage: tuple(b.model_copy(update={"seeds": ()}) for b in of) for stage, of in blocks.items()}
        upstream = original.upstream and original.upstream.model_copy(update={"transfer": blocks["transfer"]})
        return original.model_copy(
            update={
                "name": f"sweeps/{sweep.name}/sources",
                "tasks": {name: {**o, "held_out": sweep.held_out} for name, o in original.tasks.items()},
                "seeds": sweep.block.seeds or (sweep.seed,),
                "upstream": upstream,
                "downstream": blocks["downstream"],
                "quantize": blocks["quantize"],
                "benchmark": None,
            }
        )

    @cached_property
    def levels(self) -> tuple[tuple[RunKey, ...], ...]:
        """The runs of a trial, those of one sparsity together, the highest first."""
        keys = sorted(KEYS[self.sweep.stage](self.held_out), key=lambda key: -(key.sparsity or 0.0))
        return tuple(tuple(level) for _, level in itertools.groupby(keys, key=lambda key: key.sparsity))

    @property
    def keys(self) -> tuple[RunKey, ...]:
        """The runs of a trial."""
        return tuple(itertools.chain(*self.levels))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of a trial's runs."""
        return self.original.tasks_of(self.sweep.block)

    @cached_property
    def points(self) -> tuple[dict[str, Value], ...]:
        """A grid's points in the order that they are tried; none of sampler tpe."""
        if self.sweep.sampler == "tpe":
            return ()
        space = self.sweep.space
        product = itertools.product(*(parameter.points for parameter in space.values()))
        return tuple(dict(zip(space, point, strict=True)) for point in product)

    @property
    def budget(self) -> int:
        """Trials, those not counted that are run again after their worker died."""
        return self.sweep.trials or len(self.points)

    def with_values(self, values: dict[str, Value]) -> Experiment:
        """The experiment with values in place of the recipe's own."""
        base, overrides = self.sweep.base, dict(self.held_out.recipe_overrides)
        for task in self.tasks:
            own = overrides.get(task, {})
            overrides[task] = {**own, base: merge(own.get(base, {}), nested(values))}
        return self.held_out.model_copy(update={"recipe_overrides": overrides})

    def run_of(self, key: RunKey, values: dict[str, Value]) -> Experiment:
        """The experiment of one run of a trial. It has a folder of its own, by the hash of its specification."""
        experiment = self.with_values(values)
        digest = plan.specification_hash(plan.specification(experiment, key))[:16]
        return experiment.model_copy(update={"name": f"sweeps/{self.sweep.name}/{digest}"})

    def recipe_content(self, values: dict[str, Value], source: str) -> dict[str, Any]:
        """A recipe's file: the base recipe, as the experiment runs it, with a trial's values.

        Args:
            source: what is said of where the values are from.
        """
        base = recipe_for(self.original, self.sweep.base, self.tasks[0])
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
        return self.original.recipe_overrides.get(task, {}).get(self.sweep.base, {})

    @property
    def upstream_sources(self) -> tuple[RunKey, ...]:
        """The experiment's own upstream runs that trials start from."""
        seed = self.original.seeds[0]
        return tuple(replace(key, seed=seed) for key in self.sources if key.stage.startswith("upstream"))

    @cached_property
    def identity(self) -> str:
        """Hash of all that decides the trials: what is searched and how, and the runs with their code and sources."""
        sweep = self.sweep.model_dump(mode="json", include={"space", "sampler", "seed", "stop_early"})
        keys = (*self.keys, *self.sources)
        runs = [(plan.specification(self.held_out, key), plan.code_of(key)) for key in keys]
        return hashlib.sha256(json.dumps([sweep, runs], sort_keys=True).encode()).hexdigest()[:12]

    @cached_property
    def sources(self) -> tuple[RunKey, ...]:
        """The runs that a trial's are made from, those that others need first."""
        found: dict[RunKey, None] = {}

        def add(key: RunKey) -> None:
            for source in plan.source_keys(self.held_out, key):
                if not source.stage.startswith("upstream"):
                    add(source)
                found[source] = None

        for key in self.keys:
            add(key)
        return tuple(found)


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
    sweep = validate(Sweep, read_yaml(path), str(path))
    search = Search(path, sweep, load_experiment(sweep.experiment))
    where = f"{path}, {sweep.stage}"
    if sweep.transfer and search.original.upstream is None:
        raise UserError(f"{where}: {sweep.experiment} has no 'upstream' models to transfer")
    CHECKS[sweep.stage](search.held_out, sweep.block, where)
    if sweep.downstream:
        _check_method(search, where)
    if not search.keys:
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
    methods = methods_of(sweep.block, recipe_for(search.original, sweep.base, search.tasks[0]))
    if len(methods) != 1:
        raise UserError(f"{where}.methods: a sweep is for one method, found {', '.join(methods)}")
    for key in sweep.space:
        root, *rest = key.split(".")
        if root == "methods" and rest[:1] != list(methods):
            raise unknown_name("method", ".".join(rest[:1]), methods, f"{search.path}, space.{key}")


def _check_seeds(search: Search) -> None:
    """The recipe is to be run with seeds that did not choose it."""
    original = search.original
    blocks = (*original.downstream, *original.quantize, *(original.upstream.transfer if original.upstream else ()))
    taken = {*original.seeds, *(seed for block in blocks for seed in block.seeds)}
    if both := sorted(taken & set(search.held_out.seeds)):
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
    ends = [{key: parameter.ends[i] for key, parameter in space.items()} for i in (0, 1)]
    for values in search.points or ends:
        experiment = search.with_values(values)
        recipe_for(experiment, search.sweep.base, search.tasks[0], where)
        CHECKS[search.sweep.stage](experiment, search.sweep.block, f"{search.path}, {search.sweep.stage}")
