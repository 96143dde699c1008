"""Models timed and scored in one engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from obert.deployment.engine_scores import score_in
from obert.deployment.latency import Summary, random_inputs, time_engines
from obert.engines import Engine, ModelFiles
from obert.experiment.schema import Benchmark, Scenario
from obert.models.positions import check_length
from obert.records.record import Score
from obert.training.features import Features


def _input_batch(scenario: Scenario, model: ModelFiles, seed: int) -> dict[str, Any]:
    config = AutoConfig.from_pretrained(model.trained, trust_remote_code=False)
    return random_inputs(config.vocab_size, scenario.batch_size, scenario.sequence_length, seed)


def check_lengths(scenarios: Iterable[Scenario], model: str | Path) -> None:
    """Raise UserError if the model is too short for one of the scenarios."""
    longest = max(scenario.sequence_length for scenario in scenarios)
    config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    check_length(config, longest, "benchmark.sequence_length")


@dataclass(frozen=True)
class Timed:
    """One engine in one scenario: seconds of each model, what the engine says of itself, scores of the candidate."""

    seconds: dict[str, list[float]]
    said: dict[str, Any]
    scores: dict[str, Score]


def time_engine(
    engine_class: type[Engine],
    models: dict[str, ModelFiles],
    scenario: Scenario,
    settings: Benchmark,
    seed: int,
    data: Features | None,
) -> Timed:
    """Time the models, then score the candidate. They are freed on return, before the next engine's.

    Raises:
        UserError: the engine does not keep to the number of threads.
    """
    inputs = _input_batch(scenario, models["candidate"], seed)
    engines = {role: engine_class(files, scenario.threads) for role, files in models.items()}
    seconds = time_engines(
        engines, inputs, threads=scenario.threads, warmup=settings.warmup, iterations=settings.iterations
    )
    unsupported = {role: engine.unsupported() for role, engine in engines.items()}
    linear = {role: engine.linear_seconds(inputs) for role, engine in engines.items()}
    said = {
        "version": engines["candidate"].version(),
        "threads": {role: engine.threads() for role, engine in engines.items()},
        "unsupported": {role: operator for role, operator in unsupported.items() if operator},
        "linear_seconds": {role: seconds for role, seconds in linear.items() if seconds is not None},
    }
    scores = {}
    if data is not None:
        scores = score_in(engines["candidate"], data)
    return Timed(seconds, said, scores)


def speeds(summary: Summary, count: int) -> dict[str, Score]:
    """Throughput in items/s and percentiles of a batch's latency in ms, as metrics."""
    values = {
        "throughput": summary.throughput,
        "latency_p50_ms": summary.p50_ms,
        "latency_p90_ms": summary.p90_ms,
        "latency_p99_ms": summary.p99_ms,
    }
    return {name: Score(value=value, count=count) for name, value in values.items()}
