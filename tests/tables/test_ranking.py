import math

import numpy as np
import pytest

from obert.statistics.estimates import Resampled
from obert.tables._measured import groups
from obert.tables._ranking import differences, fewest_seeds, rank_text, ranks
from tables.examples import record


def difference(mean, half_width):
    return Resampled(mean, np.linspace(mean - half_width, mean + half_width, 2000))


def test_rank_is_one_plus_the_number_of_better_methods():
    """The second is behind the first for certain, the third lies lower with a wide interval to both."""
    known = {(0, 1): difference(2, 1), (0, 2): difference(3, 9), (1, 2): difference(1, 9)}
    pairs = known | {(j, i): Resampled(0, 0 * d.distribution) - d for (i, j), d in known.items()}
    assert ranks(3, pairs) == [1, 2, 1]


def test_two_methods_are_compared_over_the_seeds_that_both_have(make_results):
    """Seed 1 of oBERT alone is wrong throughout: magnitude, with seed 0 only, is not compared with it."""
    right, wrong = (100, 100, 100, 100), (0, 0, 0, 0)
    runs = [("obert", 0, right), ("obert", 1, wrong), ("magnitude", 0, right), ("obd", 0, right), ("obd", 1, right)]
    results = make_results([(record("downstream", s[0], method=m, sparsity=0.9, seed=k), s, 0) for m, k, s in runs])
    found = {group.method: group for group in groups(results, "movie_reviews")}
    pairs = differences(results, [found[name] for name in ("obert", "magnitude", "obd")])
    assert {pair: d.mean for pair, d in pairs.items() if pair[0] == 0} == {(0, 1): 0.0, (0, 2): -50.0}


def test_a_rank_is_over_the_fewest_seeds_of_its_comparisons(make_results):
    """Magnitude has one seed, so that what is said of it, and against it, is of one seed."""
    seeds = {"obert": (0, 1, 2), "obd": (0, 1), "magnitude": (0,)}
    runs = [
        (record("downstream", 50.0, method=m, sparsity=0.9, seed=s), None, 0) for m, of in seeds.items() for s in of
    ]
    found = {group.method: group for group in groups(make_results(runs), "movie_reviews")}
    assert fewest_seeds([found[name] for name in seeds]) == [1, 1, 1]
    assert fewest_seeds([found["obert"], found["obd"]]) == [2, 2]


@pytest.mark.parametrize(
    ("rank", "seeds", "text"),
    [
        (2, 1, "2 (one seed)"),
        (2, 2, "2"),
        (1, 0, "1 (no common seed)"),
        (math.nan, math.nan, "\N{EN DASH}"),
    ],
)
def test_a_rank_of_one_seed_says_so(rank, seeds, text):
    assert rank_text(rank, seeds) == text
