import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from obert.foundation.errors import UserError
from obert.statistics.estimates import RESAMPLES, Resampled, Summary, bootstrap, bootstrap_means, mean_over_tasks
from obert.statistics.metrics import f1


def paired_difference(first, second):
    one, other = bootstrap_means([first, second])
    return (one - other).interval()


@pytest.mark.parametrize("examples", [2, 7, 4500])
def test_resamples_are_those_of_scipy(examples, monkeypatch):
    """Of scipy's percentile bootstrap with the same generator, whatever is held in memory at a time."""
    monkeypatch.setattr("obert.statistics.estimates.BATCH_ELEMENTS", 2_000_000)
    scores = np.random.default_rng(1).choice([0.0, 40.0, 200 / 3, 100.0], (3, examples))
    found = np.stack([resampled.distribution for resampled in bootstrap_means([pd.Series(row) for row in scores], 5)])
    expected = stats.bootstrap(
        (scores,), np.mean, axis=-1, n_resamples=RESAMPLES, batch=100, rng=np.random.default_rng(5)
    ).bootstrap_distribution
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_columns_that_are_the_same_differ_by_nothing_at_all():
    """Not by the rounding of sums that are taken in another order: a difference of 1e-16 would be shown as -0.00."""
    scores = pd.Series(np.random.default_rng(2).uniform(0, 100, 501))
    first, second = bootstrap_means([scores, scores[::-1]])
    assert (first.distribution == second.distribution).all()


def test_summary_has_the_mean_and_the_sample_standard_deviation():
    summary = Summary.of([86.0, 88.0, 90.0])
    assert (summary.mean, summary.std, summary.n) == (88.0, 2.0, 3)


def test_summary_of_one_run_has_no_standard_deviation():
    summary = Summary.of([86.0])
    assert summary.mean == 86.0 and math.isnan(summary.std) and summary.n == 1


def test_missing_values_are_not_counted():
    assert Summary.of([]).n == 0 and math.isnan(Summary.of([]).mean)
    assert Summary.of([math.nan, 80.0]).n == 1


def test_bootstrap_interval_agrees_with_the_normal_approximation():
    """Half of n = 400 differences are 10, half are 0: mean 5, standard error 5 / sqrt(400) = 0.25."""
    first = pd.Series(dict(enumerate([10.0, 0.0] * 200)))
    found = paired_difference(first, first * 0)
    assert found.mean == 5.0
    assert found.low == pytest.approx(5 - 1.96 * 0.25, abs=0.06)
    assert found.high == pytest.approx(5 + 1.96 * 0.25, abs=0.06)
    assert found.low > 0


def test_bootstrap_pairs_examples_by_id_and_is_repeatable():
    generator = np.random.default_rng(1)
    first = pd.Series(generator.normal(50, 30, 200))
    second = first - 1
    found = paired_difference(first, second.sample(frac=1, random_state=1))
    assert (found.low, found.high) == pytest.approx((1, 1))
    other = pd.Series(generator.normal(50, 30, 200))
    assert paired_difference(first, other) == paired_difference(first, other)


def test_difference_over_one_example_has_no_interval():
    found = paired_difference(pd.Series({"a": 1.0}), pd.Series({"a": 0.0}))
    assert found.mean == 1.0 and math.isnan(found.low)


def test_mean_over_tasks_has_the_standard_error_of_independent_means():
    """Two means with standard errors 0.25 and 0.5 (twice the scores): their average has sqrt(0.3125) / 2 = 0.28."""
    scores = pd.Series(dict(enumerate([10.0, 0.0] * 200)))
    (first,), (second,) = (bootstrap_means([scores], seed) for seed in (0, 1))
    found = mean_over_tasks([first, second.scaled(2)]).interval()
    assert found.mean == 7.5
    assert (found.low, found.high) == pytest.approx((7.5 - 1.96 * 0.28, 7.5 + 1.96 * 0.28), abs=0.07)


def exact_values(tables, metric):
    """The metric of every resample of examples, all as likely: [seeds, examples, terms] to values."""
    examples = range(tables.shape[1])
    return np.sort([
        np.mean([metric(of_seed[list(drawn)].mean(axis=0)) for of_seed in tables])
        for drawn in product(examples, repeat=len(examples))
    ])  # fmt: skip


@pytest.mark.parametrize(("metric", "terms"), [(lambda means: means[..., 0], 1), (f1, 3)])
@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_resamples_are_of_examples_and_means_of_seeds(metric, terms, seeds):
    """Their distribution is that of all possible resamples, but for the noise of 2,000 (1.63 / sqrt(n) at 1 %)."""
    tables = np.random.default_rng(3).integers(1, 9, (seeds, 4, terms)).astype(float)
    exact = exact_values(tables, metric)
    [found] = bootstrap([[pd.DataFrame(table) for table in tables]], metric)
    values = [float(metric(table.mean(axis=0))) for table in tables]
    assert found.mean == pytest.approx(np.mean(values)) and found.seeds[0] == pytest.approx(values)
    assert stats.ks_2samp(found.distribution.round(9), exact.round(9)).statistic < 1.63 / math.sqrt(RESAMPLES)


def test_an_interval_over_seeds_alone_is_students():
    """All examples are alike, so nothing but the seeds is left to vary: a standard error of 6.009, times 4.303."""
    tables = [pd.DataFrame([[score]] * 50) for score in (60.0, 65.0, 80.0)]
    [found] = bootstrap([tables], lambda means: means[..., 0])
    half = 4.3027 * np.std([60, 65, 80], ddof=1) / math.sqrt(3)
    assert (found.interval().low, found.interval().high) == pytest.approx((205 / 3 - half, 205 / 3 + half), abs=1e-3)


def test_an_interval_adds_the_squares_of_what_seeds_and_examples_are():
    """Seeds with a standard error of 1 and two degrees of freedom; examples with one of 0.5."""
    seeds, draws = np.sqrt(3) * np.array([-1.0, 0.0, 1.0]), np.random.default_rng(0).normal(0, 0.5, RESAMPLES)
    found = Resampled(0.0, draws, (seeds,)).interval()
    half = math.hypot(4.303, 1.96 * 0.5)
    assert (found.low, found.high) == pytest.approx((-half, half), abs=0.03)
    two = mean_over_tasks([Resampled(0.0, draws, (seeds,)), Resampled(0.0, 0 * draws, (seeds,))]).interval()
    assert two.high == pytest.approx(math.hypot(4.303, 4.303, 1.96 * 0.5) / 2, abs=0.03)


def test_differences_are_paired_by_seed_and_example():
    """Seeds that differ by 40 points and examples that differ by 100 do not blur a difference of 1 on all of them."""
    tables = [pd.DataFrame(np.random.default_rng(seed).choice([0.0, 100.0], (50, 1)) - 40 * seed) for seed in (0, 1)]
    one, other = bootstrap([[table + 1 for table in tables], tables], lambda means: means[..., 0])
    found = (one - other).interval()
    assert (found.low, found.high) == pytest.approx((1, 1))


def test_bootstrap_refuses_series_of_different_examples():
    with pytest.raises(UserError, match="share 1 ids"):
        paired_difference(pd.Series({"a": 1.0, "b": 1.0}), pd.Series({"a": 1.0, "c": 1.0}))
