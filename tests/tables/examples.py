"""Hand-made records, and the files beside them."""

import json
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pandas as pd

from obert.experiment.keys import RunKey
from obert.foundation.files import write_text
from obert.masks.counts import LayerSparsity, Sparsity
from obert.records.record import Record, Score, write_record

DENSE_RECIPE = "dense"
FISHER = {"num_gradients": 256, "fisher_block_size": 48, "dampening": 1e-7, "solver": "independent"}


def record(stage, value=None, *, task="movie_reviews", recipe=None, seed=0, method=None, sparsity=None, **fields):
    """A record as a stage writes it, with one metric where `value` (percent) is given: accuracy, or a question's F1."""
    recipe = recipe or (DENSE_RECIPE if method is None else "gradual")
    one_shot = recipe == "one_shot"
    content = {
        "experiment": "example",
        "family": "equal terms",
        "spec": {"recipe": {"training": None if one_shot else {"epochs": 10.0}}},
        "spec_hash": "0" * 64,
        "code_hash": "0" * 16,
        "environment": {"git_commit": "f" * 40, "git_dirty": False, "cpu": "Example CPU", "cores": 2, "packages": {}},
        "threads": 1,
        "data": {"source": "example", "fingerprint": "0" * 16, "splits": {"train": 100, "validation": 4}},
        "model": {"source": "example", "layers": 2, "parameters": 1000, "prunable_parameters": 400},
        "started_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "wall_time_seconds": 12.5,
        "peak_memory_mb": 100.0,
    }
    if method == "obert":
        content["spec"]["method"] = FISHER
    if value is not None:
        metric = "f1" if task in ("squad", "city_qa") else "accuracy"
        content |= {"metrics": {metric: Score(value=value, count=4)}, "primary_metric": metric}
    if method is not None and stage == "downstream":
        measured = LayerSparsity(zeros=int(sparsity * 400), size=400)
        content["sparsity"] = Sparsity(target=sparsity, measured=sparsity, layers={"layer": measured})
        content["costs"] = {
            "optimizer_steps": 30,
            "gradient_evaluations": 64,
            "pruning_seconds": 2.0,
            "training_seconds": 10.0,
        }
    key = RunKey(stage, task, recipe, seed, method, sparsity)
    return Record(key=key, **{**content, **fields})


def write_run(runs: Path, made: Record, scores: dict[str, float] | None = None, steps: int = 0) -> Path:
    """Write a record into its folder below `runs`, with predictions and curves if there are any. Returns the folder."""
    folder = runs / made.key.path
    if scores is not None:
        lines = [json.dumps({"id": name, "prediction": 1, "score": score}) for name, score in scores.items()]
        write_text(folder / "predictions.jsonl", "\n".join(lines) + "\n")
    if steps:
        curves = pd.DataFrame({"step": range(1, steps + 1)})
        curves["epoch"] = curves["step"] / steps * 10
        curves["loss"] = 1 / curves["step"]
        curves["learning_rate"] = 8e-5 * (1 - curves["epoch"] / 10)
        curves["sparsity"] = (curves["epoch"] > 2) * (made.key.sparsity or 0.0)
        write_text(folder / "curves.csv", curves.to_csv(index=False))
    write_record(folder, made)
    return folder


def origins_of_exports(keys) -> dict[RunKey, RunKey]:
    """The model of each export, and the export of each timing."""
    models = {key.at("export"): key for key in keys if key.stage not in ("export", "benchmark")}
    return {
        key: models[key] if key.stage == "export" else key.at("export")
        for key in keys
        if key.stage == "benchmark" or (key.stage == "export" and key in models)
    }


def trials(failing=()) -> pd.DataFrame:
    """A sweep's trials as it writes them: two gradients, blocks and dampenings each, at two sparsities.

    A score is 90, less 100 / m, a tenth of the block size, 2 for the higher dampening and 100 (sparsity - 0.5).

    Args:
        failing: numbers of trials that failed.
    """
    rows = []
    for number, (m, block, dampening) in enumerate(product((50, 100), (10, 20), (1e-3, 1e-7))):
        scores = {s: 90 - 100 / m - block / 10 - 2 * (dampening > 1e-5) - 100 * (s - 0.5) for s in (0.7, 0.5)}
        failed = number in failing
        of_trial = {
            "experiment": "example",
            "model": "example, 2 layers",
            "base": "one_shot",
            "held_out": 0.2,
            "trial": number,
            "state": "failed" if failed else "complete",
            "objective": None if failed else sum(scores.values()) / 2,
            "methods.obert.num_gradients": m,
            "methods.obert.fisher_block_size": block,
            "methods.obert.dampening": dampening,
        }
        of_run = {"task": "movie_reviews", "method": "obert", "seed": 100, "metric": "accuracy", "count": 800}
        of_run |= {"seconds": 1.5, "dense": 92.0, "error": None}
        for sparsity, score in scores.items():
            rows.append(of_trial | of_run | {"sparsity": sparsity, "score": score})
            if failed:
                none = {"task": None, "score": None, "sparsity": None, "count": None, "seed": None}
                rows[-1] |= none | {"error": "the Fisher cannot be inverted"}
                break
    return pd.DataFrame(rows)
