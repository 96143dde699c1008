"""Quantisation-aware training of a dense or pruned model, its zeros held (oBERT, appendix A.7)."""

from obert.experiment.folders import run_folder
from obert.experiment.keys import RunKey
from obert.experiment.recipes import load_task, recipe_for
from obert.experiment.schema import Experiment
from obert.foundation.code_identity import code_hash
from obert.masks.holding import FixedPattern
from obert.models.encoders import load_tokenizer, load_trained, prunable_weights
from obert.quantization.fake import FreezeObservers, quantize
from obert.records.record import Record
from obert.records.run import MODEL, Run
from obert.stages._trained import prepare, record_trained, train
from obert.training.trainer import steps_per_epoch


def run(experiment: Experiment, key: RunKey) -> Record:
    """Train with 8-bit weights and activations, distilling from the task's teacher, evaluate, save.

    Raises:
        UserError: a model it is made from is missing, or training diverges.
        RuntimeError: a weight that was zero before is not zero in the end.
    """
    run = Run(experiment, key, code_hash("quantize", tasks=key.task))
    recipe = recipe_for(experiment, key.recipe, key.task)
    task = load_task(key.task, experiment.options_of(key.task), f"tasks.{key.task}")
    folders = [run_folder(experiment, source) / MODEL for source in run.sources()]
    network, tokenizer = load_trained(folders[0], task.head), load_tokenizer(folders[0])
    pattern = FixedPattern(prunable_weights(network)) if key.method is not None else None
    prepared = prepare(run, task, quantize(network), tokenizer)
    teacher = load_trained(folders[-1], task.head) if recipe.distillation else None
    steps = steps_per_epoch(recipe.training, len(prepared.train.features))
    frozen = FreezeObservers(round(recipe.freeze_observers_epoch * steps))
    trainer = train(run, prepared, recipe, teacher=teacher, pattern=pattern, callbacks=(frozen,))
    return record_trained(run, prepared, trainer=trainer, pattern=pattern)
