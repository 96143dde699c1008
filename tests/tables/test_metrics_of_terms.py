"""Ranks where the primary metric is no mean: the paired bootstrap resamples examples and computes it anew."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from obert.tables._chance import Scale
from obert.tables._measured import groups
from obert.tables._ranking import differences, ranks
from tables.examples import record

TRUE = np.arange(200) % 10 < 7
KINDS = ((True, True), (False, False), (True, False), (False, True))


def lines(given):
    for i, (g, t) in enumerate(zip(given, TRUE, strict=True)):
        yield json.dumps({"id": str(i), "prediction": int(g), "terms": [int((g, t) == kind) for kind in KINDS]})


@pytest.fixture
def results(make_results, tmp_path):
    """oBERT is right on 90 % of each class; magnitude calls all but a few acceptable, and is as accurate."""
    rng = np.random.default_rng(0)
    made = {}
    for seed in range(5):
        made["obert", seed] = TRUE ^ (rng.random(200) < 0.25)
        made["magnitude", seed] = TRUE | (rng.random(200) < 0.85)
    runs = []
    for (method, seed), given in made.items():
        value = 100 * matthews_corrcoef(TRUE, given)
        of_run = record("downstream", value, task="my_cola", method=method, sparsity=0.9, seed=seed)
        of_run.spec["task"] = {"kind": "cola"}
        runs.append((of_run, None, 0))
    results = make_results(runs)
    for of_run in results.records:
        given = made[of_run.key.method, of_run.key.seed]
        (tmp_path / "runs" / of_run.key.path / "predictions.jsonl").write_text("\n".join(lines(given)))
    return results


def test_differences_are_of_the_metric_and_not_of_scores(results):
    block = sorted(groups(results, "my_cola"), key=lambda group: group.method)
    pairs = differences(results, block)
    assert block[0].method == "magnitude"
    assert pairs[1, 0].mean == pytest.approx(block[1].score.mean - block[0].score.mean)
    found = pairs[1, 0].interval()
    assert 0 < found.low < found.mean < found.high
    assert ranks(2, pairs) == [2, 1]


def test_examples_that_the_metric_does_not_count_take_no_part(make_results, tmp_path):
    of_run = record("downstream", 50.0, method="obert", sparsity=0.9)
    results = make_results([(of_run, (100, 0, 100, 0), 0)])
    with (tmp_path / "runs" / of_run.key.path / "predictions.jsonl").open("a") as file:
        file.write(json.dumps({"id": "mismatched-a", "prediction": 1, "score": None}) + "\n")
    assert results.terms(of_run.key)[0].to_dict() == {"a": 100, "b": 0, "c": 100, "d": 0}


@pytest.mark.parametrize("dense", [0.0, -12.5, math.nan])
def test_nothing_is_recovered_of_a_correlation_that_is_not_there(dense):
    assert math.isnan(Scale(dense, 0.0).recovery(5.0))
