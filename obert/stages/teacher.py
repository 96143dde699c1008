"""The dense teacher of each task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from obert.experiment.keys import RunKey
from obert.stages import Sources
from obert.stages._dense import DenseTeacher

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from obert.experiment.plan import Plan
    from obert.records.recording import Recording


class Teacher(DenseTeacher):
    """Fine-tune the dense teacher of a task."""

    def plan(self, plan: Plan) -> Iterator[tuple[RunKey, Sources]]:
        experiment = plan.experiment
        for task in experiment.tasks:
            name = experiment.teacher_of(task)
            place = f"teachers.{task}" if task in experiment.teachers else "teacher"
            plan.definitions.recipe(name, task, f"{plan.where}, {place}", self.name)
            yield RunKey(self.name, task, (name,), experiment.seeds[0]), {}

    def require_usable(
        self, recording: Recording, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        """A teacher is exported as what others are compared with, where anything is timed."""
        from obert.stages._trained import try_export

        if recording.planned.experiment.benchmark is not None:
            try_export(recording, network, tokenizer, quantized=False)
