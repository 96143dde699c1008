"""How much longer a training step takes while its run is shown in MLflow.

    python tests/benchmarks/live_tracking.py --json

Random BERT layers are trained on random tokens in rounds, each once without MLflow and once with a worker that logs the
steps to an SQLite database, its import of MLflow included. `ratio` is that of the median steps, at most 1.01;
`ratio_of_totals` that of all seconds, and `told_seconds` what telling alone takes of a step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from _timing import environment, show
from transformers import BertConfig, BertForSequenceClassification

from obert.experiment.keys import RunKey
from obert.records.record import Record
from obert.tracking import live, store

BATCH, LENGTH = 16, 64


class Training:
    """A model that is trained on one batch."""

    def __init__(self, layers: int, width: int):
        torch.manual_seed(0)
        size = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 32}
        config = BertConfig(vocab_size=1000, num_hidden_layers=layers, **size)
        self.network = BertForSequenceClassification(config).train()
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-5)
        self.batch = {"input_ids": torch.randint(1000, (BATCH, LENGTH)), "labels": torch.randint(2, (BATCH,))}

    def step(self) -> float:
        """Train one step. Returns the loss."""
        loss = self.network(**self.batch).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def record() -> Record:
    """What is known of a run at its start."""
    return Record(
        experiment="speed",
        key=RunKey("teacher", "sst2", "finetune", 0),
        spec={"recipe": {"training": {"epochs": 1}}},
        spec_hash="0" * 64,
        code_hash="0" * 16,
        environment={},
        threads=1,
        started_at=datetime.now(UTC),
        wall_time_seconds=0.0,
        peak_memory_mb=0.0,
    )


def train(training: Training, steps: int, run: live.LiveRun | None) -> tuple[list[float], float]:
    """Seconds of each step, and of all that was told."""
    seconds, told = [], 0.0
    for step in range(1, steps + 1):
        began = time.perf_counter()
        loss = training.step()
        if run is not None:
            before = time.perf_counter()
            run.stepped([{"step": step, "loss": loss, "learning_rate": 1e-5, "sparsity": 0.0}])
            told += time.perf_counter() - before
        seconds.append(time.perf_counter() - began)
    return seconds, told


def logged(uri: str) -> int:
    """Steps in the database."""
    with store.connection(uri) as client:
        experiment = client.get_experiment_by_name("speed")
        runs = client.search_runs([experiment.experiment_id]) if experiment else []
        return sum(len(client.get_metric_history(run.info.run_id, "loss")) for run in runs)


def measure(layers: int, width: int, steps: int, rounds: int) -> dict[str, Any]:
    """Both kinds of rounds, in turns."""
    training = Training(layers, width)
    train(training, 5, None)
    plain, shown, told = [], [], 0.0
    with tempfile.TemporaryDirectory() as name:
        uri = f"sqlite:///{name}/mlflow.db"
        store.initialize(uri)
        for number in range(rounds):
            plain += train(training, steps, None)[0]
            planned = SimpleNamespace(
                experiment=SimpleNamespace(tracking_uri=uri), folder=Path(name) / str(number), config=None
            )
            run = live.LiveRun(planned)
            run.started(record())
            seconds, of_telling = train(training, steps, run)
            shown += seconds
            told += of_telling
            run.end(live.FAILED)  # which logs what is left
        in_database = logged(uri)
    return {
        "ratio": statistics.median(shown) / statistics.median(plain),
        "ratio_of_totals": sum(shown) / sum(plain),
        "step_seconds": statistics.median(plain),
        "told_seconds": told / len(shown),
        "steps": len(shown),
        "steps_in_database": in_database,
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--steps", type=int, default=500, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before the worker starts MLflow")
    parser.add_argument("--threads", type=int, help="of the CPU; torch's default")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    live.PACE["delay"] = arguments.delay
    found = measure(arguments.layers, arguments.width, arguments.steps, arguments.rounds)
    found |= environment(torch.device("cpu"))
    print(json.dumps(found) if arguments.json else show(found))


if __name__ == "__main__":
    main()
