"""Metrics from terms against scikit-learn, SciPy and seqeval, and their bootstrap against resampling by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import tagged
from scipy import stats
from seqeval.metrics import f1_score, precision_score, recall_score
from sklearn.metrics import f1_score as f1_of_labels
from sklearn.metrics import matthews_corrcoef

from obert.statistics.estimates import RESAMPLES, bootstrap
from obert.statistics.metrics import f1, matthews, pearson, pearson_terms, spearman

RNG = np.random.default_rng(0)
GIVEN, TRUE = RNG.random(200) < 0.6, RNG.random(200) < 0.7
NUMBERS = RNG.normal(2.5, 1, 200)
JUDGED = NUMBERS + RNG.normal(0, 1, 200)


def of_kinds(given, true):
    return np.stack([given & true, ~given & ~true, given & ~true, ~given & true], axis=1).astype(float)


def of_numbers(x, y):
    return np.array([pearson_terms(a, b) for a, b in zip(x, y, strict=True)])


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
def test_matthews_and_f1_of_labels(shared):
    true = np.where(RNG.random(200) < shared, GIVEN, TRUE)
    terms = of_kinds(GIVEN, true)
    assert matthews(terms.mean(axis=0)) == pytest.approx(100 * matthews_corrcoef(true, GIVEN))
    counts = np.array([(GIVEN & true).sum(), GIVEN.sum(), true.sum()])
    assert f1(counts) == pytest.approx(100 * f1_of_labels(true, GIVEN))


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_pearson(offset):
    found = pearson(of_numbers(NUMBERS + offset, JUDGED).mean(axis=0))
    assert found == pytest.approx(100 * stats.pearsonr(NUMBERS, JUDGED).statistic, abs=1e-6)


def test_what_is_not_defined_is_nought():
    ones = np.ones(200, dtype=bool)
    assert matthews(of_kinds(ones, TRUE).sum(axis=0)) == matthews_corrcoef(TRUE, ones) == 0
    assert pearson(of_numbers(np.full(200, 2.7), JUDGED).sum(axis=0)) == 0
    assert f1(np.array([0, 0, 0])) == 0


@pytest.mark.parametrize(
    ("metric", "terms", "by_hand"),
    [
        (matthews, of_kinds(GIVEN, TRUE | GIVEN), lambda i: matthews_corrcoef((TRUE | GIVEN)[i], GIVEN[i])),
        (pearson, of_numbers(NUMBERS, JUDGED), lambda i: stats.pearsonr(NUMBERS[i], JUDGED[i]).statistic),
    ],
)
def test_a_resample_is_judged_as_if_it_were_the_data(metric, terms, by_hand):
    """The spread of the bootstrap is that of the metric computed anew from resampled examples."""
    table = pd.DataFrame(terms, [f"e{i}" for i in range(200)])
    found, again, seeds = bootstrap([[table], [table[::-1]], [table, table]], metric)
    assert found.mean == pytest.approx(100 * by_hand(np.arange(200)))
    np.testing.assert_allclose(found.distribution, again.distribution)  # paired, whatever the order
    np.testing.assert_allclose(found.distribution, seeds.distribution)
    rng = np.random.default_rng(1)
    ours = 100 * np.array([by_hand(rng.integers(0, 200, 200)) for _ in range(RESAMPLES)])
    for quantile in (2.5, 50, 97.5):
        difference = np.percentile(found.distribution, quantile) - np.percentile(ours, quantile)
        assert abs(difference) < 0.3 * ours.std()


def test_seeds_are_averaged_after_the_metric():
    tables = [pd.DataFrame(of_kinds(GIVEN, true), range(200)) for true in (GIVEN, TRUE)]
    (found,) = bootstrap([tables], matthews)
    assert found.mean == pytest.approx(50 + 50 * matthews_corrcoef(TRUE, GIVEN))


def test_entities_are_counted_as_seqeval_counts_them():
    from obert.experiment.recipes import load_task

    task = load_task("names", {"kind": "tagging", "source": "none"}, "the test")
    rows = tagged(40, seed=5)
    others = [tag for row in tagged(80, seed=6) for tag in row["ner_tags"]]
    lines = []
    for row in rows:
        given = [next(iter(others)) if i % 5 == 0 else tag for i, tag in enumerate(row["ner_tags"])]
        given = [others.pop() if i % 4 == 0 else tag for i, tag in enumerate(given)]
        lines.append({"id": row["id"], "prediction": given, "label": row["ner_tags"]})
    true, given = ([line[key] for line in lines] for key in ("label", "prediction"))
    found = task.score(lines, None)
    by_seqeval = {"f1": f1_score, "precision": precision_score, "recall": recall_score}
    for name, metric in by_seqeval.items():
        assert 0 < found[name].value < 100
        assert found[name].value == pytest.approx(100 * metric(true, given))


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=8),
)
def test_spearman_of_a_resample_is_scipys_of_the_examples_drawn(rows):
    """With ties within and between examples; 0 where scipy has no value, or a resample has nothing in it."""
    x, y, counts = np.array(rows).T
    drawn_x, drawn_y = np.repeat(x, counts), np.repeat(y, counts)
    defined = len(set(drawn_x)) > 1 and len(set(drawn_y)) > 1
    expected = 100 * stats.spearmanr(drawn_x, drawn_y).statistic if defined else 0.0
    if counts.sum():
        found = spearman(x, y, np.stack([counts, np.ones_like(counts)]).astype(float))
        assert found[0] == pytest.approx(expected, abs=1e-6)
