"""Export a trained model to ONNX and prove that the file is that model."""

import torch

from obert.deployment.export import FILE_NAME, OPSET, export_onnx, exported_sparsity, file_sizes_mb
from obert.deployment.parity import PARITY_FEATURES, PARITY_TOLERANCE, QUANTIZED_PARITY_TOLERANCE, parity
from obert.engines import ModelFiles
from obert.experiment.folders import run_folder
from obert.experiment.keys import RunKey
from obert.experiment.plan import source_key
from obert.experiment.recipes import load_task
from obert.experiment.schema import Experiment
from obert.foundation import registry
from obert.foundation.code_identity import code_hash
from obert.foundation.errors import UserError
from obert.foundation.files import file_hash
from obert.masks.counts import Sparsity
from obert.models.encoders import load_float, load_tokenizer, load_trained
from obert.quantization.fake import is_quantized
from obert.quantization.integer_graph import to_integer
from obert.records.record import Record, Score
from obert.records.run import MODEL, Run

REFERENCE_ENGINE = "onnxruntime"
"""The engine that the exported file is checked with."""


def model_files(experiment: Experiment, key: RunKey) -> ModelFiles:
    """Where the model of a run is, exported and trained. `key` may be of any stage of that model."""
    exported = key.at("export")
    head = registry.load("tasks", key.task).head
    trained = run_folder(experiment, source_key(experiment, exported)) / MODEL
    return ModelFiles(run_folder(experiment, exported) / FILE_NAME, trained, head)


def run(experiment: Experiment, key: RunKey) -> Record:
    """Export the model of a teacher or pruning run.

    Writes `model.onnx` and the record. Metrics: size in MB (10^6 bytes) with and without gzip, and the maximum absolute
    difference of logits between PyTorch and ONNX Runtime on validation features.

    Raises:
        UserError: the trained model is missing, ONNX Runtime is not installed, or the exported file differs from the
            trained model in zeros or in logits.
    """
    engine_class = registry.load("engines", REFERENCE_ENGINE)
    if reason := engine_class.unavailable_reason():
        raise UserError(f"export checks its file with ONNX Runtime: {reason}")
    run = Run(experiment, key, code_hash("export", tasks=key.task, engines=REFERENCE_ENGINE))
    source = run.source()
    files = model_files(experiment, key)
    torch.set_num_threads(experiment.threads)
    network = load_trained(files.trained, files.head, attn_implementation="eager")
    export_onnx(load_float(files.trained, files.head, attn_implementation="eager"), files.head, files.onnx)
    quantized = is_quantized(network)
    if quantized:
        to_integer(files.onnx, network)

    target = source.sparsity.target if source.sparsity else 0.0
    measured = exported_sparsity(files.onnx, network, target)
    if source.sparsity and not _fits(measured, source.sparsity, quantized):
        raise UserError(
            f"{files.onnx} has {measured.measured:.6f} sparsity, the record of {source.key.path} says "
            f"{source.sparsity.measured:.6f}: its model was changed after the run. Run that stage again, then this one."
        )

    task = load_task(key.task, experiment.options_of(key.task), f"experiment {experiment.name}, tasks.{key.task}")
    examples = task.load()["validation"]
    chosen = examples.select(range(min(PARITY_FEATURES, len(examples))))
    features = task.encode(chosen, load_tokenizer(files.trained))[:PARITY_FEATURES]
    found = parity(network, engine_class(files, experiment.threads), features, quantized)
    raw_mb, gzip_mb = file_sizes_mb(files.onnx)
    return run.finish(
        threads=experiment.threads,
        files=(FILE_NAME,),
        sparsity=measured,
        metrics={
            "model_size_gzip_mb": Score(value=gzip_mb, count=1),
            "model_size_mb": Score(value=raw_mb, count=1),
            "parity_max_abs_difference": Score(value=found.largest, count=found.count),
            "parity_mean_abs_difference": Score(value=found.mean, count=found.count),
        },
        details={
            "onnx_sha256": file_hash(files.onnx),
            "opset": OPSET,
            "parity_tolerance": QUANTIZED_PARITY_TOLERANCE if quantized else PARITY_TOLERANCE,
            "quantized": quantized,
        },
    )


def _fits(measured: Sparsity, recorded: Sparsity, quantized: bool) -> bool:
    """Whether a file has the zeros of the record; in integers small weights are zero too."""
    if not quantized:
        return measured.layers == recorded.layers
    return all(measured.layers[name].zeros >= layer.zeros for name, layer in recorded.layers.items())
