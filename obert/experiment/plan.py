"""What an experiment runs: the key, the path and the resolved specification of every run."""

import hashlib
import json
from dataclasses import asdict, replace
from typing import Any

from obert.experiment.keys import RunKey, arguments
from obert.experiment.recipes import load_task, method_of, methods_of, recipe_for
from obert.experiment.schema import PRETRAINED, Experiment
from obert.foundation.code_identity import code_hash
from obert.foundation.errors import UserError


def teacher_key(experiment: Experiment, task: str) -> RunKey:
    """The dense teacher of a task: one, from the first seed, for every method and seed."""
    return RunKey("teacher", task, experiment.teacher, experiment.seeds[0])


def upstream_teacher_key(experiment: Experiment) -> RunKey:
    """The dense upstream teacher."""
    return RunKey("upstream_teacher", experiment.upstream.task, experiment.upstream.teacher, experiment.seeds[0])


def upstream_keys(experiment: Experiment) -> tuple[RunKey, ...]:
    """Every upstream run but the teacher: layers dropped, or pruned. First seed only."""
    if experiment.upstream is None:
        return ()
    task, keys = experiment.upstream.task, {}
    for block in experiment.upstream.grid:
        for name in block.recipes:
            base = RunKey("upstream", task, name, experiment.seeds[0])
            methods = methods_of(block, recipe_for(experiment, name, task))
            pruned = [replace(base, method=m, sparsity=s) for m in methods for s in block.sparsities]
            keys |= dict.fromkeys(pruned or [base])
    return tuple(keys)


def transfer_keys(experiment: Experiment) -> tuple[RunKey, ...]:
    """Every fine-tuning of an upstream model, with every seed."""
    if experiment.upstream is None:
        return ()
    start = RunKey("", "", PRETRAINED, experiment.seeds[0])
    sources = (start, upstream_teacher_key(experiment), *upstream_keys(experiment))
    return tuple(
        RunKey("transfer", task, f"{block.recipe}@{source.recipe}", seed, source.method, source.sparsity)
        for block in experiment.upstream.transfer
        for task in experiment.tasks_of(block)
        for source in sources
        if source.recipe in block.upstream
        if source.sparsity is None or not block.sparsities or source.sparsity in block.sparsities
        for seed in block.seeds or experiment.seeds
    )


def downstream_keys(experiment: Experiment) -> tuple[RunKey, ...]:
    """Every pruning run of the grid, without repetition, in the order of the configuration."""
    keys = {}
    for block in experiment.downstream:
        for task in experiment.tasks_of(block):
            for name in block.recipes:
                recipe = recipe_for(experiment, name, task)
                label = f"{name}@{block.upstream}" if block.upstream else name
                for method in methods_of(block, recipe):
                    for sparsity in block.sparsities:
                        for seed in block.seeds or experiment.seeds:
                            keys[RunKey("downstream", task, label, seed, method, sparsity)] = None
    return tuple(keys)


def quantized_keys(experiment: Experiment) -> tuple[RunKey, ...]:
    """Every quantised model; of the teacher, which is one, with every seed of the block."""
    keys = {}
    for block in experiment.quantize:
        seeds = block.seeds or experiment.seeds
        for task in experiment.tasks_of(block):
            dense = [replace(teacher_key(experiment, task), seed=seed) for seed in seeds]
            pruned = [k for k in (*transfer_keys(experiment), *downstream_keys(experiment)) if k.seed in seeds]
            for key in (*dense, *pruned):
                is_chosen = key.method is None or (
                    (not block.methods or key.method in block.methods)
                    and (not block.sparsities or key.sparsity in block.sparsities)
                )
                if key.task == task and key.recipe in block.models and is_chosen:
                    keys[replace(key, stage="quantize", recipe=f"{block.recipe}@{key.recipe}")] = None
    return tuple(keys)


def exported_keys(experiment: Experiment) -> tuple[RunKey, ...]:
    """The models that are exported and timed: each task's teacher, then what `benchmark` selects, first seed only."""
    if experiment.benchmark is None:
        return ()
    chosen = experiment.benchmark
    pruned = [
        key.at("export")
        for key in (*transfer_keys(experiment), *downstream_keys(experiment), *quantized_keys(experiment))
        if key.seed == experiment.seeds[0]
        and key.recipe.partition("@")[0] in chosen.recipes
        and (not chosen.methods or key.method in chosen.methods)
        and (not chosen.sparsities or key.sparsity in chosen.sparsities)
    ]
    return tuple(teacher_key(experiment, task).at("export") for task in experiment.tasks) + tuple(pruned)


def trained_keys(experiment: Experiment) -> tuple[RunKey, ...]:
    """Every run that ends with a trained model, stage by stage."""
    upstream = () if experiment.upstream is None else (upstream_teacher_key(experiment), *upstream_keys(experiment))
    teachers = tuple(teacher_key(experiment, task) for task in experiment.tasks)
    on_tasks = transfer_keys(experiment) + downstream_keys(experiment) + quantized_keys(experiment)
    return upstream + teachers + on_tasks


