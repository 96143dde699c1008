"""Many differences at once: which are above 0, with one chance of a mistake for all of them together.

Each difference is divided by its standard error. The largest that any of them strays from its mean in a resample has a
distribution of its own, and its 95th percentile is what a difference must exceed: the single-step procedure of
Westfall and Young 1993, "Resampling-Based Multiple Testing", as intervals in Hothorn, Bretz and Westfall 2008,
"Simultaneous inference in general parametric models". Unlike Bonferroni's it knows how the differences hang together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from obert.statistics import CONFIDENCE
from obert.statistics.estimates import ROUNDING, Resampled


def critical_value(differences: Sequence[Resampled]) -> float:
    """How many standard errors a difference of a family must lie from 0; NaN where none of them varies.

    Args:
        differences: over the same resamples.
    """
    varying = [found for found in differences if _error(found) > ROUNDING]
    if not varying:
        return float("nan")
    strays = [np.abs(found.distribution - found.mean) / _error(found) for found in varying]
    return float(np.percentile(np.max(strays, axis=0), 100 * CONFIDENCE))


def are_positive(differences: Sequence[Resampled]) -> list[bool]:
    """Whether each is above 0. Where there is no distribution, or no spread, whether its mean is."""
    value = critical_value(differences)
    return [found.mean > (value * _error(found) if _error(found) > ROUNDING else ROUNDING) for found in differences]


def _error(found: Resampled) -> float:
    """The standard error; NaN without a distribution."""
    return float(np.std(found.distribution))
