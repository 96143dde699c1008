"""How small a difference is found, against simulated models."""

import math

import numpy as np
import pytest

from obert.statistics.power import POWER, detectable, examples_for, standard_error


def test_a_difference_that_is_said_to_be_found_is_found_four_times_in_five():
    """Two models on 2,000 examples, 3 seeds: 10 % of answers differ, the seeds' differences by 0.5 points."""
    rng, examples, seeds, spread = np.random.default_rng(0), 2000, 3, 0.5
    error = standard_error(examples, seeds, 0.1, spread)
    lead, found = detectable(error), 0
    for _ in range(2000):
        of_seeds = rng.normal(lead, spread, seeds).mean()
        one_way = 0.05 + of_seeds / 200  # share that the first alone gets right; of the second, so much less
        wins, losses, _ = rng.multinomial(examples, [one_way, 0.1 - one_way, 0.9])
        found += 100 * (wins - losses) / examples > 1.96 * error
    assert found / 2000 == pytest.approx(POWER, abs=0.03)


def test_the_number_of_examples_turns_it_round():
    for points, seeds in ((1.0, 3), (2.0, 2), (1.5, 1)):
        needed = examples_for(points, seeds)
        assert detectable(standard_error(needed, seeds)) <= points < detectable(standard_error(needed - 1, seeds))


def test_where_seeds_vary_too_much_no_examples_are_enough():
    assert examples_for(1.0, 1) is None
    assert detectable(0.5 / math.sqrt(1)) > 1


def test_without_a_spread_it_is_mcnemars():
    """1.96 + 0.84 standard errors of the square root of 0.1 / 1,000."""
    assert detectable(standard_error(1000, 1, spread=0)) == pytest.approx(2.8016 * 1.0, abs=1e-3)
