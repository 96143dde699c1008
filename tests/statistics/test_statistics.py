import math

import numpy as np
import pandas as pd
import pytest

from obert.foundation.errors import UserError
from obert.statistics.estimates import (
    average,
    bootstrap_means,
    format_difference,
    format_number,
    format_summary,
    pool,
    summarize,
)


def paired_difference(first, second):
    one, other = bootstrap_means([first, second])
    return (one - other).interval()


def test_sample_standard_deviation():
    summary = summarize([86.0, 88.0, 90.0])
    assert (summary.mean, summary.std, summary.n) == (88.0, 2.0, 3)


def test_one_run_has_no_spread():
    summary = summarize([86.0])
    assert summary.mean == 86.0 and math.isnan(summary.std) and summary.n == 1


def test_missing_values_are_not_counted():
    assert summarize([]).n == 0 and math.isnan(summarize([]).mean)
    assert summarize([math.nan, 80.0]).n == 1


def test_bootstrap_interval_of_a_known_case():
    """Differences 10 and 0 in equal parts over n = 400: mean 5, standard error 5 / sqrt(400) = 0.25."""
    first = pd.Series(dict(enumerate([10.0, 0.0] * 200)))
    found = paired_difference(first, first * 0)
    assert found.mean == 5.0
    assert found.low == pytest.approx(5 - 1.96 * 0.25, abs=0.06)
    assert found.high == pytest.approx(5 + 1.96 * 0.25, abs=0.06)
    assert found.low > 0


def test_bootstrap_is_paired_and_repeatable():
    generator = np.random.default_rng(1)
    first = pd.Series(generator.normal(50, 30, 200))
    second = first - 1
    found = paired_difference(first, second.sample(frac=1, random_state=1))
    assert (found.low, found.high) == pytest.approx((1, 1))
    other = pd.Series(generator.normal(50, 30, 200))
    assert paired_difference(first, other) == paired_difference(first, other)


def test_one_example_has_no_interval():
    found = paired_difference(pd.Series({"a": 1.0}), pd.Series({"a": 0.0}))
    assert found.mean == 1.0 and math.isnan(found.low)


def test_an_average_over_tasks_has_the_error_of_independent_means():
    """Two means with standard errors 0.25 and 0.5 (twice the scores): their average has sqrt(0.3125) / 2 = 0.28."""
    scores = pd.Series(dict(enumerate([10.0, 0.0] * 200)))
    (first,), (second,) = (bootstrap_means([scores], seed) for seed in (0, 1))
    found = average([first, second.scaled(2)]).interval()
    assert found.mean == 7.5
    assert (found.low, found.high) == pytest.approx((7.5 - 1.96 * 0.28, 7.5 + 1.96 * 0.28), abs=0.07)


def test_a_difference_is_positive_above_its_noise():
    scores = pd.Series(dict(enumerate([10.0, 0.0] * 200)))
    assert paired_difference(scores, scores * 0).is_positive
    assert not paired_difference(scores * 0, scores).is_positive
    assert not paired_difference(scores, scores.sample(frac=1, random_state=1).reset_index(drop=True)).is_positive
    assert paired_difference(pd.Series({"a": 1.0}), pd.Series({"a": 0.0})).is_positive


def test_seeds_are_averaged_by_example():
    pooled = pool([pd.Series({"a": 100.0, "b": 0.0}), pd.Series({"b": 100.0, "a": 100.0})])
    assert pooled.to_dict() == {"a": 100.0, "b": 50.0}


def test_other_examples_are_refused():
    with pytest.raises(UserError, match="share 1 ids"):
        paired_difference(pd.Series({"a": 1.0, "b": 1.0}), pd.Series({"a": 1.0, "c": 1.0}))


def test_numbers_are_formatted_with_spread_and_interval():
    assert format_summary(88.236, 0.414, 3) == "88.24 ± 0.41 (n=3)"
    assert format_summary(88.236, math.nan, 1) == "88.24 (n=1)"
    assert format_summary(math.nan, math.nan, 0) == format_number(None) == "\N{EN DASH}"
    assert format_difference(-0.3, -0.8, 0.2) == "-0.30 [-0.80, +0.20]"
    assert format_number(12345.6, 1) == "12,345.6"
