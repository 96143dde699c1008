"""What the stages that train or prune a model share: data, training with resume, evaluation, and the record.

What a record needs is made before training where that is possible. What is made after it may fail, and a rerun goes on
from the checkpoint of the last step, which stays until the caller drops it.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
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

from obert.experiment.recipe import Scope
from obert.experiment.schema import Model
from obert.foundation import processes
from obert.foundation.files import plain, write_text
from obert.masks.counts import assert_sparsity
from obert.masks.holding import FixedPattern
from obert.models.encoders import (
    deployed_weights,
    load_pretrained,
    load_trained,
    measured_sparsity,
    prunable_weights,
    save,
)
from obert.records.record import CURVES, DECIDED, MODEL, PREDICTIONS, TEACHER_LOGITS, Record
from obert.records.recording import Recording
from obert.stages import TEACHER
from obert.tasks import Task
from obert.training.checkpoints import CheckpointMarker, TimedCheckpoints, latest_checkpoint
from obert.training.features import Features
from obert.training.gradual import GradualPruning, HoldPattern
from obert.training.prediction import predict_logits, teacher_logits
from obert.training.pruner import Pruner
from obert.training.telling import TellSteps
from obert.training.trainer import COLUMNS, CompressionTrainer

if TYPE_CHECKING:
    from obert.experiment.plan import PlannedRun

EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Prepared:
    """A task's encoded data and the model that is trained or pruned on it.

    Attributes:
        calibration: what the task decides on after training, if it has to.
        data: what the record says of the data.
    """

    task: Task
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    train: Features
    validation: Features
    calibration: Features | None
    data: dict[str, Any]


@contextmanager
def seeded(seed: int):
    """torch's generator seeded inside the block, restored after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def load_start(planned: PlannedRun, examples: DatasetDict) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model that training starts from, with a new head for the examples: its source's, or the experiment's own."""
    source, task = planned.sources.get(MODEL), planned.task
    model = Model(source=str(source.folder / MODEL)) if source else planned.model
    with seeded(planned.seeds["initialization"]):
        return load_pretrained(model, task.head, task.classes(examples["train"]))


def scope_of(planned: PlannedRun) -> Scope:
    """Which weights of a run's model are or were pruned: as the recipe says that it was pruned with.

    A new task has a new head, which nothing has pruned.
    """
    run, same_head = planned, True
    while not (run.stage.prunes and run.method is not None):
        if MODEL not in run.sources:
            return Scope()
        same_head &= run.sources[MODEL].key.task == run.key.task
        run = run.sources[MODEL]
    scope = run.recipe.scope
    kept = scope if same_head else scope.model_copy(update={"head": False})
    return kept if kept.parts else Scope()


def teacher_of(planned: PlannedRun) -> PreTrainedModel | None:
    """The model to distil from, where the recipe distils."""
    if planned.recipe.distillation is None:
        return None
    return load_trained(planned.sources[TEACHER].folder / MODEL, planned.task.head)


def try_export(
    recording: Recording, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, quantized: bool
) -> None:
    """Raise UserError if a model that is to be trained cannot be exported. A run that goes on has been through it."""
    if latest_checkpoint(recording.planned.checkpoints, recording.identity) is None:
        # Not by an import statement: what training gives does not depend on it, and the code hash follows those.
        trial = importlib.import_module("obert.deployment.trial")
        trial.try_export(network, tokenizer, recording.planned.task.head, quantized)


