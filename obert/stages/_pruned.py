"""What the stages that prune share: the pruner of a recipe, in one shot or gradually during training."""

from transformers import PreTrainedModel

from obert.experiment.recipe import Recipe
from obert.experiment.recipes import method_of
from obert.masks.patterns import parse_pattern
from obert.records.record import Record
from obert.records.run import Run
from obert.stages._trained import Prepared, record_trained, train
from obert.training.gradual import GradualPruning
from obert.training.pruner import Pruner
from obert.training.schedules import pruning_events
from obert.training.trainer import steps_per_epoch


def prune_and_record(run: Run, prepared: Prepared, recipe: Recipe, teacher: PreTrainedModel | None) -> Record:
    """Prune to the key's sparsity with its method, evaluate, save; a gradual run resumes from its last checkpoint.

    Raises:
        UserError: the schedule does not fit the data, or training diverges.
    """
    key = run.key
    method = method_of(recipe, key.method, f"recipe {key.recipe}, methods.{key.method}")
    pruner = Pruner(
        prepared.network,
        prepared.task,
        method,
        prepared.train,
        run.seeds,
        parse_pattern(recipe.pattern),
        recipe.distribution,
        teacher,
        recipe.distillation,
    )
    if recipe.is_one_shot:
        pruner.prune(key.sparsity)
        return record_trained(run, prepared, pruner=pruner)
    steps = steps_per_epoch(recipe.training, len(prepared.train.features))
    gradual = GradualPruning(pruner, pruning_events(recipe.schedule, steps, key.sparsity))
    trainer = train(run, prepared, recipe, teacher=teacher, gradual=gradual)
    return record_trained(run, prepared, trainer=trainer, pruner=pruner)
