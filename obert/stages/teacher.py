"""Fine-tune the dense teacher of a task."""

from obert.config import Experiment, load_task, recipe_for
from obert.models import load_pretrained
from obert.plan import RunKey
from obert.provenance import code_hash
from obert.records import Record
from obert.runs import Run
from obert.stages._trained import prepare, record_trained, seeded, train


def run(experiment: Experiment, key: RunKey) -> Record:
    """Train, evaluate, save; resumes from the last checkpoint of the same run.

    Raises:
        UserError: model or data are missing, or training diverges.
    """
    run = Run(experiment, key, code_hash("teacher", tasks=key.task))
    recipe = recipe_for(experiment, key.recipe, key.task)
    task = load_task(key.task, experiment.tasks[key.task], f"tasks.{key.task}")
    with seeded(run.seeds["initialization"]):
        network, tokenizer = load_pretrained(experiment.model, task.head, task.num_labels)
    prepared = prepare(run, task, network, tokenizer)
    trainer = train(run, prepared, recipe)
    return record_trained(run, prepared, trainer=trainer)
