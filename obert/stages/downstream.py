"""Prune a model on its downstream task, in one shot or gradually."""

from obert.experiment.folders import run_folder
from obert.experiment.keys import RunKey
from obert.experiment.recipes import load_task, recipe_for
from obert.experiment.schema import Experiment
from obert.foundation.code_identity import code_hash
from obert.models.encoders import load_pretrained, load_tokenizer, load_trained
from obert.records.record import Record
from obert.records.run import MODEL, Run
from obert.stages._pruned import prune_and_record
from obert.stages._trained import prepare, seeded


def run(experiment: Experiment, key: RunKey) -> Record:
    """Prune to the key's sparsity with its method, evaluate, save; a gradual run resumes from its last checkpoint.

    Raises:
        UserError: a model it is made from is missing, the schedule does not fit the data, or training diverges.
    """
    run = Run(experiment, key, code_hash("downstream", tasks=key.task, pruning=key.method))
    recipe = recipe_for(experiment, key.recipe, key.task)
    task = load_task(key.task, experiment.options_of(key.task), f"tasks.{key.task}")
    *started, teacher_key = run.sources()
    teacher_folder = run_folder(experiment, teacher_key) / MODEL
    if recipe.start == "teacher":
        network, tokenizer = load_trained(teacher_folder, task.head), load_tokenizer(teacher_folder)
    else:
        with seeded(run.seeds["initialization"]):
            network, tokenizer = load_pretrained(run.start(started), task.head, task.num_labels)
    prepared = prepare(run, task, network, tokenizer)
    teacher = load_trained(teacher_folder, task.head) if recipe.distillation else None
    return prune_and_record(run, prepared, recipe, teacher)
