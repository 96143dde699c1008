"""What tables share: measured scores grouped over seeds, and words for runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from obert.experiment.keys import RunKey
from obert.records.record import Record
from obert.statistics.estimates import Summary
from obert.tables import Results

DENSE = "dense"
UNSTRUCTURED = "unstructured"


@dataclass(frozen=True)
class Group:
    """The seeds of one row: a recipe with a method at a sparsity on a task."""

    key: RunKey  # of the first seed
    records: tuple[Record, ...]
    score: Summary

    @classmethod
    def of(cls, records: Sequence[Record], metric: str | None = None) -> "Group":
        """The group of some records, one a seed, with the summary of a metric, the primary one by default."""
        return cls(records[0].key, tuple(records), Summary.of(score(record, metric) for record in records))

    @property
    def method(self) -> str:
        """The method's name, `dense` for what is not pruned."""
        return self.key.method or DENSE

    @property
    def sparsity(self) -> float:
        """The target, 0 for what is not pruned."""
        return self.key.sparsity or 0.0

    @property
    def layers(self) -> int | None:
        """Encoder layers."""
        return self.records[0].model.get("layers")

    @property
    def pattern(self) -> str:
        """Which weights are pruned together."""
        return pattern_name(recipe_of(self.records[0]))

    @property
    def epochs(self) -> float | None:
        """Epochs of training, None for one-shot pruning."""
        return epochs_of(self.records[0])

    def of_metric(self, metric: str) -> "Group":
        """The same runs, another metric summarised."""
        return Group.of(self.records, metric)

    def drops_layers(self, results: Results) -> bool:
        """Whether the model has fewer layers than its task's teacher."""
        dense = results.dense(self.key.task)
        return dense is not None and self.layers is not None and self.layers < dense.model.get("layers", math.inf)

    @property
    def score_columns(self) -> dict[str, float]:
        """The score as tables hold it."""
        return {"score_mean": self.score.mean, "score_std": self.score.std, "n": self.score.n}

    @property
    def hours(self) -> float:
        """Of training and pruning, mean over seeds."""
        return self.mean("training_seconds", "pruning_seconds") / 3600

    def mean(self, *costs: str) -> float:
        """Mean over seeds of the sum of some costs; NaN where a record has none of them."""
        sums = [
            sum(r.costs[c] for c in costs if c in r.costs) for r in self.records if any(c in r.costs for c in costs)
        ]
        return Summary.of(sums).mean


def score(record: Record | None, metric: str | None = None) -> float:
    """A metric, the primary one by default, in percent; NaN without one."""
    if record is None:
        return math.nan
    found = record.metrics.get(metric or record.primary_metric)
    return math.nan if found is None else found.value


def groups(results: Results, task: str, *stages: str) -> list[Group]:
    """A task's runs, seeds together, in the order of the plan: of the given stages, or of all that end on a task."""
    records = results.of_stage(*stages) if stages else results.of_kind(on_task=True)
    collected: dict[tuple, list[Record]] = {}
    for key, record in ((record.key, record) for record in records if record.key.task == task):
        collected.setdefault((key.sparsity, key.recipe, key.method), []).append(record)
    return [Group.of(seeds) for seeds in collected.values()]


def metric_of(results: Results, task: str) -> str:
    """The name of a task's primary metric, as far as any record knows it."""
    known = [r.primary_metric for r in results.records if r.key.task == task and r.primary_metric]
    return known[0] if known else ""


def metrics_of(results: Results, task: str) -> list[str]:
    """The names of a task's metrics, the primary one first."""
    primary = metric_of(results, task)
    names = {name for group in groups(results, task) for record in group.records for name in record.metrics}
    return sorted(names, key=lambda name: (name != primary, name))


def recipe_of(record: Record) -> dict[str, Any]:
    """The recipe that a run was made with."""
    return record.spec.get("recipe") or {}


def pattern_name(recipe: dict[str, Any]) -> str:
    """The pattern that a recipe prunes in; `mixed` where layers differ."""
    pattern = recipe.get("pattern", UNSTRUCTURED)
    return pattern if isinstance(pattern, str) else "mixed"


def epochs_of(record: Record) -> float | None:
    """Epochs of training, None for one-shot pruning."""
    training = recipe_of(record).get("training")
    return training["epochs"] if training else None


def epochs_text(epochs: set[float | None]) -> str:
    """E.g. "10 epochs", "3 to 10 epochs", "one-shot"."""
    trained = sorted(e for e in epochs if e is not None)
    if not trained:
        return "one-shot"
    if trained[0] == trained[-1]:
        return f"{trained[0]:g} epoch{'' if trained[0] == 1 else 's'}"
    return f"{trained[0]:g} to {trained[-1]:g} epochs"


def scale_text(results: Results) -> str:
    """Model and data sizes of the measured runs, from the records; without a full stop."""
    trained = results.of_stage("teacher", "downstream")
    if not trained:
        return ""
    models = {
        f"{r.model['source']}, {r.model['layers']} layers, {r.model['parameters']:,} parameters "
        f"({r.model['prunable_parameters']:,} prunable)": None
        for r in trained
    }
    data = {
        r.key.task: ", ".join(f"{count:,} {split}" for split, count in sorted(r.data["splits"].items()))
        for r in trained
    }
    tasks = "; ".join(f"{task}: {sizes} examples" for task, sizes in data.items())
    return f"{' / '.join(models)}; {tasks}"
