"""Speeds beside what they are over, where they were measured, and how busy the machine was: in all tables."""

import math

import numpy as np
import pytest

from obert.deployment.latency import speedup, summarize_latency
from obert.records.record import Score
from obert.tables.components import Components
from obert.tables.latency import Latency
from obert.tables.leaderboard import Leaderboard
from obert.tables.pareto_speed import ParetoSpeed
from obert.tables.table17 import Table17
from tables.examples import DENSE_RECIPE, record

CHOSEN = {"method": "obert", "sparsity": 0.9}
MACHINE = {"cpu": "A processor", "cores": 8, "isa_flags": ["avx2", "avx512f"]}
MARK = "\N{DAGGER}"


def timing(load, seed, **chosen):
    """A timing of raw seconds as the stage writes it: the dense model takes about 0.4 s a batch of 8, this one 0.1."""
    rng = np.random.default_rng(seed)
    seconds = {"reference": rng.normal(0.4, 0.01, 20) * (1 + load), "candidate": rng.normal(0.1, 0.01, 20) * (1 + load)}
    ratio, interval = speedup(seconds["reference"], seconds["candidate"])
    summaries = {role: vars(summarize_latency(values, 8)) for role, values in seconds.items()}
    said = summaries | {"speedup_over": "reference", "speedup_interval": interval, "version": "1.2"}
    metrics = {"speedup": ratio, "throughput": summaries["candidate"]["throughput"]}
    metrics["latency_p50_ms"] = summaries["candidate"]["p50_ms"]
    return record(
        "benchmark",
        metrics={f"pytorch_{name}": Score(value=value, count=20) for name, value in metrics.items()},
        details={"engines": {"pytorch": said}, "cores_in_use_before": load},
        environment=MACHINE,
        threads=4,
        **chosen,
    )


@pytest.fixture
def timed(make_results):
    """Two models, the second timed while more than half of the eight cores were busy; and the dense one, unmarked."""
    second = {**CHOSEN, "method": "magnitude"}
    runs = [record("teacher", 80.0), record("downstream", 70.0, **CHOSEN), record("downstream", 60.0, **second)]
    runs += [record("export", **CHOSEN), record("export", **second)]
    runs += [timing(3.9, 1, **CHOSEN), timing(4.1, 2, **second)]
    slow = {"pytorch_throughput": Score(value=11.0, count=20)}
    runs.append(record("benchmark", metrics=slow, recipe=DENSE_RECIPE, environment=MACHINE, threads=4))
    return make_results([(made, None, 0) for made in runs])


def test_speedups_are_the_ratio_of_the_columns_beside_them(timed):
    """Not of the dense row's throughput, which is from another process, on a less busy machine."""
    rows = Leaderboard().build(timed).set_index("method")
    assert math.isnan(rows.loc["dense", "pytorch_dense_throughput"])
    for method in ("obert", "magnitude"):
        row = rows.loc[method]
        assert row["pytorch_throughput"] / row["pytorch_dense_throughput"] == pytest.approx(row["pytorch_speedup"])
        assert abs(row["pytorch_throughput"] / rows.loc["dense", "pytorch_throughput"] - row["pytorch_speedup"]) > 1
    latency = Latency().build(timed).dropna(subset=["speedup"])
    assert (latency["dense_p50_ms"] / latency["latency_p50_ms"]).tolist() == pytest.approx(latency["speedup"].tolist())
    model = Table17().build(timed)["pytorch"].dropna(subset=["speedup"])
    assert (model["throughput"] / model["dense"]).tolist() == pytest.approx(model["speedup"].tolist())
    assert len(latency) == len(model) == 2


def test_what_was_measured_under_load_is_marked(timed):
    board = Leaderboard()
    shown = board.display(board.build(timed)).set_index("method")
    for column in ("pytorch ex/s", "pytorch speed-up"):
        assert [MARK in shown.loc[method, column] for method in ("dense", "obert", "magnitude")] == [False, False, True]
    latency = Latency()
    assert [MARK in text for text in latency.display(latency.build(timed))["items/s"]] == [False, True, False]
    models = Table17()
    assert sum(MARK in text for text in models.display(models.build(timed))["pytorch", "speedup"]) == 1
    (note,) = [note for note in board.notes(timed) if note.text.startswith(MARK)]
    assert note.lines == ("benchmark/movie_reviews/gradual/magnitude-0.9/seed0: 4.1 cores in use",)


@pytest.mark.parametrize("table", [Leaderboard, Latency, ParetoSpeed, Table17, Components])
def test_every_table_of_speeds_names_the_machine(timed, table):
    texts = [note.text for note in table().notes(timed)]
    assert "Timed on A processor (avx2, avx512f), 8 cores, 4 threads: pytorch 1.2." in texts
