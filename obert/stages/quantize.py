"""Quantisation-aware training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from obert.experiment.keys import RunKey
from obert.experiment.schema import Quantize as Block
from obert.foundation.errors import UserError, unknown_name
from obert.records.record import MODEL
from obert.stages import TEACHER, Sources, TrainingStage

if TYPE_CHECKING:
    from obert.experiment.plan import Plan, PlannedRun
    from obert.experiment.recipe import Recipe
    from obert.experiment.schema import Experiment
    from obert.records.record import Record


class Quantize(TrainingStage):
    """Quantise a dense or pruned model to 8 bits, with training (oBERT, appendix A.7)."""

    after = ("teacher", "transfer", "downstream")
    on_task = True
    block = Block
    recipe_fields = ("freeze_observers_epoch",)

    def blocks(self, experiment: Experiment) -> tuple[Block, ...]:
        return experiment.quantize

    def with_blocks(self, experiment: Experiment, blocks: tuple[Block, ...]) -> Experiment:
        return experiment.model_copy(update={"quantize": blocks})

    def plan(self, plan: Plan) -> Iterator[tuple[RunKey, Sources]]:
        for index, block in enumerate(self.blocks(plan.experiment)):
            where = plan.place("quantize", index)
            chosen = [run for task in plan.tasks_of(block, where) for run in self._chosen(plan, block, task, where)]
            if not chosen:
                raise UserError(f"{where}: no run of {', '.join(block.models)} has these methods, sparsities and seeds")
            for key, model in chosen:
                yield key, {MODEL: model, TEACHER: plan.teacher(key.task)}

    def _chosen(self, plan: Plan, block: Block, task: str, where: str) -> Iterator[tuple[RunKey, PlannedRun]]:
        """The runs of a block on a task, each with the model that it starts from."""
        plan.definitions.recipe(block.recipe, task, f"{where}.recipe", self.name)
        teacher = plan.teacher(task)
        models = [run for run in plan.of_stage("transfer", "downstream") if run.key.task == task]
        known = {run.key.recipe for run in (teacher, *models)}
        for label in block.models:
            if label not in known:
                raise unknown_name("model", label, known, f"{where}.models, on task {task}")
        seeds = block.seeds or plan.experiment.seeds
        if teacher.key.recipe in block.models:
            for seed in seeds:
                yield RunKey(self.name, task, (block.recipe, *teacher.key.lineage), seed), teacher
        for run in models:
            key = run.key
            if key.seed not in seeds or key.recipe not in block.models:
                continue
            if key.method is not None and (
                (block.methods and key.method not in block.methods)
                or (block.sparsities and key.sparsity not in block.sparsities)
            ):
                continue
            lineage = (block.recipe, *key.lineage)
            yield RunKey(self.name, task, lineage, key.seed, key.method, key.sparsity), run

    def check_recipe(self, recipe: Recipe) -> None:
        super().check_recipe(recipe)
        if recipe.training is None or recipe.schedule or recipe.methods:
            raise ValueError("a quantize recipe needs 'training' and takes no 'schedule' or 'methods': zeros are held")
        if recipe.freeze_observers_epoch is None:
            raise ValueError("a quantize recipe needs 'freeze_observers_epoch'")
        if recipe.freeze_observers_epoch >= recipe.training.epochs:
            raise ValueError(
                f"freeze_observers_epoch {recipe.freeze_observers_epoch:g} must be before training.epochs "
                f"{recipe.training.epochs:g}"
            )

    def run(self, planned: PlannedRun) -> Record | None:
        """Train with 8-bit weights and activations, distilling from the task's teacher, evaluate, save.

        Raises:
            UserError: a model it is made from is missing or cannot be exported in 8 bits, or training diverges.
            RuntimeError: a weight that was zero before is not zero in the end.
        """
        from obert.masks.holding import FixedPattern
        from obert.models.encoders import load_tokenizer, load_trained, prunable_weights
        from obert.quantization.fake import FreezeObservers, quantize
        from obert.records.recording import Recording
        from obert.stages._trained import prepare, record_trained, scope_of, teacher_of, train, try_export
        from obert.training.schedules import steps_per_epoch

        recording, folder = Recording(planned), planned.sources[MODEL].folder / MODEL
        network, tokenizer = load_trained(folder, planned.task.head), load_tokenizer(folder)
        try_export(recording, network, tokenizer, quantized=True)
        pattern = FixedPattern(prunable_weights(network, scope_of(planned))) if planned.method is not None else None
        prepared = prepare(planned, planned.task.load(), quantize(network), tokenizer)
        steps = steps_per_epoch(planned.recipe.training, len(prepared.train.features))
        frozen = FreezeObservers(round(planned.recipe.freeze_observers_epoch * steps))
        trainer = train(recording, prepared, teacher=teacher_of(planned), pattern=pattern, callbacks=(frozen,))
        return record_trained(recording, prepared, trainer=trainer, pattern=pattern)
