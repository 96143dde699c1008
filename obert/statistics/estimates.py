"""Means over seeds, and metrics and differences over examples with bootstrap intervals: one estimator each."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from obert.foundation.errors import UserError
from obert.statistics import CONFIDENCE

RESAMPLES = 2000
ROUNDING = 1e-9  # what sums of scores in another order may differ by
BATCH_ELEMENTS = 4_000_000  # counts of examples held in memory at a time


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

    @property
    def is_certain(self) -> bool:
        """Whether there is an interval, and it lies above 0."""
        return self.low > ROUNDING


@dataclass(frozen=True)
class Resampled:
    """A metric over examples, and its bootstrap distribution (NaN for fewer than two examples)."""

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


def bootstrap(
    runs: Sequence[Sequence[pd.DataFrame]], metric: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> list[Resampled]:
    """A metric of several runs over the same resamples of their seeds and examples, so that differences are paired.

    All seeds judge the same examples: the two are crossed. Each resample draws seeds with replacement, and examples
    with replacement, the same for all seeds; the metric of each seed's resampled examples is averaged over the drawn
    seeds. With one seed the distribution is over examples alone.

    Args:
        runs: of each, one table a seed, over which the metric is averaged: a row an example by its id, a column each
            of the terms that the metric is made of. Runs with as many seeds have the same ones in the same order.
        metric: [..., terms], means over examples, to [...].
        seed: of the generators that resample.

    Raises:
        UserError: the tables are not of the same examples.
    """
    tables = [table for seeds in runs for table in seeds]
    means = iter(bootstrap_means([table[column] for table in tables for column in table], seed) if tables else ())
    found = []
    for seeds in runs:
        terms = [[next(means) for _ in table] for table in seeds]
        value = np.mean([metric(np.array([term.mean for term in of_seed])) for of_seed in terms])
        resamples = [metric(np.stack([term.distribution for term in of_seed], axis=-1)) for of_seed in terms]
        shares = _shares_of_seeds(len(seeds), seed)
        found.append(Resampled(float(value), np.einsum("sb,sb->b", shares, np.stack(resamples))))
    return found


def _shares_of_seeds(count: int, seed: int) -> np.ndarray:
    """How often each of some seeds is in a resample of them, as shares, [seeds, resamples]; always the same ones."""
    drawn = np.random.default_rng([seed, count]).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    return drawn.T / count


def bootstrap_means(columns: Sequence[pd.Series], seed: int = 0) -> list[Resampled]:
    """Means of several columns over the same resamples of their examples.

    Args:
        columns: example id -> value, of the same examples in any order.
        seed: of the generator that resamples.

    Raises:
        UserError: the columns are not of the same examples.
    """
    for other in columns[1:]:
        check_same_examples(columns[0], other)
    table = np.stack([column.reindex(columns[0].index).to_numpy(float) for column in columns])
    if table.shape[1] < 2:
        return [Resampled(mean, np.full(RESAMPLES, math.nan)) for mean in table.mean(axis=1)]
    resampled = _resampled_means(table, seed)
    return [Resampled(float(mean), row) for mean, row in zip(table.mean(axis=1), resampled, strict=True)]


def bootstrap_of_counts(
    runs: Sequence[Sequence[Callable[[np.ndarray], np.ndarray]]], examples: int, seed: int = 0
) -> list[Resampled]:
    """As `bootstrap`, of metrics that may be made of no means, such as a correlation of ranks.

    Args:
        runs: of each, for each seed the metric of resamples: from how often each of them has each example, of shape
            [n, examples], to [n].
        examples: how many there are, at least two.
        seed: of the generators that resample.
    """
    metrics = [metric for seeds in runs for metric in seeds]
    batches = [np.stack([metric(counts) for metric in metrics]) for counts in _resampled_counts(examples, seed)]
    resamples = iter(np.concatenate(batches, axis=1))
    found = []
    for seeds in runs:
        value = np.mean([metric(np.ones((1, examples))) for metric in seeds])
        shares = _shares_of_seeds(len(seeds), seed)
        found.append(Resampled(float(value), np.einsum("sb,sb->b", shares, np.stack([next(resamples) for _ in seeds]))))
    return found


def _resampled_means(table: np.ndarray, seed: int) -> np.ndarray:
    """Means of rows [rows, examples] over the same RESAMPLES resamples of the examples, [rows, resamples].

    Sums are taken row by row in one order: rows that are the same have the same means, to the last bit.
    """
    examples = table.shape[1]
    means = [np.einsum("re,be->rb", table, counts) / examples for counts in _resampled_counts(examples, seed)]
    return np.concatenate(means, axis=1)


def _resampled_counts(examples: int, seed: int) -> Iterator[np.ndarray]:
    """RESAMPLES resamples of the examples, batch by batch: how often each has each example, [batch, examples].

    All that is resampled takes one gathering of examples so, not one each.
    """
    generator = np.random.default_rng(seed)
    batch = max(1, BATCH_ELEMENTS // examples)
    for start in range(0, RESAMPLES, batch):
        drawn = generator.integers(0, examples, (min(batch, RESAMPLES - start), examples))
        places = drawn + examples * np.arange(len(drawn))[:, None]
        yield np.bincount(places.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(float)


def mean_over_tasks(parts: Sequence[Resampled]) -> Resampled:
    """The mean of the tasks' means. Each task has its own examples, which were resampled independently."""
    return Resampled(
        float(np.mean([part.mean for part in parts])), np.mean([part.distribution for part in parts], axis=0)
    )


def check_same_examples(first: pd.Series | pd.DataFrame, second: pd.Series | pd.DataFrame) -> None:
    """Raise UserError unless two columns or tables are of the same examples."""
    if first.index.equals(second.index):
        return
    if len(first) != len(second) or not first.index.isin(second.index).all():
        shared = int(first.index.isin(second.index).sum())
        raise UserError(
            f"a paired comparison needs the same examples: predictions for {len(first)} and {len(second)} examples "
            f"share {shared} ids. One of the runs was made with other data: run it again."
        )
