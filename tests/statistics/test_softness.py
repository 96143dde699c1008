"""Softness against cases that can be worked out by hand, and against SciPy."""

import math

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from obert.statistics.softness import mean_and_quantiles, relative_entropy, softened


@pytest.mark.parametrize("temperature", [0.5, 1.0, 5.5])
def test_softmax_and_entropy_are_scipys(temperature):
    logits = np.random.default_rng(0).normal(size=7) * 5
    found = softened(logits, temperature)
    np.testing.assert_allclose(found, softmax(logits / temperature), rtol=1e-12)
    assert relative_entropy(found) == pytest.approx(entropy(found) / math.log(7))


def test_two_classes_by_hand():
    """Logits 2 ln 3 apart are 9 : 1 at T = 1 and 3 : 1 at T = 2."""
    logits = [2 * math.log(3), 0]
    assert softened(logits, 1).tolist() == pytest.approx([0.9, 0.1])
    assert softened(logits, 2).tolist() == pytest.approx([0.75, 0.25])
    expected = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert relative_entropy(softened(logits, 2)) == pytest.approx(expected)


def test_entropy_is_0_for_one_hot_and_1_for_uniform_whatever_their_size():
    for n in (2, 5, 384):
        assert relative_entropy(softened([0.0] * n, 3)) == pytest.approx(1)
        assert relative_entropy(softened([1e6] + [0.0] * (n - 1), 1)) == 0
    assert relative_entropy(np.array([1.0])) == 0


def test_entropy_rises_with_temperature():
    logits = np.random.default_rng(1).normal(size=20)
    values = [relative_entropy(softened(logits, t)) for t in (0.5, 1, 2, 5.5, 10, 1000)]
    assert values == sorted(values) and values[-1] == pytest.approx(1, abs=1e-5)


def test_large_logits_do_not_overflow():
    assert softened([1e4, 1e4 - 1], 1).tolist() == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(1))])


def test_mean_and_quantiles():
    found = mean_and_quantiles(range(101))
    assert found == pytest.approx({"mean": 50, "q05": 5, "q25": 25, "q50": 50, "q75": 75, "q95": 95})
