"""Training steps of the harness, and where they wait for what a device has not computed yet."""

from __future__ import annotations

import copy
import traceback
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

from obert.experiment.recipe import Distillation, Training
from obert.experiment.recipes import load_method, load_task
from obert.experiment.schema import Model
from obert.foundation import registry
from obert.masks.patterns import parse_pattern
from obert.models.encoders import load_pretrained
from obert.training.features import Features
from obert.training.gradual import GradualPruning
from obert.training.pruner import Pruner
from obert.training.trainer import CompressionTrainer

TASKS = {
    "movie_reviews": {"source": "tests/data/movie_reviews", "max_length": 32},
    "squad": {"source": "tests/data/city_qa", "max_length": 64, "doc_stride": 16},
    "mlm": {"source": "tests/data/mlm", "max_length": 32},
}
SEEDS = {"data order": 0, "dropout": 1, "gradients": 2, "pruning": 3}
EVENT, WATCHED = 3, range(5, 9)  # steps counted from 0; the lines of the first ten are fetched together after step 9
READ = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select", "aten::unique_consecutive"}
OWN = ("obert", "transformers", "accelerate", "torch/optim", "torch/nn", "test_")


class Waits(TorchDispatchMode):
    """Notes, inside its block, each line at which Python or a shape depends on the values of a tensor."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        reads = func.overloadpacket._qualified_op_name in READ
        by_mask = func is torch.ops.aten.index.Tensor and any(x is not None and x.dtype == torch.bool for x in args[1])
        if reads or by_mask:
            stack = [
                frame
                for frame in traceback.extract_stack()
                if any(part in frame.filename for part in OWN) and "waiting.py" not in frame.filename
            ]
            self.found.append(" < ".join(f"{frame.filename}:{frame.lineno}" for frame in stack[-2:]) + f" {func}")
        return func(*args, **(kwargs or {}))


class Watched(TrainerCallback):
    """A block around each step of WATCHED, from its batch to its optimiser's step and what follows."""

    def __init__(self, enter, leave):
        self.enter, self.leave = enter, leave

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == WATCHED.start:
            self.enter()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == WATCHED.stop:
            self.leave()


def start(task="movie_reviews", source="tests/data/tiny_bert"):
    """A model and the features of some examples of a task, most of them of different lengths."""
    torch.manual_seed(0)
    task = load_task(task, TASKS[task], "test")
    examples = task.load()["train"]
    network, tokenizer = load_pretrained(Model(source=source), task.head, task.classes(examples))
    return network, Features.encode(task, examples.select(range(min(96, len(examples)))), tokenizer)


def small(name):
    """A method as cheap as it can be."""
    return load_method(name, dict(registry.load("pruning", name).small_settings), "test")


def waits_of(network, data, method, folder: Path) -> list[str]:
    """What some steps of gradual pruning wait for."""
    waits = Waits()
    gradual_steps(network, data, method, folder, waits.__enter__, lambda: waits.__exit__(None, None, None))
    return waits.found


def gradual_steps(network, data, method, folder: Path, enter, leave, **training) -> CompressionTrainer:
    """Twelve steps with a teacher, an event before the fourth; `enter` and `leave` are called around some after it."""
    training = Training(epochs=48 / len(data.features), batch_size=4, learning_rate={"initial": 1e-4}, **training)
    pruner = Pruner(network, method, data, SEEDS, parse_pattern("unstructured"))
    gradual = GradualPruning(pruner, {EVENT: 0.5})
    trainer = CompressionTrainer(
        network,
        data,
        training,
        SEEDS,
        folder,
        teacher=copy.deepcopy(network).eval(),
        distillation=Distillation(hardness=0.5),
        sparsity=lambda: pruner.sparsity,
        parameter_groups=pruner.hook.parameter_groups(),
        penalty=gradual.penalty,
        callbacks=(gradual, Watched(enter, leave)),
    )
    trainer.train()
    return trainer
