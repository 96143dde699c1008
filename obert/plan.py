"""What an experiment runs: the key, the path and the resolved specification of every run."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from obert.config import Experiment, load_task, method_of, methods_of, recipe_for
from obert.errors import UserError

RESULTS = Path("results")


@dataclass(frozen=True, order=True)
class RunKey:
    """Identity of a run inside an experiment. `method` and `sparsity` are None for what is not pruned."""

    stage: str
    task: str
    recipe: str
    seed: int
    method: str | None = None
    sparsity: float | None = None

    @property
    def variant(self) -> str:
        """`<recipe>/<method>-<sparsity>`, or `<recipe>/dense`."""
        return f"{self.recipe}/{'dense' if self.method is None else f'{self.method}-{self.sparsity:g}'}"

    @property
    def path(self) -> Path:
        """Folder below the experiment's runs: `<stage>/<task>/<recipe>/<method>-<sparsity>/seed<k>`."""
        return Path(self.stage, self.task, self.variant, f"seed{self.seed}")

    def at(self, stage: str) -> "RunKey":
        """The key of the same model at another stage."""
        return RunKey(stage, self.task, self.recipe, self.seed, self.method, self.sparsity)


def runs_folder(experiment: Experiment) -> Path:
    """Where an experiment's runs are."""
    return RESULTS / "runs" / experiment.name


def run_folder(experiment: Experiment, key: RunKey) -> Path:
    """Where a run's record and its files are."""
    return runs_folder(experiment) / key.path


def checkpoint_folder(experiment: Experiment, key: RunKey) -> Path:
    """Where a run keeps its training checkpoints: outside the outputs that Snakemake deletes when a job fails."""
    return RESULTS / "checkpoints" / experiment.name / key.path


def tables_folder(experiment: Experiment) -> Path:
    """Where an experiment's tables, figures and report are."""
    return RESULTS / "tables" / experiment.name


def teacher_key(experiment: Experiment, task: str) -> RunKey:
    """The dense teacher of a task: one, from the first seed, for every method and seed."""
    return RunKey("teacher", task, experiment.teacher, experiment.seeds[0])


def downstream_keys(experiment: Experiment) -> tuple[RunKey, ...]:
    """Every pruning run of the grid, without repetition, in the order of the configuration."""
    keys = {}
    for block in experiment.downstream:
        for task in experiment.tasks:
            for name in block.recipes:
                recipe = recipe_for(experiment, name, task)
                for method in methods_of(block, recipe):
                    for sparsity in block.sparsities:
                        for seed in experiment.seeds:
                            keys[RunKey("downstream", task, name, seed, method, sparsity)] = None
    return tuple(keys)


def exported_keys(experiment: Experiment) -> tuple[RunKey, ...]:
    """The models that are exported and timed: each task's teacher, then what `benchmark` selects, first seed only."""
    if experiment.benchmark is None:
        return ()
    chosen = experiment.benchmark
    pruned = [
        key.at("export")
        for key in downstream_keys(experiment)
        if key.seed == experiment.seeds[0]
        and key.recipe in chosen.recipes
        and (not chosen.methods or key.method in chosen.methods)
        and (not chosen.sparsities or key.sparsity in chosen.sparsities)
    ]
    return tuple(teacher_key(experiment, task).at("export") for task in experiment.tasks) + tuple(pruned)


def all_keys(experiment: Experiment) -> tuple[RunKey, ...]:
    """Every run of an experiment, stage by stage."""
    teachers = tuple(teacher_key(experiment, task) for task in experiment.tasks)
    exported = exported_keys(experiment)
    return teachers + downstream_keys(experiment) + exported + tuple(key.at("benchmark") for key in exported)


def source_key(experiment: Experiment, key: RunKey) -> RunKey:
    """The run whose model a run starts from (a pruning run: its task's teacher; an export: the trained model)."""
    if key.stage == "downstream":
        return teacher_key(experiment, key.task)
    if key.stage == "export":
        return key.at("teacher" if key.method is None else "downstream")
    if key.stage == "benchmark":
        return key.at("export")
    raise ValueError(f"a run of stage '{key.stage}' starts from no other run")


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


def arguments(key: RunKey) -> str:
    """The command-line arguments that name a run."""
    pruned = "" if key.method is None else f" --method {key.method} --sparsity {key.sparsity:g}"
    return f"--task {key.task} --recipe {key.recipe}{pruned} --seed {key.seed}"


def specification(experiment: Experiment, key: RunKey) -> dict[str, Any]:
    """Everything that decides a run's result, defaults filled in. Its hash is part of the record.

    Only what the run itself uses is in it, so a change elsewhere in the configuration reruns nothing.
    """
    spec: dict[str, Any] = {"key": asdict(key)}
    options = load_task(key.task, experiment.tasks[key.task], f"experiment {experiment.name}, tasks.{key.task}")
    spec["task"] = options.model_dump(mode="json")
    spec["threads"] = experiment.threads
    if key.stage in ("teacher", "downstream"):
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


def gpu_count() -> int:
    """Accelerators of this machine, for the scheduler's `gpu` resource."""
    import torch

    return torch.cuda.device_count()