def prepare(
    planned: PlannedRun, examples: DatasetDict, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Prepared:
    """Encode the task's examples, put the model on its device; sets torch's threads to the experiment's."""
    torch.set_num_threads(planned.experiment.threads)
    task = planned.task
    train, validation = (Features.encode(task, examples[name], tokenizer) for name in ("train", "validation"))
    held = task.calibration()
    calibration = None if held is None else Features.encode(task, held, tokenizer)
    data = {
        "source": task.source,
        "fingerprint": fingerprint(train.examples, validation.examples),
        "splits": {"train": len(train.examples), "validation": len(validation.examples)},
        "features": {"train": len(train.features), "validation": len(validation.features)},
    }
    return Prepared(task, network.to(processes.join()), tokenizer, train, validation, calibration, data)


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
            TellSteps(recording.listener.stepped),
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
        trainer.go_on_from(checkpoint)
    else:
        trainer.train()
    if gradual is not None:
        gradual.pruner.hook.finish()
    return trainer


def record_trained(
    recording: Recording,
    prepared: Prepared,
    trainer: CompressionTrainer | None = None,
    pruner: Pruner | None = None,
    pattern: FixedPattern | None = None,
    teaches: bool = False,
) -> Record | None:
    """Evaluate the model, check its sparsity, write model, predictions, curves and, last, the record.

    Of several processes the first does so, and the others return None.

    Args:
        teaches: keep the logits of a part of the validation features, from which one sees how soft the teacher is.
    """
    if processes.rank() > 0:
        return None
    planned, network = recording.planned, prepared.network
    decided = _decided(prepared)
    task = prepared.task.model_copy(update=decided)
    logits = predict_logits(network, prepared.validation, EVALUATION_BATCH)
    examples = prepared.validation.examples
    predictions = task.predict(logits, prepared.validation.features, examples)
    metrics = task.score(predictions, examples)
    recording.listener.evaluated(metrics, task.primary_metric)
    scope = scope_of(planned)
    weights = prunable_weights(network, scope)
    sparsity = measured_sparsity(network, scope, planned.key.sparsity or 0.0)
    held = {"pattern": pattern.check(weights, str(planned.key.path))} if pattern is not None else {}
    if pruner is not None:
        where, cuts = str(planned.key.path), pruner.cuts(planned.key.sparsity, planned.key.sparsity)
        assert_sparsity(sparsity, where, pruner.pattern, pruner.distribution, cuts)

    recording.replace()
    (planned.folder / TEACHER_LOGITS).unlink(missing_ok=True)
    shutil.rmtree(planned.folder / MODEL, ignore_errors=True)
    weights_hash = save(network, prepared.tokenizer, planned.folder / MODEL)
    rows = {PREDICTIONS: predictions}
    if teaches and (kept := list(teacher_logits(logits, prepared.validation))):
        rows[TEACHER_LOGITS] = kept
    for name, lines in rows.items():
        write_text(planned.folder / name, "".join(json.dumps(line, default=plain) + "\n" for line in lines))
    files = [MODEL, *rows]
    if trainer is not None:
        write_text(planned.folder / CURVES, _as_csv(trainer.curves()))
        files.append(CURVES)
    events = pruner.events if pruner else []
    return recording.finish(
        threads=torch.get_num_threads(),
        files=tuple(files),
        data=prepared.data,
        model={
            "source": planned.model.source,
            "layers": network.config.num_hidden_layers,
            "parameters": network.num_parameters(),
            "prunable_parameters": sum(w.numel() for w in weights.values()),
            "deployed_prunable_parameters": deployed_weights(network, scope),
            "weights_sha256": weights_hash,
        },
        sparsity=sparsity if pruner or pattern else None,
        metrics=metrics,
        primary_metric=task.primary_metric,
        costs=_costs(trainer, events),
        details={
            "events": events,
            **held,
            **({DECIDED: decided} if decided else {}),
            **task.remarks(predictions, examples),
        },
    )


def _decided(prepared: Prepared) -> dict[str, Any]:
    """Options of the task that the trained model decides."""
    data = prepared.calibration
    if data is None:
        return {}
    return prepared.task.decide(predict_logits(prepared.network, data, EVALUATION_BATCH), data.features, data.examples)


def fingerprint(*splits: Dataset) -> str:
    """sha256 of the content of data splits, in order, whatever the types of their columns."""
    digest = hashlib.sha256()
    for split in splits:
        for table in split.with_format("arrow").iter(1000):  # values as they are stored: no image is decoded
            for row in table.to_pylist():
                digest.update(json.dumps(row, sort_keys=True, default=plain).encode() + b"\n")
        digest.update(b"\f")
    return digest.hexdigest()


def _costs(trainer: CompressionTrainer | None, events: list[dict[str, Any]]) -> dict[str, float]:
    """Counts and seconds; those of training do not include pruning events."""
    pruning_seconds = sum(event["seconds"] for event in events)
    seconds = trainer.seconds if trainer else pruning_seconds
    forward = sum(event.get("forward_evaluations", 0) for event in events)
    return {
        "optimizer_steps": trainer.state.global_step if trainer else 0,
        "training_seconds": max(seconds - pruning_seconds, 0.0),
        "pruning_seconds": pruning_seconds,
        "gradient_evaluations": sum(event["gradient_evaluations"] for event in events),
        **({"forward_evaluations": forward} if forward else {}),
    }


def _as_csv(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
