"""Many differences at once, against Tukey's studentised range, which is exact for means of normal samples."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from obert.statistics.estimates import RESAMPLES, Resampled
from obert.statistics.simultaneous import are_positive, critical_value


def means(count, seed=0):
    """Of `count` methods whose scores have nothing in common, with a standard error of 1."""
    drawn = np.random.default_rng(seed).standard_normal((count, RESAMPLES))
    return [Resampled(0.0, row - row.mean()) for row in drawn]


def shifted(found, by):
    return Resampled(found.mean + by, found.distribution + by)


@pytest.mark.parametrize("count", [2, 5, 11])
def test_the_critical_value_of_all_pairs_is_tukeys(count):
    pairs = [a - b for a, b in combinations(means(count), 2)]
    expected = stats.studentized_range.ppf(0.95, count, math.inf) / math.sqrt(2)
    assert critical_value(pairs) == pytest.approx(expected, abs=0.08)


def test_differences_that_are_the_same_count_once():
    """Bonferroni's correction would take 2.8 standard errors."""
    [a, b] = means(2)
    assert critical_value(10 * [a - b]) == pytest.approx(stats.norm.ppf(0.975), abs=0.08)


def test_a_family_takes_more_than_one_difference():
    """A lead of 2.4 standard errors, which is sure by itself, and not among ten others that are as good as nought."""
    many = means(11)
    leads = [shifted(a - b, 2.4 * math.sqrt(2) if (i, j) == (0, 1) else 0) for (i, a), (j, b) in pairs_of(many)]
    assert are_positive(leads[:1]) == [True]
    assert not any(are_positive(leads))
    leads[0] = shifted(leads[0], 2 * math.sqrt(2))
    assert are_positive(leads) == [True, *[False] * 54]


def pairs_of(of):
    return combinations(enumerate(of), 2)


def test_how_often_any_of_a_family_is_called_different_by_mistake():
    """Of 300 families of five methods that are all the same, 5 % at most, and not far less."""
    rng, mistakes = np.random.default_rng(1), 0
    for _ in range(300):
        scores = rng.standard_normal((5, 200))
        drawn = rng.multinomial(200, np.full(200, 1 / 200), 500) / 200
        found = [Resampled(float(row.mean()), drawn @ row) for row in scores]
        mistakes += any(
            are_positive([a - b for a, b in combinations(found, 2)] + [b - a for a, b in combinations(found, 2)])
        )
    assert 3 <= mistakes <= 25, "15 are to be expected, with a deviation of 4"


def test_without_a_distribution_or_a_spread_the_mean_decides():
    unknown, certain = np.full(RESAMPLES, math.nan), np.full(RESAMPLES, 2.0)
    [a, b] = means(2)
    given = [
        Resampled(1.0, unknown),
        Resampled(-1.0, unknown),
        Resampled(2.0, certain),
        Resampled(0.0, 0 * certain),
        a - b,
    ]
    assert are_positive(given) == [True, False, True, False, False]
    assert math.isnan(critical_value(given[:4]))