def all_keys(experiment: Experiment) -> tuple[RunKey, ...]:
    """Every run of an experiment, stage by stage."""
    exported = exported_keys(experiment)
    return trained_keys(experiment) + exported + tuple(key.at("benchmark") for key in exported)


def source_key(experiment: Experiment, key: RunKey) -> RunKey:
    """The run whose model a run starts from, or learns from: the first of `source_keys`."""
    return source_keys(experiment, key)[0]


def source_keys(experiment: Experiment, key: RunKey) -> tuple[RunKey, ...]:
    """The runs that a run is made from: the model that it starts from, then the teacher it learns from if another.

    A pruning run on a task: its upstream model if it starts from one, and the task's teacher. A quantised model: the
    model that is quantised, and the task's teacher if that is another. An export: the trained model.
    """
    if key.stage in ("teacher", "upstream_teacher"):
        return ()
    if key.stage == "upstream":
        return (upstream_teacher_key(experiment),)
    if key.stage in ("transfer", "downstream"):
        started = [k for k in trained_keys(experiment) if _is_upstream_of(k, key)]
        return (*started, teacher_key(experiment, key.task))
    if key.stage == "quantize":
        teacher = teacher_key(experiment, key.task)
        wanted = replace(key, stage="", recipe=key.upstream)
        models = [k for k in trained_keys(experiment) if replace(k, stage="") == wanted]
        return tuple(dict.fromkeys((*models, teacher)))  # the teacher alone where it is what is quantised
    if key.stage == "export":
        model = replace(key, stage="")
        return tuple(k for k in trained_keys(experiment) if replace(k, stage="") == model)
    if key.stage == "benchmark":
        return (key.at("export"),)
    raise ValueError(f"'{key.stage}' is no stage of a run")


def _is_upstream_of(candidate: RunKey, key: RunKey) -> bool:
    if candidate.stage not in ("upstream_teacher", "upstream") or candidate.recipe != key.upstream:
        return False
    return key.stage == "downstream" or (candidate.method, candidate.sparsity) == (key.method, key.sparsity)


def find_key(experiment: Experiment, stage: str, **chosen) -> RunKey:
    """The run of `stage` with the given task, recipe, method, sparsity and seed.

    Raises:
        UserError: the experiment has no such run, or several; the candidates are listed.
    """
    candidates = [key for key in all_keys(experiment) if key.stage == stage]
    wanted = {name: value for name, value in chosen.items() if value is not None}
    matching = [k for k in candidates if all(getattr(k, name) == value for name, value in wanted.items())]
    if len(matching) == 1:
        return matching[0]
    asked = " ".join(f"--{name} {value}" for name, value in wanted.items()) or "no selection"
    listed = "\n  ".join(arguments(key) for key in (matching or candidates)[:20])
    problem = "names several runs; add to it" if matching else "names no run"
    raise UserError(f"experiment '{experiment.name}', stage {stage}: {asked} {problem}. Possible:\n  {listed}")


def specification(experiment: Experiment, key: RunKey) -> dict[str, Any]:
    """Everything that decides a run's result, defaults filled in. Its hash is part of the record.

    Only what the run itself uses is in it, so a change elsewhere in the configuration reruns nothing.
    """
    spec: dict[str, Any] = {"key": asdict(key)}
    options = load_task(key.task, experiment.options_of(key.task), f"experiment {experiment.name}, tasks.{key.task}")
    spec["task"] = options.model_dump(mode="json")
    spec["threads"] = experiment.threads
    if key.stage not in ("export", "benchmark"):
        recipe = recipe_for(experiment, key.recipe, key.task)
        spec["model"] = experiment.model.model_dump(mode="json")
        spec["base_seed"] = experiment.base_seed
        spec["recipe"] = recipe.model_dump(mode="json", exclude={"description", "source", "methods", "family"})
        if key.method is not None:
            spec["method"] = method_of(recipe, key.method, key.recipe).model_dump(mode="json")
    elif key.stage == "benchmark":
        spec["benchmark"] = experiment.benchmark.model_dump(mode="json", exclude={"recipes", "methods", "sparsities"})
    return spec


def specification_hash(spec: dict[str, Any]) -> str:
    """sha256 of a specification's canonical JSON."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def code_of(key: RunKey) -> str:
    """Hash of the code that a training stage makes a run with: its task's too, and its method's if it prunes."""
    prunes = key.stage in ("upstream", "downstream")
    return code_hash(key.stage, tasks=key.task, pruning=key.method if prunes else None)


def gpu_count() -> int:
    """Accelerators of this machine, for the scheduler's `gpu` resource."""
    import torch

    return torch.cuda.device_count()
