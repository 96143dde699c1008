"""Sparse transfer: upstream models on tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from obert.experiment.keys import RunKey
from obert.experiment.schema import PRETRAINED
from obert.experiment.schema import Transfer as Block
from obert.foundation.errors import UserError, unknown_name
from obert.records.record import MODEL
from obert.stages import TEACHER, Sources, TrainingStage

if TYPE_CHECKING:
    from obert.experiment.plan import Plan, PlannedRun
    from obert.experiment.recipe import Recipe
    from obert.experiment.schema import Experiment
    from obert.records.record import Record


class Transfer(TrainingStage):
    """Fine-tune an upstream model on a task, its zeros fixed (sparse transfer; oBERT, section 4.2)."""

    after = ("teacher", "upstream")
    on_task = True
    block = Block

    def blocks(self, experiment: Experiment) -> tuple[Block, ...]:
        return experiment.upstream.transfer if experiment.upstream else ()

    def with_blocks(self, experiment: Experiment, blocks: tuple[Block, ...]) -> Experiment:
        if experiment.upstream is None:
            return experiment
        return experiment.model_copy(update={"upstream": experiment.upstream.model_copy(update={"transfer": blocks})})

    def plan(self, plan: Plan) -> Iterator[tuple[RunKey, Sources]]:
        made = plan.of_stage("upstream_teacher", "upstream")
        known = {PRETRAINED, *(run.key.lineage[0] for run in made)}
        for index, block in enumerate(self.blocks(plan.experiment)):
            where = plan.place("upstream.transfer", index)
            for name in block.upstream:
                if name not in known:
                    raise unknown_name("upstream recipe", name, known, f"{where}.upstream")
            chosen = [
                run
                for run in made
                if run.key.lineage[0] in block.upstream
                if run.key.sparsity is None or not block.sparsities or run.key.sparsity in block.sparsities
            ]
            if not chosen and PRETRAINED not in block.upstream:
                raise UserError(f"{where}: no run of {', '.join(block.upstream)} has these sparsities")
            from_upstream = set(block.upstream) != {PRETRAINED}
            for task in plan.tasks_of(block, where, from_upstream):
                plan.definitions.recipe(block.recipe, task, where, self.name)
                seeds, teacher = block.seeds or plan.experiment.seeds, plan.teacher(task)
                if PRETRAINED in block.upstream:
                    for seed in seeds:
                        yield RunKey(self.name, task, (block.recipe, PRETRAINED), seed), {TEACHER: teacher}
                for run in chosen:
                    lineage = (block.recipe, *run.key.lineage)
                    for seed in seeds:
                        key = RunKey(self.name, task, lineage, seed, run.key.method, run.key.sparsity)
                        yield key, {MODEL: run, TEACHER: teacher}

    def check_recipe(self, recipe: Recipe) -> None:
        super().check_recipe(recipe)
        if recipe.training is None or recipe.schedule or recipe.methods:
            raise ValueError("a transfer recipe needs 'training' and takes no 'schedule' or 'methods': masks are fixed")

    def run(self, planned: PlannedRun) -> Record | None:
        """Train under the upstream model's masks with distillation from the task's teacher, evaluate, save.

        Raises:
            UserError: a model it is made from is missing, or training diverges.
            RuntimeError: a weight that is zero upstream is not zero in the end.
        """
        from obert.masks.holding import FixedPattern
        from obert.models.encoders import prunable_weights
        from obert.records.recording import Recording
        from obert.stages._trained import load_start, prepare, record_trained, scope_of, teacher_of, train

        recording, examples = Recording(planned), planned.task.load()
        network, tokenizer = load_start(planned, examples)
        pattern = FixedPattern(prunable_weights(network, scope_of(planned))) if planned.method is not None else None
        prepared = prepare(planned, examples, network, tokenizer)
        trainer = train(recording, prepared, teacher=teacher_of(planned), pattern=pattern)
        return record_trained(recording, prepared, trainer=trainer, pattern=pattern)
