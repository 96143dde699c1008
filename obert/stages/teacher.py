"""The dense teacher of each task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from obert.experiment.keys import RunKey
from obert.stages import Sources
from obert.stages._dense import DenseTeacher

if TYPE_CHECKING:
    from obert.experiment.plan import Plan


class Teacher(DenseTeacher):
    """Fine-tune the dense teacher of a task."""

    def plan(self, plan: Plan) -> Iterator[tuple[RunKey, Sources]]:
        name = plan.experiment.teacher
        for task in plan.experiment.tasks:
            plan.definitions.recipe(name, task, f"{plan.where}, teacher", self.name)
            yield RunKey(self.name, task, (name,), plan.experiment.seeds[0]), {}
