"""What the stages share that train the experiment's pre-trained model whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from obert.stages import TrainingStage

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from obert.experiment.plan import PlannedRun
    from obert.experiment.recipe import Recipe
    from obert.records.record import Record
    from obert.records.recording import Recording


class DenseTeacher(TrainingStage):
    """Trains the experiment's pre-trained model, which is not pruned."""

    def check_recipe(self, recipe: Recipe) -> None:
        super().check_recipe(recipe)
        if recipe.training is None or recipe.schedule or recipe.methods or recipe.distillation:
            raise ValueError("a teacher recipe needs 'training' and takes no 'schedule', 'methods' or 'distillation'")

    def require_usable(
        self, recording: Recording, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        """Raise UserError if what the experiment does with the trained model cannot be done; by default it can."""

    def run(self, planned: PlannedRun) -> Record | None:
        """Train, evaluate, save; resumes from the last checkpoint of the same run.

        Raises:
            UserError: model or data are missing, or training diverges.
        """
        from obert.records.recording import Recording
        from obert.stages._trained import load_start, prepare, record_trained, train

        recording = Recording(planned)
        examples = planned.task.load()
        start = load_start(planned, examples)
        self.require_usable(recording, *start)
        prepared = prepare(planned, examples, *start)
        return record_trained(recording, prepared, trainer=train(recording, prepared), teaches=True)
