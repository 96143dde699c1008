"""Metrics that are no mean over examples, from sums over them: what a resample of the examples is judged by.

Each takes terms [..., terms], summed or averaged over the same examples (all are ratios, so the factor drops out), and
returns values [...] in percent. Where a metric is not defined (one class alone, no variance, nothing found) it is 0.
"""

import numpy as np

_ROUNDING = 1e-12  # of a variance, relative to the mean square: what is left of equal numbers


def matthews(terms: np.ndarray) -> np.ndarray:
    """Matthews correlation of two classes (Matthews 1975): of true positives, true negatives, false ones of each."""
    tp, tn, fp, fn = np.moveaxis(np.asarray(terms, float), -1, 0)
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return _ratio(tp * tn - fp * fn, np.sqrt(product))


def f1(terms: np.ndarray) -> np.ndarray:
    """Harmonic mean of precision and recall: of what is right, what was found, and what there is."""
    right, found, true = np.moveaxis(np.asarray(terms, float), -1, 0)
    return _ratio(2 * right, found + true)


def pearson_terms(x: float, y: float) -> list[float]:
    """An example's terms of Pearson's correlation."""
    return [1.0, x, y, x * x, y * y, x * y]


def pearson(terms: np.ndarray) -> np.ndarray:
    """Pearson's correlation, of `pearson_terms`."""
    n, x, y, xx, yy, xy = np.moveaxis(np.asarray(terms, float), -1, 0)
    x, y, xx, yy, xy = x / n, y / n, xx / n, yy / n, xy / n
    variances = [
        np.where(square - mean**2 > _ROUNDING * square, square - mean**2, 0) for mean, square in ((x, xx), (y, yy))
    ]
    return _ratio(xy - x * y, np.sqrt(variances[0] * variances[1]))


def spearman(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Spearman's correlation of resamples: Pearson's of ranks, those of equal values averaged, [resamples].

    Args:
        x, y: of each example, [examples].
        counts: how often each resample has each example, [resamples, examples].
    """
    ranks = [_ranks(values, counts) for values in (x, y)]
    first, second = ranks
    terms = [np.ones_like(first), first, second, first**2, second**2, first * second]
    return pearson(np.stack([(counts * term).sum(axis=-1) for term in terms], axis=-1))


def _ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The rank of each example's value in each resample, [resamples, examples]: the mean place of its equals."""
    _, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    equals = np.add.reduceat(counts[:, order], starts, axis=1)
    return (np.cumsum(equals, axis=1) - (equals - 1) / 2)[:, place]


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return 100 * np.divide(above, below, out=np.zeros_like(below), where=below > 0)
