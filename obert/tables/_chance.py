"""Chance, and what a model recovers of the dense model's lead over it."""

import math
from collections.abc import Hashable
from dataclasses import dataclass

from obert.records.record import Record
from obert.statistics.collapse import CHANCE, f1_of_all_positive, largest_share
from obert.tables import Results
from obert.tables._measured import metric_of, score
from obert.tables._resampled import positive_class

RULE = (
    "Recovery is what is left of the dense model's lead over chance, 100 (score - chance) / (dense score - chance), in "
    f"percent. {CHANCE}; 0 for a correlation, and for the overlap of answers or entities."
)
NOTHING = ("matthews", "pearson", "spearman", "precision", "recall")  # what one answer to everything has 0 of


@dataclass(frozen=True)
class Scale:
    """From chance to the dense model's score, in percent: what a score is placed on."""

    dense: float
    chance: float

    @classmethod
    def of(cls, results: Results, task: str, metric: str | None = None) -> "Scale":
        """A task's, by its primary metric or another one."""
        return cls(score(results.dense(task), metric), chance_of(results, task, metric))

    @property
    def length(self) -> float:
        """Points of score that are all of recovery; NaN where the dense model has no lead, or chance is unknown."""
        return self.dense - self.chance if self.dense > self.chance else math.nan

    def recovery(self, score: float) -> float:
        """What is left of the dense model's lead over chance, in percent."""
        return 100 * (score - self.chance) / self.length


def chance_of(results: Results, task: str, metric: str | None = None) -> float:
    """The best score in percent that the same answer to every validation example has; NaN where that is not known.

    A record may say it, in its details: `chance`, by metric. Of the metrics of this package it is told by the labels.

    Args:
        metric: the task's primary one by default.
    """
    metric = metric or metric_of(results, task)
    records = _records(results, task)
    told = [r.details["chance"][metric] for r in records if metric in r.details.get("chance", {})]
    if told or not records:
        return told[0] if told else math.nan
    if metric in NOTHING:
        return 0.0
    if metric.startswith("accuracy"):
        rates = [r.details["majority_rate"] for r in records if "majority_rate" in r.details]
        if rates and metric == "accuracy":
            return rates[0]
        labels = _labels(results, records, counted=metric == "accuracy")
        return 100 * largest_share(labels) if labels else math.nan
    if metric.removeprefix("has_answer_").removeprefix("no_answer_") in ("f1", "exact_match"):
        if any({"accuracy", metric} <= set(record.metrics) for record in records):
            return _chance_of_f1(results, records)
        return _chance_of_no_answer(records, metric)
    return math.nan


def _records(results: Results, task: str) -> list[Record]:
    """A task's runs with a score, the dense model's first."""
    scored = [record for record in results.records if record.key.task == task and record.primary_metric]
    return sorted(scored, key=lambda record: record.key.method is not None)


def _labels(results: Results, records: list[Record], counted: bool = True) -> list[Hashable]:
    """The right answers, from the first predictions that have them: of what the primary metric counts, or not."""
    return results.right_answers([record.key for record in records], counted)


def _chance_of_f1(results: Results, records: list[Record]) -> float:
    """Of F1 of the second of two classes: of calling everything that."""
    labels, positive = _labels(results, records), positive_class(results, records[0])
    return f1_of_all_positive(labels.count(positive) / len(labels)) if labels and positive else math.nan


def _chance_of_no_answer(records: list[Record], metric: str) -> float:
    """Of saying nothing: the questions without an answer, where there are any. No other answer fits two paragraphs."""
    whole = metric.removeprefix("has_answer_").removeprefix("no_answer_")
    counts = {
        name: next((r.metrics[name].count for r in records if name in r.metrics), 0)
        for name in (metric, f"no_answer_{whole}")
    }
    if metric.startswith("has_answer_") or not counts[metric]:
        return 0.0
    return 100 * counts[f"no_answer_{whole}"] / counts[metric]
