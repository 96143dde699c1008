"""Many differences at once, against tables of the studentised range, and by how often a family is judged wrongly."""

import math
from itertools import combinations, permutations

import numpy as np
import pytest
from scipy import stats

from obert.statistics.estimates import RESAMPLES, Resampled
from obert.statistics.simultaneous import are_positive, critical_value


def pairs_of(found):
    return [a - b for a, b in permutations(found, 2)]


def certain(by_seed):
    """Scores of some seeds that examples do not move."""
    by_seed = np.asarray(by_seed, dtype=float)
    return Resampled(by_seed.mean(), np.full(RESAMPLES, by_seed.mean()), (by_seed,))


@pytest.mark.parametrize(
    ("methods", "freedom", "of_range"), [(3, math.inf, 3.314), (10, math.inf, 4.474), (5, 8, 4.886)]
)
def test_the_critical_value_is_tukeys(methods, freedom, of_range):
    """By printed tables of the upper 5 % of the studentised range."""
    assert critical_value(methods, freedom) == pytest.approx(of_range / math.sqrt(2), abs=1e-3)


def test_of_two_methods_it_is_students():
    assert critical_value(2) == pytest.approx(1.96, abs=1e-3)
    assert critical_value(2, 2) == pytest.approx(4.303, abs=1e-3)


def test_two_methods_over_seeds_alone_are_judged_by_a_paired_t_test():
    rng = np.random.default_rng(4)
    for _ in range(20):
        one, other = rng.normal(1, 1, 3), rng.normal(0, 1, 3)
        expected = stats.ttest_rel(one, other).pvalue < 0.05 and one.mean() > other.mean()
        assert are_positive([certain(one) - certain(other)], 2) == [expected]


def test_a_family_takes_more_than_one_difference():
    """A lead of 2.4 standard errors, which is sure by itself, and not among ten others that are as good as nought."""
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((11, RESAMPLES))
    many = [Resampled(0.0, row - row.mean()) for row in draws]
    leads = [a - b for a, b in combinations(many, 2)]
    leads[0] = Resampled(2.4 * math.sqrt(2), leads[0].distribution)
    assert are_positive(leads[:1], 2) == [True]
    assert not any(are_positive(leads, 11))
    leads[0] = Resampled(4.4 * math.sqrt(2), leads[0].distribution)
    assert are_positive(leads, 11) == [True, *[False] * 54]


@pytest.mark.parametrize("of_seeds", [0, 1, 3, 10])
@pytest.mark.parametrize("seeds", [2, 3])
def test_how_often_any_of_a_family_is_called_different_by_mistake(seeds, of_seeds):
    """Of 200 families of five methods that are all the same, 5 % at most, whatever their seeds' share of the spread."""
    rng, mistakes = np.random.default_rng(1), 0
    drawn = rng.multinomial(100, np.full(100, 1 / 100), 300) / 100
    for _ in range(200):
        scores = rng.standard_normal((5, 1, 100)) + rng.standard_normal((5, seeds, 100))
        scores += of_seeds / 10 * rng.standard_normal((5, seeds, 1))
        found = [Resampled(of.mean(), drawn @ of.mean(axis=0), (of.mean(axis=1),)) for of in scores]
        mistakes += any(are_positive(pairs_of(found), 5))
    assert mistakes <= 17, "10 at most are to be expected, with a deviation of 3"


def test_seeds_that_agree_by_luck_prove_nothing():
    """The third and fourth methods differ by 1.5 in each of three seeds, where seeds of the others are points apart."""
    scores = [certain(by_seed) for by_seed in ([0, 3, 6], [6, 1, 0], [1.5, 1.5, 1.5], [3, 3, 3])]
    lead = scores[3] - scores[2]
    assert are_positive([lead], 2) == [True]
    assert not any(are_positive([lead, *pairs_of(scores)], 4))


def test_without_a_distribution_or_a_spread_the_mean_decides():
    unknown, known = np.full(RESAMPLES, math.nan), np.full(RESAMPLES, 2.0)
    rng = np.random.default_rng(0).standard_normal(RESAMPLES)
    given = [Resampled(1.0, unknown), Resampled(-1.0, unknown), Resampled(2.0, known), Resampled(0.0, 0 * known)]
    assert are_positive([*given, Resampled(0.0, rng)], 3) == [True, False, True, False, False]
    assert are_positive([*given[:2], Resampled(1.0, unknown, ())], 3) == [True, False, True]
