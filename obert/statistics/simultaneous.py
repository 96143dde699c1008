"""Many differences at once: which are above 0, with one chance of a mistake for all of them together.

All pairs of some methods are compared. So the value that a difference must exceed, in standard errors, is Tukey's: a
quantile of the studentised range over the square root of 2 (Tukey 1953; Kramer 1956, for errors that differ). As in an
interval, the parts of the examples and of the seeds are independent, and their squares are added. Each seed's part is
known from as many values as there are seeds, and in some of many pairs these agree by luck. So its variance is at least
the mean of all pairs, as an analysis of variance has it, and its degrees of freedom are those of all pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy import stats

from obert.statistics import CONFIDENCE
from obert.statistics.estimates import ROUNDING, Resampled


def are_positive(differences: Sequence[Resampled], methods: int) -> list[bool]:
    """Whether each is above 0. Where there is no distribution, or no spread, whether its mean is.

    Args:
        differences: the family: of pairs of methods, over the same tasks.
        methods: how many there are, at least two.
    """
    judged = [found for found in differences if not math.isnan(_error(found))]
    sets = [[own for own in column if len(own) > 1] for column in zip(*(found.seeds for found in judged), strict=True)]
    pooled = [np.mean([np.var(own, ddof=1) for own in column]) if column else 0.0 for column in sets]
    fewest = min((len(own) for column in sets for own in column), default=1)
    for_examples, for_seeds = critical_value(methods), critical_value(methods, (methods - 1) * (fewest - 1))

    def margin(found: Resampled) -> float:
        varied = [(own, least) for own, least in zip(found.seeds, pooled, strict=True) if len(own) > 1]
        of_seeds = sum(max(np.var(own, ddof=1), least) / len(own) for own, least in varied)
        return max(math.hypot(for_examples * _error(found), for_seeds * math.sqrt(of_seeds)), ROUNDING)

    return [found.mean > (ROUNDING if math.isnan(_error(found)) else margin(found)) for found in differences]


@cache
def critical_value(methods: int, freedom: float = math.inf) -> float:
    """How many standard errors a difference of any two of some methods must be; 0 without degrees of freedom."""
    return float(stats.studentized_range.isf(1 - CONFIDENCE, methods, freedom)) / math.sqrt(2) if freedom else 0.0


def _error(found: Resampled) -> float:
    """The standard error that is due to examples; NaN without a distribution."""
    return float(np.std(found.distribution))
