"""Classic tasks of BERT pruning: the guidelines beside what oBERT, soft movement and LT-BERT have published."""

from __future__ import annotations

from typing import TYPE_CHECKING

from obert.tables import Note, Results
from obert.tables._guidelines import PAPER, claim_notes, place_of
from obert.tables._measured import Group, groups
from obert.tables._paper import LEGEND
from obert.tables._published import Number
from obert.tables.table1 import Table1

if TYPE_CHECKING:
    from obert.experiment.plan import Plan

TASKS = ("squad", "mnli", "qqp")


class Classic(Table1):
    """Column groups are the published methods with their epochs, then this experiment's runs by the guidelines."""

    section = "How to prune a language model"
    paper = PAPER
    needs = "SQuAD, MNLI or QQP pruned gradually by all guidelines, with magnitude or oBERT"
    title = "Classic tasks by the guidelines, beside published results"
    caption = (
        "Published: as printed in Table 1 of Kurtic et al. 2022 (BERT-base, full data sets), which quotes Soft MvP and "
        f"LT-BERT from their papers. Measured: runs that follow all guidelines. {LEGEND}"
    )

    @classmethod
    def concerns(cls, plan: Plan) -> bool:
        """Whether the experiment is on one of the tasks, too."""
        return super().concerns(plan) and not set(TASKS).isdisjoint(plan.experiment.tasks)

    def tasks(self, results: Results) -> tuple[str, ...]:
        """The classic ones, whatever encoder the experiment gives them."""
        return tuple(task for task in results.tasks if task in TASKS)

    def select(self, results: Results, task: str) -> list[Group]:
        placed = [(place_of(group.records[0]), group) for group in groups(results, task, "downstream")]
        return [group for place, group in placed if place is not None and place.is_full]

    def reproduced(self, results: Results, group: Group, numbers: tuple[Number, ...]) -> Number | None:
        """None: no published number here is of the guidelines."""
        return None

    def notes(self, results: Results) -> tuple[Note, ...]:
        return (*claim_notes(results), *super().notes(results))
