"""What the stages that prune share: the pruner of a recipe, in one shot or gradually during training."""

from transformers import PreTrainedModel

from obert.masks.patterns import parse_pattern
from obert.records.record import Record
from obert.records.recording import Recording
from obert.stages._trained import Prepared, record_trained, train
from obert.training.gradual import GradualPruning
from obert.training.pruner import Pruner
from obert.training.schedules import pruning_events
from obert.training.trainer import steps_per_epoch


def prune_and_record(recording: Recording, prepared: Prepared, teacher: PreTrainedModel | None) -> Record | None:
    """Prune to the key's sparsity with its method, evaluate, save; a gradual run resumes from its last checkpoint.

    Raises:
        UserError: the schedule does not fit the data, or training diverges.
    """
    planned, recipe = recording.planned, recording.planned.recipe
    pruner = Pruner(
        prepared.network,
        planned.method,
        prepared.train,
        planned.seeds,
        parse_pattern(recipe.pattern),
        recipe.distribution,
        teacher,
        recipe.distillation,
        recipe.scope,
    )
    if recipe.is_one_shot:
        pruner.prune(planned.key.sparsity)
        return record_trained(recording, prepared, pruner=pruner)
    steps = steps_per_epoch(recipe.training, len(prepared.train.features))
    gradual = GradualPruning(pruner, pruning_events(recipe.schedule, steps, planned.key.sparsity))
    trainer = train(recording, prepared, teacher=teacher, gradual=gradual)
    return record_trained(recording, prepared, trainer=trainer, pruner=pruner)
