"""Fine-tune the dense teacher of a task."""

from obert.experiment.keys import RunKey
from obert.experiment.recipes import load_task, recipe_for
from obert.experiment.schema import Experiment
from obert.foundation.code_identity import code_hash
from obert.models.encoders import load_pretrained
from obert.records.record import Record
from obert.records.run import Run
from obert.stages._trained import prepare, record_trained, seeded, train


def run(experiment: Experiment, key: RunKey) -> Record:
    """Train, evaluate, save; resumes from the last checkpoint of the same run.

    Raises:
        UserError: model or data are missing, or training diverges.
    """
    return train_dense(experiment, key, code_hash("teacher", tasks=key.task))


def train_dense(experiment: Experiment, key: RunKey, code: str) -> Record:
    """Train the experiment's pre-trained model on the key's task."""
    run = Run(experiment, key, code)
    recipe = recipe_for(experiment, key.recipe, key.task)
    task = load_task(key.task, experiment.options_of(key.task), f"task {key.task}")
    with seeded(run.seeds["initialization"]):
        network, tokenizer = load_pretrained(experiment.model, task.head, task.num_labels)
    prepared = prepare(run, task, network, tokenizer)
    trainer = train(run, prepared, recipe)
    return record_trained(run, prepared, trainer=trainer)
