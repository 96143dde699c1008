"""Pruning on a task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from obert.experiment.keys import RunKey
from obert.experiment.schema import Downstream as Block
from obert.foundation.errors import UserError, unknown_name
from obert.records.record import MODEL
from obert.stages import TEACHER, Sources, TrainingStage
from obert.stages._grid import pruned

if TYPE_CHECKING:
    from obert.experiment.plan import Plan, PlannedRun
    from obert.experiment.recipe import Recipe
    from obert.experiment.schema import Experiment
    from obert.records.record import Record


class Downstream(TrainingStage):
    """Prune a model on its task, in one shot or gradually."""

    after = ("teacher", "upstream")
    on_task = True
    prunes = True
    block = Block
    recipe_fields = ("layers",)

    def blocks(self, experiment: Experiment) -> tuple[Block, ...]:
        return experiment.downstream

    def with_blocks(self, experiment: Experiment, blocks: tuple[Block, ...]) -> Experiment:
        return experiment.model_copy(update={"downstream": blocks})

    def plan(self, plan: Plan) -> Iterator[tuple[RunKey, Sources]]:
        for index, block in enumerate(self.blocks(plan.experiment)):
            where = plan.place("downstream", index)
            for task in plan.tasks_of(block, where, from_upstream=block.upstream is not None):
                for name in block.recipes:
                    recipe = plan.definitions.recipe(name, task, f"{where}.recipes", self.name)
                    chosen = list(pruned(plan, block, name, recipe, where))
                    if not chosen:
                        raise UserError(
                            f"{where}: recipe '{name}' is for no method of its own; list 'methods' (or 'all')"
                        )
                    sources = self._sources(plan, block, task, name, recipe, where)
                    lineage = (name, block.upstream) if block.upstream else (name,)
                    for method, sparsity in chosen:
                        for seed in block.seeds or plan.experiment.seeds:
                            yield RunKey(self.name, task, lineage, seed, method, sparsity), sources

    @staticmethod
    def _sources(plan: Plan, block: Block, task: str, name: str, recipe: Recipe, where: str) -> Sources:
        """The teacher, and the model that is pruned if that is not the experiment's own."""
        teacher = plan.teacher(task)
        if (recipe.start == "upstream") != (block.upstream is not None):
            needed = (
                "needs 'upstream'"
                if recipe.start == "upstream"
                else "does not start from an upstream model: leave it out"
            )
            raise UserError(f"{where}.upstream: recipe '{name}' {needed}")
        if block.upstream is not None:
            dense = {run.key.lineage[0]: run for run in plan.of_stage("upstream") if run.key.method is None}
            if block.upstream not in dense:
                raise unknown_name("dense upstream recipe", block.upstream, dense, f"{where}.upstream")
            return {MODEL: dense[block.upstream], TEACHER: teacher}
        return {MODEL: teacher, TEACHER: teacher} if recipe.start == "teacher" else {TEACHER: teacher}

    def check_recipe(self, recipe: Recipe) -> None:
        super().check_recipe(recipe)
        if recipe.training is not None and recipe.schedule is None and recipe.scaling is None:
            raise ValueError("a downstream recipe with 'training' needs a 'schedule' or 'scaling'")
        if recipe.is_one_shot and recipe.start == "pretrained":
            raise ValueError("one-shot pruning starts from a fine-tuned model: set start: teacher")

    def run(self, planned: PlannedRun) -> Record | None:
        """Keep the recipe's layers, prune to the key's sparsity with its method, evaluate, save.

        A gradual run resumes from its last checkpoint.

        Raises:
            UserError: a model it is made from is missing, the schedule does not fit the data, or training diverges.
        """
        from obert.models.encoders import keep_layers, load_tokenizer, load_trained
        from obert.records.recording import Recording
        from obert.stages._pruned import prune_and_record
        from obert.stages._trained import load_start, prepare, teacher_of

        recording, examples = Recording(planned), planned.task.load()
        if planned.recipe.start == "teacher":
            folder = planned.sources[MODEL].folder / MODEL
            network, tokenizer = load_trained(folder, planned.task.head), load_tokenizer(folder)
        else:
            network, tokenizer = load_start(planned, examples)
        if planned.recipe.layers is not None:
            keep_layers(network, planned.recipe.layers)
        return prune_and_record(recording, prepare(planned, examples, network, tokenizer), teacher_of(planned))
