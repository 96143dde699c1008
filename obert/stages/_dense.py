"""What the stages share that make a dense model: by training the experiment's model whole, or by taking it as it is."""

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
    """Trains the experiment's pre-trained model, which is not pruned.

    Without `training` in its recipe, the model has been trained on the task already, and is taken with its head.
    """

    def check_recipe(self, recipe: Recipe) -> None:
        super().check_recipe(recipe)
        if recipe.schedule or recipe.methods or recipe.distillation:
            raise ValueError("a teacher recipe takes no 'schedule', 'methods' or 'distillation'")

    def require_usable(
        self, recording: Recording, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        """Raise UserError if what the experiment does with the trained model cannot be done; by default it can."""

    def run(self, planned: PlannedRun) -> Record | None:
        """Train, evaluate, save; resumes from the last checkpoint of the same run.

        Raises:
            UserError: model or data are missing, training diverges, or a model that is taken as it is has another head.
        """
        from obert.models.encoders import load_given
        from obert.records.recording import Recording
        from obert.stages._trained import load_start, prepare, record_trained, train

        recording = Recording(planned)
        examples, task = planned.task.load(), planned.task
        if is_given := planned.recipe.training is None:
            start = load_given(planned.model, task.head, task.classes(examples["train"]))
        else:
            start = load_start(planned, examples)
        self.require_usable(recording, *start)
        prepared = prepare(planned, examples, *start)
        trainer = None if is_given else train(recording, prepared)
        return record_trained(recording, prepared, trainer=trainer, teaches=True)
