"""Masks of a short gradual oBERT run on the GPU, against those of the CPU from the same seeds.

The runs are three processes: the CPU's, which is shown no GPU, and two on the GPU, which say how far it agrees with
itself. Dropout is off, since its random numbers differ by device.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from measuring import Options, run_part
from places import ROOT
from safetensors.torch import load_file, save_file
from samples import with_new_head
from transformers import TrainerCallback

from obert.experiment.recipe import LearningRate, Training
from obert.experiment.recipes import load_method, load_task
from obert.foundation import processes
from obert.heads.sequence_classification import SequenceClassification
from obert.masks.patterns import UNSTRUCTURED
from obert.models.encoders import load_tokenizer
from obert.training.features import Features
from obert.training.gradual import GradualPruning
from obert.training.pruner import Pruner
from obert.training.trainer import CompressionTrainer

DATA = ROOT / "tests" / "data"
SCHEDULE = {0: 0.5, 4: 0.7, 8: 0.9}
SEEDS = {"data order": 0, "dropout": 1, "gradients": 2, "pruning": 3}
METHOD = {"num_gradients": 64, "gradients": "per_example", "gradient_batch_size": 16, "dampening": 1e-5}


class AfterEvents(TrainerCallback):
    """Keeps the masks that each event left."""

    def __init__(self, pruner: Pruner):
        self.pruner = pruner
        self.masks: dict[str, torch.Tensor] = {}

    def on_step_end(self, args, state, control, **kwargs):
        """Called after every optimiser step."""
        if state.global_step - 1 in SCHEDULE:
            event = list(SCHEDULE).index(state.global_step - 1)
            self.masks |= {f"{event}/{name}": mask.cpu().clone() for name, mask in self.pruner.masks.items()}


def write_masks(path: Path) -> None:
    """The run, on whatever device this process is shown."""
    torch.manual_seed(0)
    options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    network = with_new_head(DATA / "tiny_bert", SequenceClassification(), **options).to(processes.join())
    task = load_task("movie_reviews", {"source": str(DATA / "movie_reviews"), "max_length": 32}, "masks")
    data = Features.encode(task, task.load()["train"], load_tokenizer(DATA / "tiny_bert"))
    pruner = Pruner(network, load_method("obert", METHOD, "masks"), data, SEEDS, UNSTRUCTURED)
    gradual, after = GradualPruning(pruner, SCHEDULE), AfterEvents(pruner)
    training = Training(epochs=12 * 8 / len(data.features), batch_size=8, learning_rate=LearningRate(initial=1e-4))
    trainer = CompressionTrainer(network, data, training, SEEDS, path.parent, callbacks=(gradual, after))
    trainer.train()
    save_file(after.masks, path)


def differing(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[int]:
    """How many weights two runs keep differently, by event."""
    found = [0] * len(SCHEDULE)
    for name, mask in first.items():
        found[int(name.partition("/")[0])] += int((mask != second[name]).sum())
    return found


def measure(options: Options) -> dict:
    """Differing weights by event, between the devices and between two runs on the GPU."""
    masks = {}
    for run in ("cpu", "gpu", "again"):
        path = options.folder / f"masks_{run}.safetensors"
        environment = os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if run == "cpu" or options.rehearse else {})
        subprocess.run([sys.executable, __file__, "--write", str(path)], env=environment, check=True, stdout=sys.stderr)
        masks[run] = load_file(path)
    weights = sum(mask.numel() for name, mask in masks["cpu"].items() if name.startswith("0/"))
    zeros = sum(int((~mask).sum()) for name, mask in masks["gpu"].items() if name.startswith(f"{len(SCHEDULE) - 1}/"))
    return {
        "weights": weights,
        "sparsities": list(SCHEDULE.values()),
        "pruned": zeros,
        "differing": differing(masks["cpu"], masks["gpu"]),
        "differing_on_gpu": differing(masks["gpu"], masks["again"]),
    }


if __name__ == "__main__":
    if sys.argv[1] == "--write":
        write_masks(Path(sys.argv[2]))
    else:
        run_part(measure, __doc__)
