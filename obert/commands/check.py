"""Everything that can be checked cheaply before the first training step."""

import shutil
from pathlib import Path

import psutil
import torch
from transformers import AutoConfig, AutoModel

from obert.data.sources import resolve_model
from obert.experiment.folders import RESULTS
from obert.experiment.plan import all_keys, trained_keys
from obert.experiment.recipes import load_task, method_of, recipe_for
from obert.experiment.schema import Experiment
from obert.foundation.errors import UserError
from obert.models.encoders import keep_layers, prunable_weights
from obert.training.pruner import check_first_event, check_gradients
from obert.training.schedules import pruning_events
from obert.training.trainer import steps_per_epoch

TRAINING_OVERHEAD = 1.5  # of free disk over what the finished models take: checkpoints of the jobs in flight


def run(experiment: Experiment) -> str:
    """Check names, model and data, disk, memory and schedules, and say what was found.

    Raises:
        UserError: everything that would stop a run later.
    """
    sizes, parameters = _model_sizes(experiment)
    lines = [
        f"experiment {experiment.name}: {len(all_keys(experiment))} runs, "
        f"{sum(k.stage in ('upstream', 'downstream') and k.method is not None for k in all_keys(experiment))} of them "
        "pruning",
        f"model {experiment.model.source}: {parameters / 1e6:.1f} M parameters, "
        f"{sum(sizes.values()) / 1e6:.1f} M prunable",
        f"device: {torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'}",
    ]
    lines.append(_check_disk(experiment, parameters))
    for name in (*experiment.tasks, *([experiment.upstream.task] if experiment.upstream else [])):
        lines.append(_check_task(experiment, name, sizes))
    return "\n".join(lines)


def _model_sizes(experiment: Experiment) -> tuple[dict[str, int], int]:
    location = resolve_model(experiment.model.source)
    try:
        config = AutoConfig.from_pretrained(location, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"model.source '{experiment.model.source}' has no usable configuration: {error}") from None
    with torch.device("meta"):
        network = AutoModel.from_config(config)
    if experiment.model.layers is not None:
        keep_layers(network, experiment.model.layers)
    return {name: w.numel() for name, w in prunable_weights(network).items()}, network.num_parameters()


def _check_disk(experiment: Experiment, parameters: int) -> str:
    trained = sum(key.stage != "benchmark" for key in all_keys(experiment))
    needed = trained * parameters * 4 * TRAINING_OVERHEAD
    RESULTS.mkdir(exist_ok=True)
    free = shutil.disk_usage(RESULTS).free
    if free < needed:
        raise UserError(
            f"disk: {needed / 1e9:.1f} GB are needed below {Path(RESULTS).resolve()}, {free / 1e9:.1f} GB are free. "
            "Free some, or run a smaller grid."
        )
    return f"disk: about {needed / 1e9:.1f} GB needed, {free / 1e9:.0f} GB free"


def _check_task(experiment: Experiment, name: str, sizes: dict[str, int]) -> str:
    task = load_task(name, experiment.options_of(name), f"task {name}")
    splits = task.load()
    examples = len(splits["train"])
    peak = 0
    for key in trained_keys(experiment):
        if key.task != name or key.method is None or key.stage == "transfer":
            continue
        recipe = recipe_for(experiment, key.recipe, name)
        method = method_of(recipe, key.method, key.recipe)
        if recipe.schedule is not None:
            events = pruning_events(recipe.schedule, steps_per_epoch(recipe.training, examples), key.sparsity)
            check_first_event(method, events)
        check_gradients(method, examples, f"recipe {key.recipe}, method {key.method}, task {name}")
        peak = max(peak, method.memory_bytes(sizes))
    available = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else psutil.virtual_memory().available
    if peak > available:
        raise UserError(
            f"task {name}: a pruning event needs {peak / 1e9:.1f} GB, {available / 1e9:.1f} GB are free. Lower "
            "fisher_block_size (mfac: num_gradients), or keep fewer layers (model.layers)."
        )
    return (
        f"task {name}: {examples} training and {len(splits['validation'])} validation examples; "
        f"a pruning event takes up to {peak / 1e9:.2f} GB"
    )
