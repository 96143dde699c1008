"""Which sparsities are tried, until which one, and what is done when the time is up."""

from types import SimpleNamespace

import pytest

from obert.compression.search import MOST, between
from obert.compression.trials import Trials
from obert.foundation.errors import UserError


class Drops(Trials):
    """Trials whose verdicts are known, each of 60 seconds a cycle."""

    def __init__(self, limit, minutes=None):
        self.question = SimpleNamespace(max_drop=1.0, minutes=minutes)
        self.limit, self.tried, self.seconds = limit, {}, {}
        self.cycles = lambda sparsity: 2 if sparsity <= 0.5 else 4

    def after_all(self):
        self.run()
        return list(self.tried)

    def _try(self, sparsity):
        self.seconds |= {None: 80.0, sparsity: 60.0 * self.cycles(sparsity)}
        self.tried[sparsity] = SimpleNamespace(within=lambda points: sparsity <= self.limit)
        return self.tried[sparsity]


def test_halves_in_the_logarithm_of_what_stays():
    """Densities 1 and 0.01 have 0.1 between them; 0.1 and 0.01 have 0.0316; 1 and 0.1 have 0.316."""
    assert between(0.0, MOST) == 0.9
    assert between(0.9, MOST) == 0.97
    assert between(0.0, 0.9) == 0.68
    assert between(0.89, 0.9) is None and between(0.85, 0.86) is None and between(0.97, 0.98) is None


@pytest.mark.parametrize("limit", [0.31, 0.5, 0.684, 0.9, 0.95, 0.981])
def test_the_highest_that_is_within_is_found_or_one_near_to_it(limit):
    search = Drops(limit)
    found = search.run()
    assert found <= limit and 1 - found < max(1.15 * (1 - limit), 1 - limit + 0.01)
    assert len(search.tried) <= 6


def test_the_search_ends_while_the_final_runs_still_fit():
    """After 90 % (240 s) and 68 % (240 s): 80 s dense, and to come 68 % -> 82 %, 240 s; then 100 s and 2 x 300 s."""
    needed = 80 + 240 + 240 + 240 + 100 + 600
    assert Drops(0.7, minutes=needed / 0.85 / 60 - 0.1).after_all() == [0.9, 0.68]
    assert Drops(0.7, minutes=needed / 0.85 / 60 + 0.1).after_all() == [0.9, 0.68, 0.82]


def test_without_any_it_says_what_was_tried():
    with pytest.raises(UserError, match=r"no sparsity that was tried is sure to lose at most 1 points"):
        Drops(0.0).run()
