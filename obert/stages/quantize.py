"""Quantisation-aware training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from obert.experiment.keys import RunKey, lineage_of
from obert.experiment.schema import Quantize as Block
from obert.foundation.errors import unknown_name
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
        models = plan.of_stage("transfer", "downstream")
        for index, block in enumerate(self.blocks(plan.experiment)):
            where = plan.place("quantize", index)
            chosen = {lineage_of(label) for label in block.models}
            seeds = block.seeds or plan.experiment.seeds
            for task in plan.tasks_of(block, where):
                plan.definitions.recipe(block.recipe, task, f"{where}.recipe", self.name)
                known = plan.recipes_on(task)
                for lineage in chosen:
                    if lineage[0] not in known:
                        raise unknown_name("recipe", lineage[0], known, f"{where}.models")
                teacher = plan.teacher(task)
                if teacher.key.lineage in chosen:
                    for seed in seeds:
                        lineage = (block.recipe, *teacher.key.lineage)
                        yield RunKey(self.name, task, lineage, seed), {MODEL: teacher, TEACHER: teacher}
                for run in models:
                    key = run.key
                    if key.task != task or key.seed not in seeds or key.lineage not in chosen:
                        continue
                    if key.method is not None and (
                        (block.methods and key.method not in block.methods)
                        or (block.sparsities and key.sparsity not in block.sparsities)
                    ):
                        continue
                    lineage = (block.recipe, *key.lineage)
                    quantized = RunKey(self.name, task, lineage, key.seed, key.method, key.sparsity)
                    yield quantized, {MODEL: run, TEACHER: teacher}

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
            UserError: a model it is made from is missing, or training diverges.
            RuntimeError: a weight that was zero before is not zero in the end.
        """
        from obert.masks.holding import FixedPattern
        from obert.models.encoders import load_tokenizer, load_trained, prunable_weights
        from obert.quantization.fake import FreezeObservers, quantize
        from obert.records.recording import Recording
        from obert.stages._trained import prepare, record_trained, teacher_of, train
        from obert.training.trainer import steps_per_epoch

        recording, folder = Recording(planned), planned.sources[MODEL].folder / MODEL
        network, tokenizer = load_trained(folder, planned.task.head), load_tokenizer(folder)
        pattern = FixedPattern(prunable_weights(network)) if planned.method is not None else None
        prepared = prepare(planned, quantize(network), tokenizer)
        steps = steps_per_epoch(planned.recipe.training, len(prepared.train.features))
        frozen = FreezeObservers(round(planned.recipe.freeze_observers_epoch * steps))
        trainer = train(recording, prepared, teacher=teacher_of(planned), pattern=pattern, callbacks=(frozen,))
        return record_trained(recording, prepared, trainer=trainer, pattern=pattern)
