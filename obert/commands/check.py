"""Everything that can be checked cheaply before the first training step."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from obert.data.sources import resolve_model
from obert.deployment.timing import check_lengths
from obert.experiment import folders
from obert.experiment.plan import Plan, PlannedRun
from obert.experiment.recipe import Scope
from obert.experiment.resources import event_bytes
from obert.experiment.schema import Model
from obert.experiment.sizes import DataSize, ModelSize, Sizes
from obert.foundation.errors import UserError
from obert.foundation.files import check_folder
from obert.foundation.passwords import masked
from obert.models.architecture import architecture_of
from obert.models.encoders import ENCODER, deployed_weights, keep_layers, load_given, prunable_weights, understood
from obert.models.loading import load_tokenizer, load_weights, read_config
from obert.records.finished import pending
from obert.stages._dense import DenseTeacher
from obert.stages.export import ONNX
from obert.tracking import store
from obert.tracking.database import read_content
from obert.training.masked import check_first_event
from obert.training.pruner import check_features
from obert.training.schedules import check_steps, pruning_events, steps_per_epoch

TRAINING_OVERHEAD = 1.5  # of free disk over what the finished models take: checkpoints of the jobs in flight


@dataclass(frozen=True)
class _Model:
    """A model without its weights, and its tokenizer."""

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def prunable(self, scope: Scope = ENCODER) -> dict[str, int]:
        """Sizes of the weight matrices in scope by name, those of a task's head not among them."""
        return {name: weight.numel() for name, weight in prunable_weights(self.network, scope).items()}

    def size(self) -> ModelSize:
        """What plans estimate memory and time from."""
        config, parts = self.network.config, architecture_of(self.network).parts()
        return ModelSize(
            parameters=self.network.num_parameters(),
            multiplied=deployed_weights(self.network, ENCODER),
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            feed_forward=getattr(config, "intermediate_size", 4 * config.hidden_size),
            heads=config.num_attention_heads,
            vocabulary=config.vocab_size,
            parts={p: {name: layer.weight.numel() for name, layer in layers.items()} for p, layers in parts.items()},
        )


def run(plan: Plan) -> str:
    """Check model and data, disk, memory and schedules, and say what was found.

    Raises:
        UserError: everything that would stop a run later.
    """
    experiment = plan.experiment
    tracking = _check_tracking(experiment.tracking_uri)
    models = {model: _model(model) for model in dict.fromkeys(run.model for run in plan)}
    pruning = sum(run.stage.prunes and run.method is not None for run in plan)
    runs = f"{len(plan)} run{'' if len(plan) == 1 else 's'}"
    lines = [f"experiment {experiment.name}: {runs}, {pruning} of them pruning"]
    for model, loaded in models.items():
        lines.append(
            f"model {model.source}: {_count(loaded.network.num_parameters())} parameters, "
            f"{_count(sum(loaded.prunable().values()))} prunable"
        )
    lines.append(f"device: {torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'}")
    lines.append(_check_disk(plan, models))
    lines.append(tracking)
    for task in dict.fromkeys(run.key.task for run in plan.of_stage("benchmark")):
        check_lengths(experiment.benchmark.scenarios_of(task), resolve_model(experiment.model_of(task).source))
    sizes = Sizes()
    for model, loaded in models.items():
        sizes.add_model(model, loaded.size())
    for name in dict.fromkeys(run.key.task for run in plan):
        runs = [run for run in plan.trained if run.key.task == name]
        said, size = _check_task(name, runs, models[runs[0].model])
        lines.append(said)
        sizes.add_data(runs[0], size)
    sizes.save(experiment)
    return "\n".join(lines)


def _model(model: Model) -> _Model:
    location = resolve_model(model.source)
    where = f"model.source '{model.source}'"
    config = read_config(location, where)
    network = load_weights(AutoModel, location, where, new_head=True, config=config, device_map="meta")
    tokenizer = load_tokenizer(location)
    understood(network, tokenizer)
    if model.layers is not None:
        keep_layers(network, model.layers)
    return _Model(network, tokenizer)


def _count(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number:,}"


def _check_disk(plan: Plan, models: Mapping[Model, _Model]) -> str:
    left = pending(plan)
    with_model = [run for run in left if run.stage.trains or ONNX in run.stage.files]
    needed = sum(models[run.model].network.num_parameters() for run in with_model) * 4 * TRAINING_OVERHEAD
    check_folder(folders.RESULTS / "runs", "results")
    folders.RESULTS.mkdir(exist_ok=True)
    free = shutil.disk_usage(folders.RESULTS).free
    if free < needed:
        raise UserError(
            f"disk: {needed / 1e9:.1f} GB are needed below {Path(folders.RESULTS).resolve()} for {len(left)} runs, "
            f"{free / 1e9:.1f} GB are free. Free some, or run a smaller grid."
        )
    return f"disk: about {needed / 1e9:.1f} GB needed, {free / 1e9:.0f} GB free"


def _check_tracking(uri: str) -> str:
    """Ask a server; a database is only looked into, and made by `prepare`."""
    database = store.database_file(uri)
    if database is None:
        store.ping(uri)
        return f"tracking: {masked(uri)} answers"
    there = read_content(database) is not None
    return f"tracking: database {database}" + ("" if there else ", made when the first run starts")


def _check_task(name: str, runs: Sequence[PlannedRun], model: _Model) -> tuple[str, DataSize]:
    task = runs[0].task
    splits = task.load()
    for run in runs:
        if isinstance(run.stage, DenseTeacher) and run.recipe.training is None:
            load_given(run.model, task.head, task.classes(splits["train"]))
    # Steps and limits go by features: windows of long texts, packed sequences. One example may be several.
    encoded = task.encode(splits["train"], model.tokenizer)
    features, lengths = len(encoded), encoded["length"]
    peak = 0
    for run in runs:
        if not run.stage.prunes or run.method is None:
            continue
        recipe, method = run.recipe, run.method
        if recipe.schedule is not None:
            events = pruning_events(recipe.schedule, steps_per_epoch(recipe.training, features), run.key.sparsity)
            check_steps(recipe.training, features, events)
            check_first_event(method, events)
        check_features(method, features, f"recipe {run.key.recipe}, method {run.key.method}, task {name}")
        peak = max(peak, event_bytes(method, model.prunable(recipe.scope)))
    first = encoded[0]["input_ids"]
    size = DataSize(
        train=features,
        validation=len(splits["validation"]),
        sequences=len(first) if isinstance(first[0], list) else 1,  # of a feature, one a choice
        tokens=sum(lengths) / features,
        longest=max(lengths),
    )
    said = (
        f"task {name}: {len(splits['train'])} training examples ({features} features) and "
        f"{len(splits['validation'])} validation examples; a pruning event takes up to {peak / 1e9:.2f} GB"
    )
    return said, size
