"""Time a training step of the harness against that of the plain Hugging Face Trainer, in one run.

    python tests/benchmarks/training_step.py --device cpu --json

BERT on random tokens, one batch a step. Twice: with masks held at 80 % sparsity, against a plain step; and with masks
held and distillation, against a plain step and a forward pass of the teacher. Both train in turns, a few steps each, so
that whatever else the machine does slows both. The bar is a ratio of 1.05.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _timing import environment, show
from datasets import Dataset
from torch import nn
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from obert.experiment.recipe import Distillation, LearningRate, Training
from obert.experiment.recipes import load_task
from obert.masks.holding import FixedPattern
from obert.masks.selection import dense_masks, global_masks
from obert.models.encoders import load_tokenizer, prunable_weights
from obert.training.features import Features
from obert.training.gradual import HoldPattern
from obert.training.trainer import CompressionTrainer

TOKENIZER = Path(__file__).parents[1] / "data" / "tiny_bert"
ARCHITECTURES = {"squad": BertForQuestionAnswering, "sst2": BertForSequenceClassification}
SPARSITY, RATE, BAR = 0.8, 1e-5, 1.05
PAIRS = ("masks held", "masks held, distillation")


@dataclass(frozen=True)
class Case:
    """What is timed.

    Attributes:
        block: steps of one trainer before it is the other's turn; the device is waited for after each.
        blocks: of each trainer that are timed, after one that is not.
    """

    task: str
    batch: int
    length: int
    block: int
    blocks: int
    device: torch.device
    precision: str = "float32"

    @property
    def steps(self) -> int:
        """Of one trainer."""
        return self.block * (self.blocks + 1)


class Turns:
    """Lets two trainers, each in a thread of its own, train in turns."""

    def __init__(self):
        self._change = threading.Condition()
        self._turn, self._left = 0, {0, 1}

    def wait(self, own: int) -> None:
        """Until it is the turn of one's own."""
        with self._change:
            self._change.wait_for(lambda: self._turn == own)

    def hand_over(self, own: int, finished: bool = False) -> None:
        """To the other, if it still trains."""
        with self._change:
            if finished:
                self._left.discard(own)
            if 1 - own in self._left:
                self._turn = 1 - own
            self._change.notify_all()


class BlockTimer(TrainerCallback):
    """Seconds a step by block of steps."""

    def __init__(self, case: Case, turns: Turns, own: int):
        self.case, self.turns, self.own = case, turns, own
        self.seconds: list[float] = []

    def _now(self) -> float:
        if self.case.device.type == "cuda":
            torch.cuda.synchronize(self.case.device)
        return time.perf_counter()

    def on_train_begin(self, args, state, control, **kwargs):
        """Called before the first step."""
        self._started = self._now()

    def on_step_end(self, args, state, control, **kwargs):
        """Called after every optimiser step, before anything is logged; the last block's logging is not counted."""
        if state.global_step % self.case.block:
            return
        self.seconds.append((self._now() - self._started) / self.case.block)
        if state.global_step < state.max_steps:
            self.turns.hand_over(self.own)
            self.turns.wait(self.own)
            self._started = self._now()


class PlainWithTeacher(Trainer):
    """The plain Trainer, and a forward pass of a teacher that nothing comes of."""

    def __init__(self, *given: Any, teacher: nn.Module, **options: Any):
        super().__init__(*given, **options)
        self.teacher = teacher.to(self.args.device)

    def compute_loss(self, model, inputs, **options):
        """The model's own loss."""
        enabled = self.args.bf16
        with torch.no_grad(), torch.autocast(self.args.device.type, dtype=torch.bfloat16, enabled=enabled):
            self.teacher(**inputs)
        return super().compute_loss(model, inputs, **options)


def features(case: Case, vocabulary: int) -> Features:
    """Random tokens, all sequences as long."""
    count = case.batch * case.steps
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, vocabulary, (count, case.length), generator=generator).tolist()
    columns = {"input_ids": tokens, "attention_mask": [[1] * case.length] * count, "length": [case.length] * count}
    if case.task == "squad":
        columns |= {"start_positions": [3] * count, "end_positions": [5] * count}
    else:
        columns |= {"labels": [i % 2 for i in range(count)]}
    data, tokenizer = Dataset.from_dict(columns), load_tokenizer(TOKENIZER)
    task = load_task(case.task, {"source": str(TOKENIZER)}, "training_step")
    return Features(task, data, data, tokenizer, DataCollatorWithPadding(tokenizer))


