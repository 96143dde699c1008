"""Score oBERT's one-shot pruning over a grid of dampening and kind of gradient: the evidence for the default.

    python tests/benchmarks/dampening.py results/dampening.jsonl --config configs/real_tasks.yaml --task sst2 --draw 0

Starts from the experiment's teacher of the task, which must have been made. Each line is one model: a draw of gradients
and a dampening at one sparsity, scored on the task's validation examples. What stands in the file is not made again.
Printed in the end: means over the draws, of all that stands in the file.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from obert.experiment.plan import Plan, PlannedRun
from obert.masks.patterns import parse_pattern
from obert.models.encoders import load_tokenizer, load_trained
from obert.pruning.obert import OptimalBertSurgeon
from obert.pruning.shared.fisher_sharing import SharedFisher, sharing
from obert.records.record import MODEL
from obert.stages._trained import EVALUATION_BATCH, Prepared, prepare
from obert.training.prediction import predict_logits
from obert.training.pruner import Pruner

DAMPENINGS = (1e-7, "0.1%", "1%", "3%", "10%")
SPARSITIES = (0.7, 0.8)
IDENTITY = ("task", "gradients", "draw", "dampening", "sparsity")
GRADIENTS: dict[str, dict[str, Any]] = {
    "1024 examples": {"num_gradients": 1024, "gradients": "per_example", "gradient_batch_size": 32},
    "128 minibatches of 8": {"num_gradients": 128, "gradients": "minibatch", "gradient_batch_size": 8},
    "256 minibatches of 8": {"num_gradients": 256, "gradients": "minibatch", "gradient_batch_size": 8},
    "2048 examples": {"num_gradients": 2048, "gradients": "per_example", "gradient_batch_size": 32},
}


def score(prepared: Prepared) -> float:
    """The primary metric on the validation examples."""
    task, data = prepared.task, prepared.validation
    predictions = task.predict(predict_logits(prepared.network, data, EVALUATION_BATCH), data.features, data.examples)
    return task.score(predictions, data.examples)[task.primary_metric].value


def start(teacher: PlannedRun) -> Prepared:
    """The fine-tuned model and its task's encoded examples."""
    folder = teacher.folder / MODEL
    return prepare(teacher, teacher.task.load(), load_trained(folder, teacher.task.head), load_tokenizer(folder))


def grid(
    prepared: Prepared, dense: dict[str, Tensor], task: str, kind: str, draw: int, known: set[tuple]
) -> Iterator[dict[str, Any]]:
    """Scores of a draw of gradients, one Fisher for all of them. Each model starts from the weights `dense`."""
    network = prepared.network
    kept, seeds = SharedFisher(), {"pruning": draw, "gradients": 1_000_003 * (draw + 1)}
    for dampening in DAMPENINGS:
        for sparsity in SPARSITIES:
            identity = (task, kind, draw, str(dampening), sparsity)
            if identity in known:
                continue
            started = time.perf_counter()
            network.load_state_dict(dense)
            method = OptimalBertSurgeon(**GRADIENTS[kind], fisher_block_size=50, dampening=dampening)
            pruner = Pruner(network, method, prepared.train, seeds, parse_pattern("unstructured"))
            with sharing(kept, identity[:3]):
                pruner.prune(sparsity)
            pruner.hook.finish()
            yield dict(zip(IDENTITY, identity, strict=True)) | {
                "score": score(prepared),
                "predicted_loss_increase": sum(pruner.events[-1]["predicted_loss_increase"].values()),
                "seconds": round(time.perf_counter() - started, 1),
            }


def table(file: Path) -> pd.DataFrame:
    """Mean scores over the draws, and how many these are; a column a sparsity and dampening."""
    lines = pd.read_json(file, lines=True, dtype={"dampening": str})
    kinds = ["task", "gradients"]
    means = lines.pivot_table("score", kinds, ["sparsity", "dampening"], sort=False)
    means["draws", ""] = lines.groupby(kinds)["draw"].nunique()
    return means


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="lines of JSON; those of earlier calls stay")
    parser.add_argument("--config", default="configs/real_tasks.yaml", help="experiment with the task and its teacher")
    parser.add_argument("--task", required=True, help="one of the experiment's")
    parser.add_argument("--gradients", nargs="+", choices=GRADIENTS, default=list(GRADIENTS)[:2])
    parser.add_argument("--draw", type=int, nargs="+", default=[0, 1, 2], help="numbers of draws of gradients")
    arguments = parser.parse_args(argv)
    prepared = start(Plan.load(arguments.config).teacher(arguments.task))
    dense = {name: value.clone() for name, value in prepared.network.state_dict().items()}
    lines = arguments.file.read_text().splitlines() if arguments.file.exists() else []
    known = {tuple(json.loads(line)[name] for name in IDENTITY) for line in lines}
    arguments.file.parent.mkdir(parents=True, exist_ok=True)
    for draw, kind in product(arguments.draw, arguments.gradients):
        for found in grid(prepared, dense, arguments.task, kind, draw, known):
            print(json.dumps(found), flush=True)
            with arguments.file.open("a") as file:
                file.write(json.dumps(found) + "\n")
    print(table(arguments.file).round(2).to_string())


if __name__ == "__main__":
    main()
