"""Every metric of every model, with its interval and with chance."""

import math
from functools import partial

import pandas as pd

from obert.statistics.estimates import Difference, bootstrap_of_counts
from obert.statistics.formatting import DASH, format_number, format_summary
from obert.tables import Results, Table
from obert.tables._chance import chance_of
from obert.tables._measured import Group, groups, metrics_of
from obert.tables._ranking import texts_by_row
from obert.tables._resampled import metric_of_counts

COLUMNS = (
    "task", "sparsity", "recipe", "method", "metric", "chance", "score_mean", "score_std", "n", "score_low",
    "score_high",
)  # fmt: skip


class Metrics(Table):
    """One row a model and metric, the task's primary metric first."""

    title = "All metrics"
    caption = (
        "Mean ± sample standard deviation over n seeds, in percent or times 100. The 95 % interval is over "
        "seeds and examples: each resample of the examples is judged by the metric itself, correlations, F1 and ranks "
        "included. One seed: it is over examples alone, and another seed may lie elsewhere. A dash: the predictions "
        "that the run kept do not tell it. Chance is the best score of one answer to everything."
    )

    section = "Leaderboards"
    split_by = ("task",)
    headed_by = ("sparsity %", "recipe")

    def build(self, results: Results) -> pd.DataFrame:
        rows = []
        for task in results.tasks:
            dense = results.dense(task)
            members = [*([Group.of([dense])] if dense else []), *groups(results, task)]
            chances = {metric: chance_of(results, task, metric) for metric in metrics_of(results, task)}
            of_task = [
                (group.of_metric(metric), metric, chance)
                for group in sorted(members, key=lambda group: group.sparsity)
                for metric, chance in chances.items()
            ]
            of_task = [row for row in of_task if row[0].score.n]
            intervals = _intervals(results, [(group, metric) for group, metric, _ in of_task])
            rows += [_row(*row, interval) for row, interval in zip(of_task, intervals, strict=True)]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        per_row = partial(texts_by_row, content)
        return pd.DataFrame({
            "task": content["task"],
            "sparsity %": per_row(lambda s: format_number(100 * s, 1), "sparsity"),
            "recipe": content["recipe"],
            "method": content["method"],
            "metric": content["metric"],
            "chance": per_row(lambda v: format_number(v, 1), "chance"),
            "score": per_row(format_summary, "score_mean", "score_std", "n"),
            "95 % interval": per_row(_interval, "score_low", "score_high", "n"),
        })  # fmt: skip

    def variants(self, content: pd.DataFrame) -> list[str]:
        found = content[["task", "recipe", "method", "sparsity"]].itertuples(index=False)
        return [f"{t}/{r}/{m}" if s == 0 else f"{t}/{r}/{m}-{s:g}" for t, r, m, s in found]


def _intervals(results: Results, wanted: list[tuple[Group, str]]) -> list[Difference]:
    """Of metrics of groups of a task; the resamples are drawn once for all that have as many examples."""
    found = [Difference(math.nan, math.nan, math.nan)] * len(wanted)
    by_size: dict[int, dict[int, list]] = {}
    for place, (group, metric) in enumerate(wanted):
        known = metric_of_counts(results, group, metric) if group.score.n == len(group.records) else None
        if known is not None:
            by_size.setdefault(known[1], {})[place] = known[0]
    for size, of_size in by_size.items():
        resampled = bootstrap_of_counts(list(of_size.values()), size)
        for place, one in zip(of_size, resampled, strict=True):
            found[place] = one.interval()
    return found


def _row(group: Group, metric: str, chance: float, interval: Difference) -> dict:
    return {
        "task": group.key.task,
        "sparsity": group.sparsity,
        "recipe": group.key.recipe,
        "method": group.method,
        "metric": metric,
        "chance": chance,
        **group.score_columns,
        "score_low": interval.low,
        "score_high": interval.high,
    }


def _interval(low: float, high: float, n: float) -> str:
    if math.isnan(low):
        return DASH
    return f"{format_number(low)} to {format_number(high)}{' (one seed)' if n == 1 else ''}"
