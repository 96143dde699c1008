"""Records, curves and predictions of runs that were never made, with the shape of BERT-base and plausible contents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from obert.experiment.keys import RunKey
from obert.experiment.plan import PlannedRun
from obert.foundation.files import file_hash
from obert.masks.counts import LayerSparsity, Sparsity
from obert.records.record import CURVES, FILE_NAME, PREDICTIONS, Record, Score, write_record

EXAMPLES, STEPS, LAYERS = 1000, 300, 12
SIZES = {
    "attention.self.query": 589_824,
    "attention.self.key": 589_824,
    "attention.self.value": 589_824,
    "attention.output.dense": 589_824,
    "intermediate.dense": 2_359_296,
    "output.dense": 2_359_296,
}
ENGINES = ("onnxruntime", "pytorch")


def _sparsity(key: RunKey, generator: np.random.Generator) -> Sparsity:
    layers = {
        f"bert.encoder.layer.{layer}.{name}.weight": LayerSparsity(
            zeros=int(size * min(1, key.sparsity * generator.uniform(0.8, 1.2))), size=size
        )
        for layer in range(LAYERS)
        for name, size in SIZES.items()
    }
    return Sparsity(target=key.sparsity, measured=key.sparsity, layers=layers)


def _terms(metric: str, number: int, is_right: bool) -> dict[str, Any]:
    """What an example adds to its task's metric: its own score, or the counts that Matthews correlation is made of."""
    if metric == "matthews":
        place = 1 - number % 2 if is_right else 3 - number % 2  # of true positives, true negatives, false ones of each
        return {"terms": [float(place == i) for i in range(4)]}
    if metric == "f1":  # of an answer: some words are right in many of those that are not
        return {"score": 100.0 if is_right else (0.0, 40.0, 200 / 3)[number % 3]}
    return {"score": 100.0 * is_right}


def write_run(run: PlannedRun, generator: np.random.Generator, environment: Mapping[str, Any]) -> None:
    """Write a run's record and the files beside it, as its stage does; models are empty."""
    key, folder, sparsity = run.key, run.folder, run.key.sparsity or 0.0
    folder.mkdir(parents=True)
    fields: dict[str, Any] = {}
    if run.stage.trains:
        right = (generator.random(EXAMPLES) < 0.9 - 0.3 * sparsity**2).tolist()
        metric = run.task.primary_metric
        lines = [
            json.dumps({"id": f"example-{i}", "prediction": int(i % 2 == r), **_terms(metric, i, r)})
            for i, r in enumerate(right)
        ]
        (folder / PREDICTIONS).write_text("\n".join(lines) + "\n")
        fields |= {
            "metrics": {metric: Score(value=100 * float(np.mean(right)), count=EXAMPLES)},
            "primary_metric": metric,
        }
        fields["costs"] = {"optimizer_steps": STEPS, "training_seconds": 60.0, "pruning_seconds": 30.0}
        fields["data"] = {"source": run.task.source, "splits": {"train": 4000, "validation": EXAMPLES}}
        fields["data"]["features"] = {"train": 4000, "validation": EXAMPLES}
        fields["model"] = {"source": run.model.source, "layers": LAYERS, "parameters": 110_000_000}
        fields["model"]["prunable_parameters"] = LAYERS * sum(SIZES.values())
    if key.method is not None and run.stage.trains:
        fields["sparsity"] = _sparsity(key, generator)
        names = fields["sparsity"].layers
        events = [{"step": s, "predicted_loss_increase": dict.fromkeys(names, 1e-6 * s)} for s in range(0, 100, 20)]
        fields["details"] = {"events": events}
    if run.stage.trains and not run.recipe.is_one_shot:
        steps = np.arange(1, STEPS + 1)
        curves = pd.DataFrame({"step": steps, "epoch": steps / STEPS, "loss": generator.exponential(size=STEPS)})
        curves["learning_rate"] = 1e-4 * (1 - steps / STEPS)
        curves["sparsity"] = sparsity * (steps * 5 // (STEPS + 1)) / 4
        curves.to_csv(folder / CURVES, index=False)
    if key.stage == "export":
        fields["metrics"] = {"model_size_gzip_mb": Score(value=100 * (1 - sparsity), count=1)}
    if key.stage == "benchmark":
        fields["metrics"] = {f"{engine}_throughput": Score(value=100 * (1 + sparsity), count=20) for engine in ENGINES}
        if key.method is not None:
            fields["metrics"] |= {f"{e}_speedup": Score(value=generator.uniform(1, 3), count=20) for e in ENGINES}
    for name in run.stage.folders.values():
        (folder / name).mkdir(exist_ok=True)
    for name in run.stage.files.values():
        (folder / name).touch()
    write_record(folder, _record(run, environment, fields))


def _record(run: PlannedRun, environment: Mapping[str, Any], fields: Mapping[str, Any]) -> Record:
    return Record(
        experiment=run.experiment.name, key=run.key, family=run.family, spec=run.specification,
        spec_hash=run.specification_hash, code_hash=run.code_hash, environment=dict(environment), threads=1,
        started_at=datetime(2026, 1, 1, tzinfo=UTC), wall_time_seconds=90.0, peak_memory_mb=1000.0,
        inputs={str(source.key.path): file_hash(source.folder / FILE_NAME) for source in run.made_from}, **fields,
    )  # fmt: skip
