"""Prune a model on its downstream task, in one shot or gradually during training."""

from obert.config import Experiment, load_task, method_of, recipe_for
from obert.gradual import GradualPruning, Pruner
from obert.models import load_pretrained, load_tokenizer, load_trained
from obert.patterns import parse_pattern
from obert.plan import RunKey, run_folder, teacher_key
from obert.provenance import code_hash
from obert.records import Record
from obert.runs import MODEL, Run
from obert.schedules import pruning_events
from obert.stages._trained import prepare, record_trained, seeded, train
from obert.training import steps_per_epoch


def run(experiment: Experiment, key: RunKey) -> Record:
    """Prune to the key's sparsity with its method, evaluate, save; a gradual run resumes from its last checkpoint.

    Raises:
        UserError: the teacher is missing, the schedule does not fit the data, or training diverges.
    """
    run = Run(experiment, key, code_hash("downstream", tasks=key.task, pruning=key.method))
    recipe = recipe_for(experiment, key.recipe, key.task)
    task = load_task(key.task, experiment.tasks[key.task], f"tasks.{key.task}")
    method = method_of(recipe, key.method, f"recipe {key.recipe}, methods.{key.method}")
    run.source()
    teacher_folder = run_folder(experiment, teacher_key(experiment, key.task)) / MODEL
    if recipe.start == "teacher":
        network, tokenizer = load_trained(teacher_folder, task.head), load_tokenizer(teacher_folder)
    else:
        with seeded(run.seeds["initialization"]):
            network, tokenizer = load_pretrained(experiment.model, task.head, task.num_labels)
    prepared = prepare(run, task, network, tokenizer)
    teacher = load_trained(teacher_folder, task.head) if recipe.distillation else None
    pruner = Pruner(
        network,
        task,
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
    schedule = pruning_events(
        recipe.schedule, steps_per_epoch(recipe.training, len(prepared.train.features)), key.sparsity
    )
    trainer = train(run, prepared, recipe, teacher=teacher, gradual=GradualPruning(pruner, schedule))
    return record_trained(run, prepared, trainer=trainer, pruner=pruner)
