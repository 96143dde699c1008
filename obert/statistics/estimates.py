"""Means, spreads and differences: one estimator each, always with the number of runs, written in one way."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from obert.foundation.errors import UserError

DASH = "\N{EN DASH}"
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
    """A mean over examples, and the same mean over resamples of them (NaN for fewer than two examples)."""

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


def summarize(values: Iterable[float]) -> Summary:
    """Mean and sample standard deviation over seeds. One run has no spread: its std is NaN, not 0."""
    values = np.asarray([v for v in values if v is not None and not math.isnan(v)], dtype=float)
    mean = float(values.mean()) if len(values) else math.nan
    return Summary(mean, float(values.std(ddof=1)) if len(values) > 1 else math.nan, len(values))


def pool(scores: Iterable[pd.Series]) -> pd.Series:
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


def average(parts: Sequence[Resampled]) -> Resampled:
    """The mean of means over different, independently resampled sets of examples."""
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


def format_number(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """A number with `digits` decimals, thousands separated; a dash if there is none."""
    if value is None or pd.isna(value):
        return DASH
    return f"{value:{'+' if signed else ''},.{digits}f}"


def format_summary(mean: float, std: float, n: float, digits: int = 2) -> str:
    """E.g. "88.24 ± 0.41 (n=3)"; without ± for one run; a dash for none."""
    if pd.isna(mean):
        return DASH
    spread = "" if pd.isna(std) else f" ± {format_number(std, digits)}"
    return f"{format_number(mean, digits)}{spread} (n={int(n)})"


def format_difference(mean: float, low: float, high: float, digits: int = 2) -> str:
    """E.g. "-0.30 [-0.80, +0.20]"; without bounds where there are none; a dash without a difference."""
    if pd.isna(mean) or pd.isna(low):
        return format_number(mean, digits, signed=True)
    bounds = ", ".join(format_number(bound, digits, signed=True) for bound in (low, high))
    return f"{format_number(mean, digits, signed=True)} [{bounds}]"
