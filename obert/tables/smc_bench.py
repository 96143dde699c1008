"""SMC-Bench's tasks: its published curves beside its setting run again, and beside the guidelines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from obert.statistics.collapse import RULE
from obert.statistics.formatting import DASH, format_number, format_summary
from obert.tables import Note, Results, Table
from obert.tables._collapsed import COLLAPSED, collapsed_runs, collapsed_text
from obert.tables._guidelines import BENCHMARK, PAPER, claim_notes, compared_groups, sparsities
from obert.tables._measured import DENSE, Group, score
from obert.tables._paper import has_measured
from obert.tables._planned import as_planned, paper_notes
from obert.tables._published import Number
from obert.tables._scopes import SPARSITIES

if TYPE_CHECKING:
    from obert.experiment.plan import Plan

TABLE, ROW = "commonsense", "row"
PUBLISHED = ("published", "approximate", "at_chance")
RACE = ("race_middle", "race_high")  # in the figure; the task `race` is of both schools
SMC_TASKS = ("commonsense_qa", "winogrande", "race", *RACE)
MEASURED = ("measured", "measured_std", "measured_n", *COLLAPSED, *SPARSITIES)


class SmcBench(Table):
    """Rows are tasks and sparsities; column groups are the published methods, then this experiment's runs."""

    title = "SMC-Bench, published, run again, and by the guidelines"
    caption = (
        "Accuracy in percent. Published: read off SMC-Bench's figure (RoBERTa-large, one seed) to 0.3 points; ~: "
        "less sure, as the marker is partly hidden; chance: drawn on the line of chance, without a value. Its "
        "sparsity is that of all weight matrices; measured runs by the guidelines count the encoder's alone, so the "
        "encoder's and the whole model's sparsity stand beside each. RACE is measured over both schools, and published "
        f"for each. Measured: mean ± sample standard deviation over n seeds. {RULE}"
    )

    section = "How to prune a language model"
    paper = PAPER

    @classmethod
    def concerns(cls, plan: Plan) -> bool:
        """Whether the experiment is on one of the tasks, too."""
        return super().concerns(plan) and not set(SMC_TASKS).isdisjoint(plan.experiment.tasks)

    def build(self, results: Results) -> pd.DataFrame:
        numbers = results.published.table(BENCHMARK, TABLE)
        found = {task: compared_groups(results, task) for task in SMC_TASKS if task in shown_tasks(results)}
        labels = dict.fromkeys(n.label for n in numbers if n.task in found and not n.is_dense)
        own = dict.fromkeys(label for of_task in found.values() for label in of_task)
        columns = [(ROW, "task"), (ROW, "sparsity"), (DENSE, "published"), (DENSE, "measured")]
        columns += [(label, column) for label in labels for column in PUBLISHED]
        columns += [(label, column) for label in own for column in MEASURED]
        rows = []
        for task, by_label in found.items():
            of_task = [number for number in numbers if number.task == task]
            measured = [(label, group) for label, groups in by_label.items() for group in groups]
            levels = {n.sparsity for n in of_task if not n.is_dense} | {group.sparsity for _, group in measured}
            for level in sorted(levels):
                row = {(ROW, "task"): task, (ROW, "sparsity"): level}
                row[DENSE, "published"] = next((n.value for n in of_task if n.is_dense), math.nan)
                row[DENSE, "measured"] = score(results.dense(task))
                for number in of_task:
                    if number.sparsity == level:
                        row |= _published_cells(number)
                for label, group in measured:
                    if group.sparsity == level:
                        row |= _measured_cells(results, label, group)
                rows.append(row)
        return pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(columns))

    def is_measured(self, content: pd.DataFrame) -> bool:
        return has_measured(content)

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        shown = {
            ("", "task"): content[ROW, "task"],
            ("", "sparsity %"): [format_number(100 * v, 2) for v in content[ROW, "sparsity"]],
            (DENSE, "published"): [format_number(v, 1) for v in content[DENSE, "published"]],
            (DENSE, "measured"): [format_number(v) for v in content[DENSE, "measured"]],
        }
        for label in dict.fromkeys(label for label, _ in content.columns if label not in (ROW, DENSE)):
            part = content[label]
            if "published" in part:
                rows = part[list(PUBLISHED)].itertuples(index=False)
                shown[label, "published"] = [published_text(*row) for row in rows]
                continue
            rows = part[["measured", "measured_std", "measured_n"]].itertuples(index=False)
            shown[label, "measured"] = [format_summary(*row) for row in rows]
            rows = part[[*COLLAPSED, "measured_n"]].itertuples(index=False)
            shown[label, "collapsed"] = [DASH if pd.isna(row[2]) else collapsed_text(*row) or DASH for row in rows]
            for column, words in SPARSITIES.items():
                shown[label, words] = [format_number(100 * value, 1) for value in part[column]]
        return pd.DataFrame(shown)

    def notes(self, results: Results) -> tuple[Note, ...]:
        complete = as_planned(results)
        found = [group for task in SMC_TASKS for one in compared_groups(complete, task).values() for group in one]
        keys = [record.key for group in found for record in group.records]
        needs = "SMC-Bench's tasks pruned in its setting (embeddings and head in scope) or by all guidelines"
        return (*claim_notes(results), *paper_notes(results, BENCHMARK, keys, needs))


def shown_tasks(results: Results) -> tuple[str, ...]:
    """The experiment's tasks, and for RACE the two schools that SMC-Bench's figure has."""
    return (*results.tasks, *(task for task in RACE if "race" in results.tasks and task not in results.tasks))


def published_text(value: float, approximate: object, at_chance: object) -> str:
    """A published cell, e.g. "64.1", "~76.0", "chance"."""
    if at_chance is True:
        return "chance"
    return DASH if pd.isna(value) else f"{'~' if approximate is True else ''}{format_number(value, 1)}"


def _published_cells(number: Number) -> dict:
    values = (math.nan if number.value is None else number.value, number.approximate, number.at_chance)
    return {(number.label, column): value for column, value in zip(PUBLISHED, values, strict=True)}


def _measured_cells(results: Results, label: str, group: Group) -> dict:
    values = {
        "measured": group.score.mean,
        "measured_std": group.score.std,
        "measured_n": group.score.n,
        **collapsed_runs(results, group),
        **sparsities(group),
    }
    return {(label, column): value for column, value in values.items()}
