"""Means over seeds, and means and differences over examples with bootstrap intervals: one estimator each."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from obert.foundation.errors import UserError

CONFIDENCE = 0.95
RESAMPLES = 2000
ROUNDING = 1e-9  # what sums of scores in another order may differ by
BATCH_ELEMENTS = 4_000_000  # resampled values held in memory at a time


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (divisor n - 1) of `n` runs; NaN where there are too few to tell."""

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Summary":
        """The summary of one value for each run. None and NaN do not count. The std of one run is NaN, not 0."""
        known = np.asarray([v for v in values if v is not None and not math.isnan(v)], dtype=float)
        mean = float(known.mean()) if len(known) else math.nan
        return cls(mean, float(known.std(ddof=1)) if len(known) > 1 else math.nan, len(known))


@dataclass(frozen=True)
class Difference:
    """Mean paired difference and its 95 % bootstrap interval; the bounds are NaN for fewer than two examples."""

    mean: float
    low: float
    high: float

    @property
    def is_positive(self) -> bool:
        """Whether the interval lies above 0; without one, whether the mean does."""
        return (self.mean if math.isnan(self.low) else self.low) > ROUNDING


@dataclass(frozen=True)
class Resampled:
    """A mean over examples, and its bootstrap distribution (NaN for fewer than two examples)."""

    mean: float
    distribution: np.ndarray

    def __sub__(self, other: "Resampled") -> "Resampled":
        return Resampled(self.mean - other.mean, self.distribution - other.distribution)

    def scaled(self, factor: float) -> "Resampled":
        """In another unit."""
        return Resampled(factor * self.mean, factor * self.distribution)

    def interval(self) -> Difference:
        """The percentile interval, for what is a difference."""
        tail = 50 * (1 - CONFIDENCE)
        low, high = np.percentile(self.distribution, [tail, 100 - tail])
        return Difference(self.mean, float(low), float(high))


def mean_over_seeds(scores: Iterable[pd.Series]) -> pd.Series:
    """Mean score of each example over seeds.

    Seeds judge the same examples, so an example's scores are not independent: the example is what is resampled.

    Args:
        scores: one series a seed, example id -> score.

    Raises:
        UserError: the seeds were not judged on the same examples.
    """
    scores = list(scores)
    for other in scores[1:]:
        check_same_examples(scores[0], other)
    return sum(other.reindex(scores[0].index) for other in scores) / len(scores)


def bootstrap_means(scores: Sequence[pd.Series], seed: int = 0) -> list[Resampled]:
    """Means of several series over the same resamples of their examples, so that differences of them are paired.

    Args:
        scores: example id -> score, of the same examples in any order.
        seed: of the generator that resamples.

    Raises:
        UserError: the series are not of the same examples.
    """
    for other in scores[1:]:
        check_same_examples(scores[0], other)
    table = np.stack([series.reindex(scores[0].index).to_numpy(float) for series in scores])
    if table.shape[1] < 2:
        return [Resampled(mean, np.full(RESAMPLES, math.nan)) for mean in table.mean(axis=1)]
    resampled = stats.bootstrap(
        (table,),
        np.mean,
        axis=-1,
        n_resamples=RESAMPLES,
        batch=max(1, BATCH_ELEMENTS // table.size),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).bootstrap_distribution
    return [Resampled(float(mean), row) for mean, row in zip(table.mean(axis=1), resampled, strict=True)]


def mean_over_tasks(parts: Sequence[Resampled]) -> Resampled:
    """The mean of the tasks' means. Each task has its own examples, which were resampled independently."""
    return Resampled(
        float(np.mean([part.mean for part in parts])), np.mean([part.distribution for part in parts], axis=0)
    )


def check_same_examples(first: pd.Series, second: pd.Series) -> None:
    """Raise UserError unless two series are of the same examples."""
    if first.index.equals(second.index):
        return
    if len(first) != len(second) or not first.index.isin(second.index).all():
        shared = int(first.index.isin(second.index).sum())
        raise UserError(
            f"a paired comparison needs the same examples: predictions for {len(first)} and {len(second)} examples "
            f"share {shared} ids. One of the runs was made with other data: run it again."
        )
