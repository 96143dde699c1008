"""Drop layers of the upstream teacher, or prune it, on masked language modelling."""

from obert.experiment.folders import run_folder
from obert.experiment.keys import RunKey
from obert.experiment.plan import upstream_teacher_key
from obert.experiment.recipes import load_task, recipe_for
from obert.experiment.schema import Experiment
from obert.foundation.code_identity import code_hash
from obert.models.encoders import keep_layers, load_tokenizer, load_trained
from obert.records.record import Record
from obert.records.run import MODEL, Run
from obert.stages._pruned import prune_and_record
from obert.stages._trained import prepare, record_trained, train


def run(experiment: Experiment, key: RunKey) -> Record:
    """Keep the recipe's layers, prune if the key says so, train with distillation from the whole teacher.

    Raises:
        UserError: the teacher is missing, the schedule does not fit the data, or training diverges.
    """
    run = Run(experiment, key, code_hash("upstream", tasks=key.task, pruning=key.method))
    recipe = recipe_for(experiment, key.recipe, key.task)
    task = load_task(key.task, experiment.options_of(key.task), "upstream.options")
    run.source()
    folder = run_folder(experiment, upstream_teacher_key(experiment)) / MODEL
    network = load_trained(folder, task.head)
    if recipe.layers is not None:
        keep_layers(network, recipe.layers)
    prepared = prepare(run, task, network, load_tokenizer(folder))
    teacher = load_trained(folder, task.head) if recipe.distillation else None
    if key.method is not None:
        return prune_and_record(run, prepared, recipe, teacher)
    return record_trained(run, prepared, trainer=train(run, prepared, recipe, teacher=teacher))
