"""Upstream runs: layers dropped, or weights pruned, before any task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from obert.experiment.keys import RunKey
from obert.records.record import MODEL
from obert.stages import TEACHER, Sources, TrainingStage
from obert.stages._grid import pruned

if TYPE_CHECKING:
    from obert.experiment.plan import Plan, PlannedRun
    from obert.experiment.recipe import Recipe
    from obert.records.record import Record


class Upstream(TrainingStage):
    """Drop layers of the upstream teacher, or prune it, on masked language modelling."""

    after = ("upstream_teacher",)
    upstream = True
    prunes = True
    recipe_fields = ("layers",)

    def plan(self, plan: Plan) -> Iterator[tuple[RunKey, Sources]]:
        for teacher in plan.of_stage("upstream_teacher"):  # none, or one
            for index, block in enumerate(plan.experiment.upstream.grid):
                where = plan.place("upstream.grid", index)
                for name in block.recipes:
                    recipe = plan.definitions.recipe(name, teacher.key.task, f"{where}.recipes", self.name)
                    chosen = list(pruned(plan, block, name, recipe, where))
                    for method, sparsity in chosen or [(None, None)]:  # without a method it drops layers only
                        key = RunKey(self.name, teacher.key.task, (name,), teacher.key.seed, method, sparsity)
                        yield key, {MODEL: teacher, TEACHER: teacher}

    def check_recipe(self, recipe: Recipe) -> None:
        super().check_recipe(recipe)
        if recipe.training is None or bool(recipe.schedule or recipe.scaling) != bool(recipe.methods):
            raise ValueError("an upstream recipe needs 'training', and either both 'schedule' and 'methods' or neither")

    def run(self, planned: PlannedRun) -> Record | None:
        """Keep the recipe's layers, prune if the key says so, train with distillation from the whole teacher.

        Raises:
            UserError: the teacher is missing, the schedule does not fit the data, or training diverges.
        """
        from obert.models.encoders import keep_layers, load_tokenizer, load_trained
        from obert.records.recording import Recording
        from obert.stages._pruned import prune_and_record
        from obert.stages._trained import prepare, record_trained, teacher_of, train

        recording, folder = Recording(planned), planned.sources[MODEL].folder / MODEL
        network = load_trained(folder, planned.task.head)
        if planned.recipe.layers is not None:
            keep_layers(network, planned.recipe.layers)
        prepared = prepare(planned, planned.task.load(), network, load_tokenizer(folder))
        teacher = teacher_of(planned)
        if planned.method is not None:
            return prune_and_record(recording, prepared, teacher)
        return record_trained(recording, prepared, trainer=train(recording, prepared, teacher=teacher))
