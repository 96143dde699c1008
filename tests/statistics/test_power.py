"""How small a difference is found, against simulated models."""

import math

import numpy as np
import pytest
from scipy import stats

from obert.statistics.estimates import Resampled
from obert.statistics.power import POWER, detectable, needed_for


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.5), (3, 0.0), (5, 1.0)])
def test_a_difference_that_is_said_to_be_found_is_found_four_times_in_five(seeds, spread):
    """Two models on 2,000 examples, of which they answer 10 % differently."""
    rng, examples = np.random.default_rng(0), 2000
    normal = stats.norm.ppf((np.arange(2000) + 0.5) / 2000)
    lead, found = detectable(examples, seeds, 0.1, spread), 0
    for _ in range(1000):
        shared = 100 * math.sqrt(0.1 / examples) * rng.standard_normal()
        of_seeds = lead + shared + spread * rng.standard_normal(seeds)
        mean = of_seeds.mean()
        drawn = mean + 100 * math.sqrt(0.1 / examples) * normal
        found += Resampled(mean, drawn, (of_seeds,)).interval().is_certain
    assert found / 1000 == pytest.approx(POWER, abs=0.04)


@pytest.mark.parametrize(("points", "seeds"), [(1.0, 5), (2.0, 2), (5.0, 3)])
def test_the_number_of_examples_turns_it_round(points, seeds):
    enough, examples = needed_for(points, seeds)
    assert enough >= seeds
    assert detectable(examples, enough) <= points < detectable(examples - 1, enough)


def test_where_seeds_vary_too_much_it_takes_more_of_them():
    """With four seeds, Student's 3.18 and 0.84 standard errors of 0.25 are more than a point; with five, less."""
    assert needed_for(1.0, 1)[0] == needed_for(1.0, 4)[0] == 5
    assert needed_for(1.0, 6)[0] == 6


def test_one_seed_tells_nothing_of_others():
    assert detectable(10**6, 1) == math.inf


def test_without_a_spread_it_is_mcnemars():
    """1.96 + 0.84 standard errors of the square root of 0.1 / 1,000."""
    assert detectable(1000, 2, spread=0) == pytest.approx(2.8016 * 1.0, abs=1e-3)
