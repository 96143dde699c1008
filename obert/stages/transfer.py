"""Fine-tune an upstream model on a task with its pattern of zeros fixed (sparse transfer; oBERT, section 4.2)."""

from obert.experiment.folders import run_folder
from obert.experiment.keys import RunKey
from obert.experiment.recipes import load_task, recipe_for
from obert.experiment.schema import Experiment
from obert.foundation.code_identity import code_hash
from obert.masks.holding import FixedPattern
from obert.models.encoders import load_pretrained, load_trained, prunable_weights
from obert.records.record import Record
from obert.records.run import MODEL, Run
from obert.stages._trained import prepare, record_trained, seeded, train


def run(experiment: Experiment, key: RunKey) -> Record:
    """Train under the upstream model's masks with distillation from the task's teacher, evaluate, save.

    Raises:
        UserError: a model it is made from is missing, or training diverges.
        RuntimeError: a weight that is zero upstream is not zero in the end.
    """
    run = Run(experiment, key, code_hash("transfer", tasks=key.task))
    recipe = recipe_for(experiment, key.recipe, key.task)
    task = load_task(key.task, experiment.options_of(key.task), f"tasks.{key.task}")
    *started, teacher_key = run.sources()
    with seeded(run.seeds["initialization"]):
        network, tokenizer = load_pretrained(run.start(started), task.head, task.num_labels)
    pattern = FixedPattern(prunable_weights(network)) if key.method is not None else None
    prepared = prepare(run, task, network, tokenizer)
    teacher = load_trained(run_folder(experiment, teacher_key) / MODEL, task.head) if recipe.distillation else None
    trainer = train(run, prepared, recipe, teacher=teacher, pattern=pattern)
    return record_trained(run, prepared, trainer=trainer, pattern=pattern)
