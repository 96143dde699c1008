"""Any metric of a run as a function of resamples of its examples, from what the run predicted."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from obert.foundation import registry
from obert.records.record import Record
from obert.statistics.estimates import check_same_examples
from obert.statistics.metrics import f1, spearman
from obert.tables import Results
from obert.tables._measured import Group

OfCounts = Callable[[np.ndarray], np.ndarray]  # how often resamples have each example, [n, examples], to [n]
Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]  # [examples, columns] and counts [n, examples] to [n]


def metric_of_counts(results: Results, group: Group, metric: str) -> tuple[list[OfCounts], int] | None:
    """A metric of each seed of a group as a function of resamples of the examples, and how many of these there are.

    None where the predictions of a seed do not tell it, or of fewer than two examples.

    Raises:
        UserError: its seeds were not judged on the same examples, or predictions are damaged.
    """
    found = [_table(results, record, metric) for record in group.records]
    known = [pair for pair in found if pair is not None]
    if not known or len(known) < len(found) or len(known[0][0]) < 2:
        return None
    first = known[0][0]
    for table, _ in known:
        check_same_examples(first, table)
    return [_of(table.reindex(first.index), rule) for table, rule in known], len(first)


def _of(table: pd.DataFrame, rule: Rule) -> OfCounts:
    values = table.to_numpy(float)
    return lambda counts: rule(values, counts)


def _mean_of(metric: Callable[[np.ndarray], np.ndarray]) -> Rule:
    """The rule of a metric that is made of means over examples."""
    return lambda values, counts: metric(counts @ values / counts.shape[-1])


def _table(results: Results, record: Record, metric: str) -> tuple[pd.DataFrame, Rule] | None:
    """What a metric of a run needs of each example, by its id, and how it is made of that."""
    terms = results.terms(record.key)
    if terms is None:
        return None
    if metric == record.primary_metric:
        return terms, _mean_of(_first if terms.shape[1] == 1 else results.metric(record.key))
    if metric in ("precision", "recall") and terms.shape[1] == 3:  # what is right, found, and there
        return terms[[0, 1 if metric == "precision" else 2]], _mean_of(_share)
    if metric not in ("accuracy", "accuracy_mismatched", "f1", "spearman"):
        return None
    rows = results.predictions(record.key)
    if not all("label" in row for row in rows):
        return None
    positive = positive_class(results, record) if metric == "f1" else None
    if metric == "f1" and positive is None:
        return None
    counted = metric != "accuracy_mismatched"
    rows = [row for row in rows if (row.get("score", 0) is not None) is counted]
    columns, rule = _columns(metric, positive)
    return pd.DataFrame([columns(row) for row in rows], [str(row["id"]) for row in rows], dtype=float), rule


def _columns(metric: str, positive: str | None) -> tuple[Callable[[dict[str, Any]], list[float]], Rule]:
    """What is taken of a prediction with its label, and how the metric is made of it."""
    if metric == "spearman":
        return lambda row: [row["prediction"], row["label"]], lambda v, counts: spearman(v[:, 0], v[:, 1], counts)
    if metric == "f1":
        return lambda row: _found(row["prediction"] == positive, row["label"] == positive), _mean_of(f1)
    return lambda row: [100.0 * (row["prediction"] == row["label"])], _mean_of(_first)


def _found(given: bool, true: bool) -> list[float]:
    """Terms of F1: what is right, what was found, and what there is."""
    return [given and true, given, true]


def positive_class(results: Results, record: Record) -> str | None:
    """The class that F1 is of: the second of two; None where a task does not name two."""
    kind = record.spec.get("task", {}).get("kind") or record.key.task
    labels = getattr(registry.load("tasks", kind, results.config), "labels", None)
    return labels[1] if labels and len(labels) == 2 else None


def _first(terms: np.ndarray) -> np.ndarray:
    return terms[..., 0]


def _share(terms: np.ndarray) -> np.ndarray:
    right, whole = np.moveaxis(terms, -1, 0)
    return 100 * np.divide(right, whole, out=np.zeros_like(whole), where=whole > 0)
