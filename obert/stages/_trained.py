"""What the stages that train or prune a model share: data, training with resume, evaluation, and the record."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from obert.experiment.schema import Model
from obert.foundation import processes
from obert.foundation.files import write_text
from obert.masks.counts import assert_sparsity, count_zeros
from obert.masks.holding import FixedPattern
from obert.models.encoders import load_pretrained, load_trained, prunable_weights, save
from obert.records.record import CURVES, MODEL, PREDICTIONS, Record
from obert.records.recording import Recording
from obert.stages import TEACHER
from obert.tasks import Task
from obert.training.checkpoints import CheckpointMarker, TimedCheckpoints, latest_checkpoint
from obert.training.features import Features
from obert.training.gradual import GradualPruning, HoldPattern
from obert.training.prediction import predict_logits
from obert.training.pruner import Pruner
from obert.training.trainer import CompressionTrainer

if TYPE_CHECKING:
    from obert.experiment.plan import PlannedRun

EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Prepared:
    """A task's encoded data and the model that is trained or pruned on it."""

    task: Task
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    train: Features
    validation: Features


@contextmanager
def seeded(seed: int):
    """torch's generator seeded inside the block, restored after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def load_start(planned: PlannedRun, examples: DatasetDict) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model that training starts from, with a new head for the examples: its source's, or the experiment's own."""
    source, task = planned.sources.get(MODEL), planned.task
    model = Model(source=str(source.folder / MODEL)) if source else planned.experiment.model
    with seeded(planned.seeds["initialization"]):
        return load_pretrained(model, task.head, task.classes(examples["train"]))


def teacher_of(planned: PlannedRun) -> PreTrainedModel | None:
    """The model to distil from, where the recipe distils."""
    if planned.recipe.distillation is None:
        return None
    return load_trained(planned.sources[TEACHER].folder / MODEL, planned.task.head)


def prepare(
    planned: PlannedRun, examples: DatasetDict, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Prepared:
    """Encode the task's examples, put the model on its device; sets torch's threads to the experiment's."""
    torch.set_num_threads(planned.experiment.threads)
    task = planned.task
    train, validation = (Features.encode(task, examples[name], tokenizer) for name in ("train", "validation"))
    return Prepared(task, network.to(processes.join()), tokenizer, train, validation)


def train(
    recording: Recording,
    prepared: Prepared,
    teacher: PreTrainedModel | None = None,
    gradual: GradualPruning | None = None,
    pattern: FixedPattern | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> CompressionTrainer:
    """Train as the recipe says, from the last usable checkpoint of this run if there is one.

    Args:
        pattern: zeros to hold.
        callbacks: of the stage.
    """
    planned, recipe, identity = recording.planned, recording.planned.recipe, recording.identity
    folder = planned.checkpoints
    holding = [gradual] if gradual else [HoldPattern(pattern)] if pattern else []
    gradual_terms = {}
    if gradual is not None:
        gradual_terms = {
            "sparsity": lambda: gradual.pruner.sparsity,
            "parameter_groups": gradual.pruner.hook.parameter_groups(),
            "penalty": gradual.penalty,
        }
    trainer = CompressionTrainer(
        prepared.network,
        prepared.train,
        recipe.training,
        planned.seeds,
        folder,
        distillation=recipe.distillation,
        teacher=teacher,
        callbacks=(
            *callbacks,
            *holding,
            TimedCheckpoints(recipe.training.checkpoint_minutes),
            CheckpointMarker(identity),
        ),
        **gradual_terms,
    )
    checkpoint = latest_checkpoint(folder, identity)
    if checkpoint is not None:
        print(f"resuming from {checkpoint}", flush=True)
        if gradual is not None:
            gradual.pruner.load(checkpoint)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if gradual is not None:
        gradual.pruner.hook.finish()
    return trainer


def record_trained(
    recording: Recording,
    prepared: Prepared,
    trainer: CompressionTrainer | None = None,
    pruner: Pruner | None = None,
    pattern: FixedPattern | None = None,
) -> Record | None:
    """Evaluate the model, check its sparsity, write model, predictions, curves and the record, drop checkpoints.

    Of several processes the first does so, and the others return None.
    """
    if processes.rank() > 0:
        return None
    planned, task, network = recording.planned, prepared.task, prepared.network
    logits = predict_logits(network, prepared.validation, EVALUATION_BATCH)
    examples = prepared.validation.examples
    predictions = task.predict(logits, prepared.validation.features, examples)
    metrics = task.score(predictions, examples)
    weights = prunable_weights(network)
    sparsity = count_zeros(weights, planned.key.sparsity or 0.0)
    held = {"pattern": pattern.check(weights, str(planned.key.path))} if pattern is not None else {}
    if pruner is not None:
        assert_sparsity(sparsity, str(planned.key.path), pruner.pattern, pruner.distribution)

    shutil.rmtree(planned.folder / MODEL, ignore_errors=True)
    weights_hash = save(network, prepared.tokenizer, planned.folder / MODEL)
    write_text(planned.folder / PREDICTIONS, "".join(json.dumps(line) + "\n" for line in predictions))
    files = [MODEL, PREDICTIONS]
    if trainer is not None:
        write_text(planned.folder / CURVES, _as_csv(trainer.curves()))
        files.append(CURVES)
    events = pruner.events if pruner else []
    record = recording.finish(
        threads=torch.get_num_threads(),
        files=tuple(files),
        data={
            "source": task.source,
            "fingerprint": fingerprint(prepared.train.examples, examples),
            "splits": {"train": len(prepared.train.examples), "validation": len(examples)},
            "features": {"train": len(prepared.train.features), "validation": len(prepared.validation.features)},
        },
        model={
            "source": planned.experiment.model.source,
            "layers": network.config.num_hidden_layers,
            "parameters": network.num_parameters(),
            "prunable_parameters": sum(w.numel() for w in weights.values()),
            "weights_sha256": weights_hash,
        },
        sparsity=sparsity if pruner or pattern else None,
        metrics=metrics,
        primary_metric=task.primary_metric,
        costs=_costs(trainer, events),
        details={"events": events, **held, **task.remarks(predictions, examples)},
    )
    shutil.rmtree(planned.checkpoints, ignore_errors=True)
    return record


def fingerprint(*splits: Dataset) -> str:
    """sha256 of the content of data splits, in order."""
    digest = hashlib.sha256()
    for split in splits:
        for row in split:
            digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
        digest.update(b"\f")
    return digest.hexdigest()


def _costs(trainer: CompressionTrainer | None, events: list[dict[str, Any]]) -> dict[str, float]:
    """Counts and seconds; training seconds are those since the last resume, pruning events not included."""
    history = trainer.state.log_history if trainer else []
    pruning_seconds = sum(event["seconds"] for event in events)
    runtime = next((line["train_runtime"] for line in history if "train_runtime" in line), pruning_seconds)
    return {
        "optimizer_steps": trainer.state.global_step if trainer else 0,
        "training_seconds": max(runtime - pruning_seconds, 0.0),
        "pruning_seconds": pruning_seconds,
        "gradient_evaluations": sum(event["gradient_evaluations"] for event in events),
    }


def _as_csv(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
