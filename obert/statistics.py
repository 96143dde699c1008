"""Means, spreads and differences: one estimator each, always with the number of runs, written in one way."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from obert.errors import UserError

DASH = "\N{EN DASH}"
CONFIDENCE = 0.95
RESAMPLES = 2000
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
        _check_same_examples(scores[0], other)
    return sum(other.reindex(scores[0].index) for other in scores) / len(scores)


def paired_difference(first: pd.Series, second: pd.Series, seed: int = 0) -> Difference:
    """Mean of `first - second` over the same examples, with the percentile interval of the paired bootstrap.

    Args:
        first, second: example id -> score, in any order.
        seed: of the generator that resamples.

    Raises:
        UserError: the two were not judged on the same examples.
    """
    _check_same_examples(first, second)
    second = second.reindex(first.index)
    mean = float((first - second).mean())
    if len(first) < 2:
        return Difference(mean, math.nan, math.nan)
    interval = stats.bootstrap(
        (first.to_numpy(float), second.to_numpy(float)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, BATCH_ELEMENTS // len(first)),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Difference(mean, float(interval.low), float(interval.high))


def _check_same_examples(first: pd.Series, second: pd.Series) -> None:
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
