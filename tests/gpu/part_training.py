"""Seconds of a training step with masks held, without distillation, against those of the plain Trainer.

BERT-base, batch 16 at 384 tokens (question answering) or 32 at 128 (classification), in float32 and in bfloat16. Both
train the same weights on the same random tokens, in turns; medians are given.
"""

from __future__ import annotations

import copy
import statistics
import time

import torch
from datasets import Dataset
from measuring import Options, peak_gb, reset_peak, run_part, synchronize
from places import ROOT
from transformers import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from obert.experiment.recipe import LearningRate, Training
from obert.experiment.recipes import load_task
from obert.masks.holding import FixedPattern
from obert.masks.selection import dense_masks, global_masks
from obert.models.encoders import load_tokenizer, prunable_weights
from obert.training.features import Features
from obert.training.gradual import HoldPattern
from obert.training.trainer import CompressionTrainer

CASES = {"384": ("squad", BertForQuestionAnswering, 16), "128": ("sst2", BertForSequenceClassification, 32)}
SPARSITY = 0.8
RATE = 1e-5
TURNS = 3
WARMUP, STEPS = 10, 40


class StepTimer(TrainerCallback):
    """Seconds a step, the first ones left out."""

    def __init__(self, warmup: int, device: torch.device):
        self.warmup = warmup
        self.device = device

    def on_step_end(self, args, state, control, **kwargs):
        """Called after every optimiser step."""
        if state.global_step in (self.warmup, state.max_steps):
            synchronize(self.device)
            now = time.perf_counter()
            if state.global_step == self.warmup:
                self.start = now
            else:
                self.seconds = (now - self.start) / (state.max_steps - self.warmup)


def features(task_name: str, length: int, count: int, vocabulary: int) -> Features:
    """Random tokens, all sequences as long."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, vocabulary, (count, length), generator=generator).tolist()
    columns = {"input_ids": tokens, "attention_mask": [[1] * length] * count, "length": [length] * count}
    if task_name == "squad":
        columns |= {"start_positions": [3] * count, "end_positions": [5] * count}
    else:
        columns |= {"labels": [i % 2 for i in range(count)]}
    data = Dataset.from_dict(columns)
    folder = ROOT / "tests" / "data" / "tiny_bert"
    task = load_task(task_name, {"source": str(folder)}, "training")
    return Features(task, data, data, DataCollatorWithPadding(load_tokenizer(folder)))


def measure(options: Options) -> dict:
    """Seconds a step of both, their ratio, and the peak memory of ours, by precision."""
    task_name, architecture, batch = CASES[options.argument]
    length = int(options.argument)
    turns, warmup, steps = TURNS, WARMUP, STEPS
    if options.rehearse:
        batch, length, turns, warmup, steps = 2, 16, 1, 1, 2
    torch.manual_seed(0)
    config = options.config()
    network = architecture(config)
    weights = prunable_weights(network)
    masks = global_masks({name: weight.abs() for name, weight in weights.items()}, dense_masks(weights), SPARSITY)
    for name, weight in weights.items():
        weight.mul_(masks[name])
    data = features(task_name, length, batch * (warmup + steps), config.vocab_size)

    def ours(precision: str, timer: StepTimer) -> Trainer:
        model = copy.deepcopy(network)
        training = Training(epochs=1, batch_size=batch, learning_rate=LearningRate(initial=RATE), precision=precision)
        holding = HoldPattern(FixedPattern(prunable_weights(model)))
        seeds = {"data order": 0, "dropout": 0}
        return CompressionTrainer(
            model, data.task, data, training, seeds, options.folder / "ours", callbacks=(holding, timer)
        )

    def plain(precision: str, timer: StepTimer) -> Trainer:
        arguments = TrainingArguments(
            output_dir=str(options.folder / "plain"),
            max_steps=warmup + steps,
            per_device_train_batch_size=batch,
            learning_rate=RATE,
            bf16=precision == "bfloat16",
            save_strategy="no",
            report_to="none",
            use_cpu=options.device.type == "cpu",
        )
        return Trainer(
            copy.deepcopy(network),
            arguments,
            data_collator=data.collator,
            train_dataset=data.model_inputs,
            callbacks=[timer],
        )

    found = {"batch": batch, "length": length, "steps": steps, "turns": turns}
    for precision in ("float32", "bfloat16"):
        seconds = {"ours": [], "plain": []}
        peaks = {}
        for _ in range(turns):
            for name, make in (("plain", plain), ("ours", ours)):
                timer = StepTimer(warmup, options.device)
                reset_peak(options.device)
                make(precision, timer).train()
                seconds[name].append(timer.seconds)
                peaks[name] = peak_gb(options.device)
        middle = {name: statistics.median(values) for name, values in seconds.items()}
        found[precision] = {
            "seconds_per_step": middle["ours"],
            "plain_seconds_per_step": middle["plain"],
            "ratio": middle["ours"] / middle["plain"],
            "all_seconds": seconds,
            "peak_memory_gb": peaks["ours"],
            "plain_peak_memory_gb": peaks["plain"],
        }
    return found


if __name__ == "__main__":
    run_part(measure, __doc__, tuple(CASES))
