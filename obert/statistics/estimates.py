"""Means over seeds, and metrics and differences with intervals over seeds and examples: one estimator each."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

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
    """Mean paired difference and its 95 % interval; the bounds are NaN for fewer than two examples."""

    mean: float
    low: float
    high: float

    @property
    def is_certain(self) -> bool:
        """Whether there is an interval, and it lies above 0."""
        return self.low > ROUNDING


@dataclass(frozen=True)
class Resampled:
    """A metric over seeds and examples, and its bootstrap distribution over examples (NaN for fewer than two).

    Attributes:
        mean: over seeds, of the metric of all examples.
        distribution: the same of resampled examples, [resamples].
        seeds: of each independent set of seeds, such as those of a task, what each seed adds to the mean, times their
            number.
    """

    mean: float
    distribution: np.ndarray
    seeds: tuple[np.ndarray, ...] = ()

    def __sub__(self, other: "Resampled") -> "Resampled":
        """The paired difference. Both have the same seeds, or one of them has one."""
        seeds = tuple(own - others for own, others in zip(self.seeds, other.seeds, strict=True))
        return Resampled(self.mean - other.mean, self.distribution - other.distribution, seeds)

    def scaled(self, factor: float) -> "Resampled":
        """In another unit."""
        return Resampled(factor * self.mean, factor * self.distribution, tuple(factor * own for own in self.seeds))

    def of_these_seeds(self) -> "Resampled":
        """The same, of these seeds alone: examples are all that may be others."""
        return Resampled(self.mean, self.distribution)

    def interval(self) -> Difference:
        """The interval over seeds and examples; over examples alone, where there is one seed.

        The bootstrap's percentiles say how far examples move the mean, and Student's t how far seeds do. Both are
        independent, so their squares are added (Zou and Donner 2008, "Construction of confidence limits about effect
        measures: a general approach"). Seeds are not resampled, since two or three of them are too few for it.
        """
        tail = (1 - CONFIDENCE) / 2
        low, high = np.percentile(self.distribution, [100 * tail, 100 - 100 * tail])
        varied = [own for own in self.seeds if len(own) > 1]
        by_seeds = math.sqrt(sum((stats.t.isf(tail, len(own) - 1) * stats.sem(own)) ** 2 for own in varied))
        return Difference(
            self.mean,
            float(self.mean - math.hypot(self.mean - low, by_seeds)),
            float(self.mean + math.hypot(high - self.mean, by_seeds)),
        )


def bootstrap(
    runs: Sequence[Sequence[pd.DataFrame]], metric: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> list[Resampled]:
    """A metric of several runs over the same resamples of their examples, so that differences are paired.

    All seeds judge the same examples: each resample draws examples with replacement, the same for all seeds, and
    averages the metrics of the seeds.

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
        values = [metric(np.array([term.mean for term in of_seed])) for of_seed in terms]
        resamples = [metric(np.stack([term.distribution for term in of_seed], axis=-1)) for of_seed in terms]
        found.append(_over_seeds(values, resamples))
    return found


def _over_seeds(values: Sequence[float | np.ndarray], resamples: Sequence[np.ndarray]) -> Resampled:
    """The mean of what each seed has, of all examples and of resampled ones."""
    own = np.array(values, dtype=float)
    return Resampled(float(own.mean()), np.mean(resamples, axis=0), (own,))


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
        values = [metric(np.ones((1, examples)))[0] for metric in seeds]
        found.append(_over_seeds(values, [next(resamples) for _ in seeds]))
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
    """The mean of the tasks' means. Each task has its own seeds, and examples that were resampled independently."""
    shares = [part.scaled(1 / len(parts)) for part in parts]
    return Resampled(
        sum(part.mean for part in shares),
        np.sum([part.distribution for part in shares], axis=0),
        tuple(own for part in shares for own in part.seeds),
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
