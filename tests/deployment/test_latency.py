import os

import numpy as np
import pytest

from obert.deployment.latency import (
    random_inputs,
    require_cores,
    require_threads,
    speedup,
    summarize_latency,
    time_engines,
)
from obert.engines import Engine
from obert.foundation.errors import UserError


class Clock:
    """A clock that only engines move."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


class FakeEngine(Engine):
    """Takes `seconds` for its first run, twice that for its second, and so on; writes its name to `order`."""

    label = "Fake"
    library = "json"

    def __init__(self, name, clock, order, seconds, says_threads=1):
        self.name, self.clock, self.order, self.seconds, self.says = name, clock, order, seconds, says_threads
        self.runs = 0

    def run(self, inputs):
        self.runs += 1
        self.order.append(self.name)
        self.clock.time += self.seconds * self.runs
        return []

    def threads(self):
        return self.says


def test_engines_take_turns_in_alternating_order_and_warm_up_is_not_counted():
    clock, order = Clock(), []
    engines = {name: FakeEngine(name, clock, order, cost) for name, cost in (("dense", 8.0), ("candidate", 1.0))}
    seconds = time_engines(engines, {}, threads=1, warmup=2, iterations=4, clock=clock)
    d, c = "dense", "candidate"
    assert order == [d, c, c, d, d, c, c, d, d, c, c, d]
    # Runs 1 and 2 are warm-up, so the samples are those of runs 3 to 6.
    assert seconds == {"dense": [24.0, 32.0, 40.0, 48.0], "candidate": [3.0, 4.0, 5.0, 6.0]}


def test_one_engine_alone_is_timed_too():
    clock, order = Clock(), []
    seconds = time_engines(
        {"candidate": FakeEngine("candidate", clock, order, 1.0)}, {}, threads=1, warmup=1, iterations=2, clock=clock
    )
    assert seconds == {"candidate": [2.0, 3.0]}


def test_engine_with_other_threads_than_asked_is_refused_before_it_runs():
    order = []
    engine = FakeEngine("dense", Clock(), order, 1.0, says_threads=3)
    with pytest.raises(UserError, match="Fake runs with 3 threads, not the 2 that were asked for"):
        time_engines({"dense": engine}, {}, threads=2, warmup=1, iterations=2)
    assert order == []
    require_threads(engine, 3)


def test_engine_that_changes_its_threads_while_timed_is_refused():
    class Unsteady(FakeEngine):
        def threads(self):
            return 1 + self.runs

    with pytest.raises(UserError, match="runs with 4 threads"):
        time_engines({"dense": Unsteady("dense", Clock(), [], 1.0)}, {}, threads=1, warmup=1, iterations=2)


def test_summary_of_a_hand_made_sample():
    # 0.1 to 1.1 s: eleven samples, so the percentiles p50 and p90 are samples themselves, and p99 lies nine tenths
    # of the way from 1.0 to 1.1.
    summary = summarize_latency([n / 10 for n in (11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)], batch_size=12)
    assert summary.p50_ms == pytest.approx(600)
    assert summary.p90_ms == pytest.approx(1000)
    assert summary.p99_ms == pytest.approx(1090)
    assert summary.throughput == pytest.approx(20)
    low, high = summary.throughput_interval
    assert 12 / 1.1 <= low < 20 < high <= 12 / 0.1


def test_summary_of_equal_samples_has_an_interval_of_no_width():
    summary = summarize_latency([0.5] * 5, batch_size=8)
    assert summary.throughput_interval == (16, 16)
    assert speedup([1.0] * 5, [0.5] * 5) == (2, (2, 2))


def test_speedup_is_the_ratio_of_medians():
    value, (low, high) = speedup([4.0, 2.0, 3.0, 9.0, 1.0], [1.0, 2.0, 1.5, 1.25, 9.0])
    assert value == pytest.approx(3.0 / 1.5)
    assert low < value < high


def test_speedup_interval_is_paired():
    """Noise that meets both models alike must not widen the interval."""
    noise = np.random.default_rng(0).uniform(1, 3, 40)
    _, (low, high) = speedup(list(4 * noise), list(noise))
    assert low == pytest.approx(4)
    assert high == pytest.approx(4)


def test_intervals_are_the_same_every_time():
    sample = list(np.random.default_rng(0).uniform(1, 2, 20))
    assert summarize_latency(sample, 8) == summarize_latency(sample, 8)


def test_throughput_interval_covers_the_truth():
    """About 95 % of intervals hold the true median; 500 of them put two standard errors at 1.9 points."""
    generator = np.random.default_rng(0)
    hits = 0
    for seed in range(500):
        low, high = summarize_latency(list(generator.lognormal(0, 0.2, 20)), 1, seed).throughput_interval
        hits += low <= 1.0 <= high
    assert 0.91 <= hits / 500 <= 0.985


def test_inputs_are_random_tokens_without_padding():
    inputs = random_inputs(50, 3, 7, seed=1)
    assert {name: (array.shape, array.dtype) for name, array in inputs.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "token_type_ids"), ((3, 7), np.dtype(np.int64))
    )
    assert inputs["input_ids"].max() < 50
    assert len(np.unique(inputs["input_ids"])) > 10
    assert inputs["attention_mask"].all()
    np.testing.assert_array_equal(inputs["input_ids"], random_inputs(50, 3, 7, seed=1)["input_ids"])
    assert (inputs["input_ids"] != random_inputs(50, 3, 7, seed=2)["input_ids"]).any()


def test_more_threads_than_granted_cores_are_refused(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5}, raising=False)
    require_cores(2)
    with pytest.raises(UserError, match=r"benchmark\.threads 3: this process may use 2 CPU cores"):
        require_cores(3)


def test_without_affinity_all_cores_count(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    require_cores(4)
    with pytest.raises(UserError, match="may use 4 CPU cores"):
        require_cores(5)
