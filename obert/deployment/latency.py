"""Timing on a CPU: all engines in one process, warmed up, interleaved, raw samples kept."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

from obert.engines import Engine
from obert.foundation.errors import UserError
from obert.foundation.nodes import granted_cores
from obert.statistics import CONFIDENCE

RESAMPLES = 9999
Interval = tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """Latencies of one engine: percentiles in ms, median throughput in items/s with its 95 % interval."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    throughput: float
    throughput_interval: Interval


def random_inputs(vocabulary: int, batch_size: int, length: int, seed: int) -> dict[str, np.ndarray]:
    """A batch of random token ids without padding: three int64 arrays [batch_size, length]."""
    ids = np.random.default_rng(seed).integers(vocabulary, size=(batch_size, length), dtype=np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def require_cores(threads: int, option: str = "benchmark.threads") -> None:
    """Raise UserError if `threads` threads would share the processors that this process may use.

    Args:
        option: what asks for them.
    """
    cores = granted_cores()
    if threads > cores:
        raise UserError(
            f"{option} {threads}: this process may use {cores} CPU cores, and more threads than cores would "
            f"time the scheduler. Set {option} to {cores} or less, or run on a larger machine."
        )


def require_threads(engine: Engine, asked: int) -> None:
    """Raise UserError if an engine says that it runs with another number of threads than was asked for."""
    found = engine.threads()
    if found != asked:
        raise UserError(
            f"{engine.label} runs with {found} threads, not the {asked} that were asked for: its timings would not "
            "compare. Look for a variable such as OMP_NUM_THREADS in the environment, or ask for that many."
        )


def time_engines(
    engines: Mapping[str, Engine],
    inputs: dict[str, np.ndarray],
    *,
    threads: int,
    warmup: int,
    iterations: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each of `iterations` runs of each engine, in the order they were timed.

    The engines take turns, so that a change of the machine's speed meets all of them, and every other round goes
    backwards, so that none always follows the same one. `warmup` rounds come first and are not timed.

    Raises:
        UserError: an engine says before or after timing that it does not run with `threads` threads.
    """
    for engine in engines.values():
        require_threads(engine, threads)
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    order = list(engines)
    for round_ in range(-warmup, iterations):
        for name in order if round_ % 2 == 0 else reversed(order):
            start = clock()
            engines[name].run(inputs)
            elapsed = clock() - start
            if round_ >= 0:
                seconds[name].append(elapsed)
    for engine in engines.values():
        require_threads(engine, threads)
    return seconds


def _interval(samples: tuple[Sequence[float], ...], statistic: Callable, seed: int) -> Interval:
    """Percentile bootstrap interval. (The corrected kinds need a smooth statistic, which a median is not.)"""
    result = bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        paired=len(samples) > 1,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def summarize_latency(seconds: Sequence[float], batch_size: int, seed: int = 0) -> Summary:
    """Percentiles (linear interpolation) and throughput: items of a batch over the median of `seconds`.

    Args:
        seconds: one sample a batch.
        seed: of the bootstrap.
    """

    def throughput(sample, axis=-1):
        return batch_size / np.median(sample, axis=axis)

    p50, p90, p99 = (float(value) * 1e3 for value in np.percentile(seconds, (50, 90, 99)))
    return Summary(p50, p90, p99, float(throughput(np.asarray(seconds))), _interval((seconds,), throughput, seed))


def speedup(dense: Sequence[float], candidate: Sequence[float], seed: int = 0) -> tuple[float, Interval]:
    """How many times faster the candidate is: the ratio of the medians, with its 95 % paired bootstrap interval.

    Args:
        dense: seconds of the dense model, iteration by iteration.
        candidate: seconds of the candidate in the same iterations.
        seed: of the bootstrap.
    """

    def ratio(first, second, axis=-1):
        return np.median(first, axis=axis) / np.median(second, axis=axis)

    return float(ratio(np.asarray(dense), np.asarray(candidate))), _interval((dense, candidate), ratio, seed)
