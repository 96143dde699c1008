"""The dense masked language model that upstream runs start from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from obert.experiment.keys import RunKey
from obert.stages import Sources
from obert.stages._dense import DenseTeacher

if TYPE_CHECKING:
    from obert.experiment.plan import Plan


class UpstreamTeacher(DenseTeacher):
    """Train the dense masked language model that upstream runs start from.

    An encoder without a head for masked language modelling gets one that is tied to its embeddings.
    """

    upstream = True

    def plan(self, plan: Plan) -> Iterator[tuple[RunKey, Sources]]:
        upstream = plan.experiment.upstream
        if upstream is None or upstream.teacher is None:
            return
        plan.definitions.task(upstream.task, f"{plan.where}, upstream.options")
        plan.definitions.recipe(upstream.teacher, upstream.task, f"{plan.where}, upstream.teacher", self.name)
        yield RunKey(self.name, upstream.task, (upstream.teacher,), plan.experiment.seeds[0]), {}
