"""What the stages that prune share: the pruner of a recipe, in one shot or gradually during training."""

from safetensors.torch import save_model
from transformers import PreTrainedModel
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from obert.foundation import processes
from obert.records.record import Record
from obert.records.recording import Recording
from obert.stages._trained import Prepared, record_trained, train
from obert.training.checkpoints import WEIGHTS, latest_checkpoint, load_weights, mark
from obert.training.gradual import GradualPruning
from obert.training.pruner import Pruner
from obert.training.schedules import check_steps, pruning_events, steps_per_epoch


def prune_and_record(recording: Recording, prepared: Prepared, teacher: PreTrainedModel | None) -> Record | None:
    """Prune to the key's sparsity with its method, evaluate, save; goes on from the run's last checkpoint.

    Raises:
        UserError: the schedule does not fit the data, or training diverges.
    """
    planned, recipe = recording.planned, recording.planned.recipe
    pruner = Pruner.of(recipe, prepared.network, planned.method, prepared.train, planned.seeds, teacher)
    if recipe.is_one_shot:
        _prune_in_one_shot(recording, pruner)
        pruner.hook.finish()
        return record_trained(recording, prepared, pruner=pruner)
    steps = steps_per_epoch(recipe.training, len(prepared.train.features))
    events = pruning_events(recipe.schedule, steps, planned.key.sparsity)
    check_steps(recipe.training, len(prepared.train.features), events)
    gradual = GradualPruning(pruner, events)
    trainer = train(recording, prepared, teacher=teacher, gradual=gradual)
    return record_trained(recording, prepared, trainer=trainer, pruner=pruner)


def _prune_in_one_shot(recording: Recording, pruner: Pruner) -> None:
    """Prune, and keep the pruned model in a checkpoint, or take it from there: an event may take an hour."""
    planned = recording.planned
    checkpoint = latest_checkpoint(planned.checkpoints, recording.identity)
    if checkpoint is not None:
        print(f"resuming from {checkpoint}", flush=True)
        pruner.load(checkpoint)
        load_weights(pruner.network, checkpoint)
        return
    pruner.prune(planned.key.sparsity)
    if processes.rank() == 0:
        checkpoint = planned.checkpoints / f"{PREFIX_CHECKPOINT_DIR}-0"
        checkpoint.mkdir(parents=True, exist_ok=True)
        save_model(pruner.network, str(checkpoint / WEIGHTS))
        pruner.save(checkpoint)
        mark(checkpoint, recording.identity)