def measure(case: Case, config: BertConfig) -> dict[str, dict[str, Any]]:
    """Seconds a step of both trainers, their ratio, and the quartiles of the ratio from turn to turn; by pair."""
    torch.manual_seed(0)
    network = ARCHITECTURES[case.task](config)
    weights = prunable_weights(network)
    masks = global_masks({name: weight.abs() for name, weight in weights.items()}, dense_masks(weights), SPARSITY)
    for name, weight in weights.items():
        weight.mul_(masks[name])
    data = features(case, config.vocab_size)
    found = {}
    for pair in PAIRS:
        taught = pair != PAIRS[0]
        with tempfile.TemporaryDirectory() as folder:
            makers = [
                lambda timer, taught=taught, folder=folder: _plain(case, network, data, Path(folder), timer, taught),
                lambda timer, taught=taught, folder=folder: _ours(case, network, data, Path(folder), timer, taught),
            ]
            plain, ours = _in_turns(case, makers)
        ratios = statistics.quantiles([own / other for own, other in zip(ours, plain, strict=True)])
        middle = [statistics.median(seconds) for seconds in (ours, plain)]
        found[pair] = {
            "ratio": middle[0] / middle[1],
            "quartiles_of_ratio": [ratios[0], ratios[2]],
            "seconds_per_step": middle[0],
            "plain_seconds_per_step": middle[1],
        }
    return found


def _in_turns(case: Case, makers: list[Callable[[BlockTimer], Trainer]]) -> list[list[float]]:
    """Seconds a step by block of each trainer, the first block left out."""
    turns = Turns()
    timers = [BlockTimer(case, turns, own) for own in range(2)]
    trainers = [make(timer) for make, timer in zip(makers, timers, strict=True)]
    errors: list[BaseException] = []

    def train(own: int) -> None:
        turns.wait(own)
        try:
            trainers[own].train()
        except BaseException as error:
            errors.append(error)
        finally:
            turns.hand_over(own, finished=True)

    threads = [threading.Thread(target=train, args=(own,)) for own in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [timer.seconds[1:] for timer in timers]


def _ours(case: Case, network: nn.Module, data: Features, folder: Path, timer: BlockTimer, taught: bool) -> Trainer:
    model = copy.deepcopy(network)
    return CompressionTrainer(
        model,
        data,
        Training(epochs=1, batch_size=case.batch, learning_rate=LearningRate(initial=RATE), precision=case.precision),
        {"data order": 0, "dropout": 0},
        folder / "ours",
        distillation=Distillation(hardness=0.5) if taught else None,
        teacher=copy.deepcopy(network).eval() if taught else None,
        callbacks=(HoldPattern(FixedPattern(prunable_weights(model))), timer),
    )


def _plain(case: Case, network: nn.Module, data: Features, folder: Path, timer: BlockTimer, taught: bool) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder / "plain"),
        max_steps=case.steps,
        per_device_train_batch_size=case.batch,
        learning_rate=RATE,
        bf16=case.precision == "bfloat16",
        save_strategy="no",
        report_to="none",
        use_cpu=case.device.type == "cpu",
    )
    given = {
        "model": copy.deepcopy(network),
        "args": arguments,
        "data_collator": data.collator,
        "train_dataset": data.model_inputs,
        "callbacks": [timer],
    }
    return PlainWithTeacher(**given, teacher=copy.deepcopy(network).eval()) if taught else Trainer(**given)


def main(argv: list[str] | None = None, config: BertConfig | None = None) -> None:
    """Print figures, or one line of JSON. `config` is BERT-base's by default."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--task", choices=list(ARCHITECTURES), default="squad", help="whose head and loss")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, help="tokens; 384 on a GPU, 64 on a CPU")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--block", type=int, help="steps of a turn; 10 on a GPU, 1 on a CPU")
    parser.add_argument("--turns", type=int, default=12, help="of each trainer that are timed")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, help="of the CPU; torch's own number by default")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    on_cpu = device.type == "cpu"
    case = Case(
        arguments.task,
        arguments.batch,
        arguments.length or (64 if on_cpu else 384),
        arguments.block or (1 if on_cpu else 10),
        arguments.turns,
        device,
        arguments.precision,
    )
    before = os.getloadavg()[0]
    with contextlib.redirect_stdout(sys.stderr):
        pairs = measure(case, config or BertConfig(num_hidden_layers=arguments.layers))
    shape = {"task": case.task, "batch": case.batch, "length": case.length, "precision": case.precision}
    found = shape | {"bar": BAR, "load_before": before, **environment(device)}
    if arguments.json:
        print(json.dumps(found | {"pairs": pairs}))
    else:
        print("\n".join([show(found), *(f"{pair}\n{show(figures)}" for pair, figures in pairs.items())]))


if __name__ == "__main__":
    main()
