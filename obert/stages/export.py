"""Export to ONNX."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from obert.experiment.keys import RunKey
from obert.foundation import registry
from obert.foundation.code_identity import code_hash
from obert.foundation.errors import UserError, unknown_name
from obert.models import architectures
from obert.records.record import COMPONENTS, DECIDED, MODEL
from obert.stages import TRAINING, Sources, Stage

if TYPE_CHECKING:
    from obert.engines import ModelFiles
    from obert.experiment.plan import Plan, PlannedRun
    from obert.experiment.schema import Benchmark
    from obert.masks.counts import Sparsity
    from obert.records.record import Record

REFERENCE_ENGINE = "onnxruntime"
"""The engine that exported files are checked with, and whose dense model speed-ups are over."""
ONNX = "onnx"


def model_files(exported: PlannedRun) -> ModelFiles:
    """Where the model of an export is, exported and trained."""
    from obert.engines import ModelFiles

    trained = exported.sources[MODEL]
    return ModelFiles(exported.folder / exported.stage.files[ONNX], trained.folder / MODEL, exported.task.head)


class Export(Stage):
    """Export a trained model to ONNX, with parity checked."""

    after = (TRAINING,)
    files = {ONNX: "model.onnx"}

    def plan(self, plan: Plan) -> Iterator[tuple[RunKey, Sources]]:
        """What `benchmark` selects, first seed only, after the teachers of the tasks that it is on."""
        chosen = plan.experiment.benchmark
        if chosen is None:
            return
        known = set().union(*(plan.recipes_on(task) for task in plan.experiment.tasks))
        for name in chosen.recipes:
            if name not in known:
                raise unknown_name("recipe", name, known, f"{plan.where}, benchmark.recipes")
        for name in chosen.methods:
            registry.require("pruning", name, f"{plan.where}, benchmark.methods")
        models = [run for run in plan.on_tasks if _is_chosen(run.key, chosen, plan.experiment.seeds[0])]
        tasks = {run.key.task for run in models} if chosen.recipes else set(plan.experiment.tasks)
        for run in plan.of_stage("teacher"):
            if run.key.task in tasks:
                yield run.key.at(self.name), {MODEL: run}
        for run in models:
            yield run.key.at(self.name), {MODEL: run}

    def code(self, planned: PlannedRun) -> str:
        return code_hash(stages=self.name, tasks=planned.task_kind, engines=REFERENCE_ENGINE, **architectures.code())

    def run(self, planned: PlannedRun) -> Record:
        """Export the model of a run.

        Writes `model.onnx` and the record. Metrics: size in MB (10^6 bytes) with and without gzip, and the maximum and
        mean absolute difference of logits between PyTorch and ONNX Runtime on validation features.
        `details["components"]` has the multiply-adds and the gzipped bytes of each part of the model.

        Raises:
            UserError: the trained model is missing, ONNX Runtime is not installed, or the exported file differs from
                the trained model in zeros or in logits.
        """
        import torch

        from obert.deployment.components import component_costs
        from obert.deployment.export import OPSET, export_onnx, exported_sparsity, file_sizes_mb
        from obert.deployment.integer_graph import to_integer
        from obert.deployment.parity import (
            PARITY_BATCH,
            PARITY_FEATURES,
            PARITY_TOLERANCE,
            QUANTIZED_PARITY_TOLERANCE,
            parity,
        )
        from obert.foundation.files import file_hash
        from obert.models.encoders import load_float, load_tokenizer, load_trained
        from obert.quantization.fake import is_quantized
        from obert.records.record import Score
        from obert.records.recording import Recording
        from obert.training.features import Features

        engine_class = registry.load("engines", REFERENCE_ENGINE)
        if reason := engine_class.unavailable_reason():
            raise UserError(f"export checks its file with ONNX Runtime: {reason}")
        recording = Recording(planned)
        source = recording.sources[MODEL]
        files = model_files(planned)
        threads = planned.experiment.threads
        torch.set_num_threads(threads)
        examples = planned.task.load()["validation"]
        chosen = examples.select(range(min(PARITY_FEATURES, len(examples))))
        tokenizer = load_tokenizer(files.trained)
        chosen = Features.encode(planned.task, chosen, tokenizer)
        batches = [files.head.inputs(batch) for batch in chosen.in_order(PARITY_BATCH, PARITY_FEATURES)]
        network = load_trained(files.trained, files.head, attn_implementation="eager")
        floating = load_float(files.trained, files.head, attn_implementation="eager")
        recording.replace()
        export_onnx(floating, files.head, files.onnx, tokenizer.model_input_names)
        quantized = is_quantized(network)
        if quantized:
            to_integer(files.onnx, network)
            if reason := engine_class.inexact_reason(files):
                raise UserError(f"export checks its file with ONNX Runtime: {reason}")

        target = source.sparsity.target if source.sparsity else 0.0
        scope = source.sparsity.layers if source.sparsity else None
        measured = exported_sparsity(files.onnx, network, target, scope)
        if source.sparsity:
            measured = measured.model_copy(update={"targets": source.sparsity.targets})
        if source.sparsity and not _fits(measured, source.sparsity, quantized):
            raise UserError(
                f"{files.onnx} has {measured.measured:.6f} sparsity, the record of {source.key.path} says "
                f"{source.sparsity.measured:.6f}: its model was changed after the run. Run that stage again, then this "
                "one."
            )

        found = parity(network, engine_class(files, threads), files.head, batches, quantized)
        raw_mb, gzip_mb = file_sizes_mb(files.onnx)
        details: dict[str, Any] = {
            "onnx_sha256": file_hash(files.onnx),
            "opset": OPSET,
            "parity_tolerance": QUANTIZED_PARITY_TOLERANCE if quantized else PARITY_TOLERANCE,
            "quantized": quantized,
            COMPONENTS: component_costs(floating, network, tokenizer.model_input_names, tokenizer.model_max_length),
            **{name: source.details[name] for name in (DECIDED,) if name in source.details},
        }
        return recording.finish(
            threads=threads,
            files=tuple(self.files.values()),
            sparsity=measured,
            metrics={
                "model_size_gzip_mb": Score(value=gzip_mb, count=1),
                "model_size_mb": Score(value=raw_mb, count=1),
                "parity_max_abs_difference": Score(value=found.largest, count=found.count),
                "parity_mean_abs_difference": Score(value=found.mean, count=found.count),
            },
            details=details,
        )


def _fits(measured: Sparsity, recorded: Sparsity, quantized: bool) -> bool:
    """Whether a file has the zeros of the record; in integers small weights are zero too."""
    if not quantized:
        return measured.layers == recorded.layers
    return all(measured.layers[name].zeros >= layer.zeros for name, layer in recorded.layers.items())


def _is_chosen(key: RunKey, chosen: Benchmark, seed: int) -> bool:
    """Whether the model of a run is to be exported and timed."""
    return (
        key.seed == seed
        and key.lineage[0] in chosen.recipes
        and (not chosen.methods or key.method in chosen.methods)
        and (not chosen.sparsities or key.sparsity in chosen.sparsities)
    )
