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

CANDIDATE, DENSE, BASELINE = "candidate", "dense", "reference"
"""Roles: the model that is timed, the dense one in the same engine, the dense one in the reference engine."""


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
    """One engine in one scenario.

    Attributes:
        seconds: of each iteration, by role.
        baseline: the role that speed-ups are over; None where there is none but the candidate itself.
        said: what the engine says of itself.
        scores: of the candidate.
    """

    seconds: dict[str, list[float]]
    baseline: str | None
    said: dict[str, Any]
    scores: dict[str, Score]


def time_engine(
    engine_class: type[Engine],
    reference: type[Engine],
    models: dict[str, ModelFiles],
    scenario: Scenario,
    settings: Benchmark,
    seed: int,
    data: Features | None,
) -> Timed:
    """Time the models in turns with the dense one in the reference engine, then score the candidate.

    An engine's own dense model may be slower than the reference's, and speed-ups over it would flatter the engine. One
    that needs hardware of its own, such as a GPU, is compared with itself, and so is the reference. Where the reference
    does not run, there is nothing to compare with. All models are freed on return, before the next engine's.

    Args:
        models: the candidate, and the dense model unless that is the candidate.

    Raises:
        UserError: an engine does not keep to the number of threads.
    """
    inputs = _input_batch(scenario, models[CANDIDATE], seed)
    engines = {role: engine_class(files, scenario.threads) for role, files in models.items()}
    others, baseline = {}, None
    if engine_class is reference or engine_class.hardware is not None:
        baseline = DENSE if DENSE in models else None
    elif reference.unavailable_reason() is None:
        others, baseline = {BASELINE: reference(models.get(DENSE, models[CANDIDATE]), scenario.threads)}, BASELINE
    seconds = time_engines(
        others | engines,
        inputs,
        threads=scenario.threads,
        warmup=settings.warmup,
        iterations=settings.iterations,
    )
    unsupported = {role: engine.unsupported() for role, engine in engines.items()}
    linear = {role: engine.linear_seconds(inputs) for role, engine in engines.items()}
    said = {
        "version": engines[CANDIDATE].version(),
        "threads": {role: engine.threads() for role, engine in engines.items()},
        "unsupported": {role: operator for role, operator in unsupported.items() if operator},
        "linear_seconds": {role: seconds for role, seconds in linear.items() if seconds is not None},
    }
    scores = {}
    if data is not None:
        scores = score_in(engines[CANDIDATE], data)
    return Timed(seconds, baseline, said, scores)


def speeds(summary: Summary, count: int) -> dict[str, Score]:
    """Throughput in items/s and percentiles of a batch's latency in ms, as metrics."""
    values = {
        "throughput": summary.throughput,
        "latency_p50_ms": summary.p50_ms,
        "latency_p90_ms": summary.p90_ms,
        "latency_p99_ms": summary.p99_ms,
    }
    return {name: Score(value=value, count=count) for name, value in values.items()}
