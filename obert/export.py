"""Export to ONNX, and what must hold of the exported file: the same zeros, the same logits, its size."""

import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from obert import sparsity
from obert.engines import Base as Engine
from obert.errors import UserError
from obert.models import prunable_layers
from obert.quantization import QuantizedLinear, integer_weight
from obert.records import Sparsity, atomic_path

FILE_NAME = "model.onnx"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUTS = {"sequence_classification": ("logits",), "question_answering": ("start_logits", "end_logits")}

# The oldest opset with all that an encoder needs; sparse runtimes that are no longer developed read it as well.
OPSET = 14

# Fused kernels add in another order. In float32 that moves logits of a 12-layer encoder, which are of order 1 to 10,
# by about 1e-5; an operator that was exported wrongly moves them by 0.01 and more.
PARITY_TOLERANCE = 1e-3
# Where a value lies between two integers, float32 sums in another order round it to the other one, a step of 1/255 of a
# tensor's range, which later layers pass on: single logits of 3 layers move by 0.5, the mean of all by 0.01.
QUANTIZED_PARITY_TOLERANCE = 0.05  # of the mean
PARITY_FEATURES = 64
PARITY_BATCH = 8

_CHUNK = 1 << 20


def export_onnx(network: PreTrainedModel, head: str, path: Path) -> None:
    """Write a model to one ONNX file with dynamic batch and sequence axes, weights inside.

    Constants are folded, so that each linear layer is a MatMul or Gemm with its weight as an initializer.

    Args:
        network: in evaluation mode, with `attn_implementation="eager"` (the exporter decomposes fused attention).
        head: a key of OUTPUTS, which names the file's outputs.
    """
    # Padding in the example keeps the exporter from treating the mask as a constant.
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    ids = mask * (network.config.vocab_size - 1)
    axes = {name: {0: "batch", 1: "tokens"} for name in (*INPUTS, *OUTPUTS[head])}
    if head == "sequence_classification":
        axes["logits"] = {0: "batch"}
    with atomic_path(path) as temporary, warnings.catch_warnings(), torch.inference_mode():
        # This exporter is deprecated; its successor folds and names weights differently. What tracing could get
        # wrong (values of the example kept as constants, negative indices) shows in `parity`, on other shapes.
        for category in (DeprecationWarning, torch.jit.TracerWarning):
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("ignore", "Exporting aten::index operator", UserWarning)
        torch.onnx.export(
            network,
            (ids, mask, torch.zeros_like(mask)),
            str(temporary),
            input_names=list(INPUTS),
            output_names=list(OUTPUTS[head]),
            dynamic_axes=axes,
            opset_version=OPSET,
            do_constant_folding=True,
            dynamo=False,
        )


def linear_weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights of an exported file's linear layers, by the parameter name they had in PyTorch.

    Raises:
        UserError: the file is no readable ONNX model.
    """
    try:
        graph = onnx.load(path).graph
    except Exception as error:  # protobuf's own DecodeError, which has no stable import path
        raise UserError(f"{path} is not a readable ONNX model ({error}): delete it and export again") from None
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        # Equal weights, such as two that are pruned entirely, are in the file once.
        if node.op_type == "Identity" and node.input[0] in initializers:
            initializers[node.output[0]] = initializers[node.input[0]]
    weights = {}
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm", "MatMulInteger") and node.input[1] in initializers:
            # The exporter names a node by its scope: /bert/encoder/layer.0/output/dense/MatMul. So does our rewriting.
            layer = node.name.removeprefix("/").rsplit("/", 1)[0].replace("/", ".")
            array = onnx.numpy_helper.to_array(initializers[node.input[1]])
            weights[f"{layer}.weight"] = torch.tensor(array)
    return weights


def exported_sparsity(path: Path, network: PreTrainedModel, target: float) -> Sparsity:
    """Zeros of the prunable weights, counted in an exported file and compared with the model it was made from.

    Those of a quantised model are counted in its integers, where small weights have become zero too.

    Raises:
        UserError: a prunable layer is missing from the file, or has another size or number of zeros than the model's.
    """
    stored = {
        name: integer_weight(layer) if isinstance(layer, QuantizedLinear) else layer.weight.detach()
        for name, layer in prunable_layers(network).items()
    }
    expected = sparsity.measure(stored, target)
    exported = linear_weights(path)
    found = sparsity.measure({name: exported[name] for name in expected.layers if name in exported}, target)
    for name, layer in expected.layers.items():
        if found.layers.get(name) != layer:
            other = found.layers.get(name)
            seen = "no such layer" if other is None else f"{other.zeros} zeros of {other.size}"
            raise UserError(
                f"{path}, weight '{name}': {seen}, but the model has {layer.zeros} zeros of {layer.size}. "
                "The file is not an export of this model; delete it and export again."
            )
    return found


def padded_batches(features: Mapping[str, Sequence[Sequence[int]]], pad_token_id: int) -> Iterator[dict[str, Any]]:
    """Features in int64 arrays [batch, tokens], PARITY_BATCH at a time, padded to the longest of each batch."""
    padding = {"input_ids": pad_token_id}
    for start in range(0, len(features["input_ids"]), PARITY_BATCH):
        yield {
            name: pad_sequence(
                [torch.tensor(row) for row in features[name][start : start + PARITY_BATCH]],
                batch_first=True,
                padding_value=padding.get(name, 0),
            ).numpy()
            for name in INPUTS
        }


class Parity(NamedTuple):
    """Absolute differences of logits over `count` features."""

    largest: float
    mean: float
    count: int


def parity(
    network: PreTrainedModel,
    engine: Engine,
    features: Mapping[str, Sequence[Sequence[int]]],
    quantized: bool = False,
) -> Parity:
    """Absolute differences of logits between PyTorch and an engine.

    PARITY_FEATURES real features are enough: an export that is wrong is wrong for most inputs.

    Args:
        features: columns INPUTS with rows of varying length, not padded. Positions of padding are not compared.
        quantized: judge by the mean difference and QUANTIZED_PARITY_TOLERANCE, not by the largest and PARITY_TOLERANCE.

    Raises:
        UserError: the difference is over the tolerance or not a number, or there is no feature.
    """
    differences, count = [], 0
    for inputs in padded_batches(features, network.config.pad_token_id or 0):
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
            references = [output.numpy() for output in network(**tensors, return_dict=False)]
        real = inputs["attention_mask"] == 1
        for reference, output in zip(references, engine.run(inputs), strict=True):
            difference = np.abs(reference - output)
            # Question answering scores each token, classification the whole.
            differences.append(difference[real] if len(references) > 1 else difference.ravel())
        count += len(real)
    if not count:
        raise UserError("no validation feature to compare the exported model on")
    everything = np.concatenate(differences)
    found = Parity(float(everything.max()), float(everything.mean()), count)
    kind, value, tolerance = "up to", found.largest, PARITY_TOLERANCE
    if quantized:
        kind, value, tolerance = "a mean of", found.mean, QUANTIZED_PARITY_TOLERANCE
    if not value <= tolerance:
        raise UserError(
            f"logits of {engine.label} differ from PyTorch's by {kind} {value:.3g} over {count} features; allowed is "
            f"{tolerance:g}. The exported model is not the trained one: export it again, and report the architecture "
            "if that does not help."
        )
    return found


def file_sizes_mb(path: Path) -> tuple[float, float]:
    """Size of a file in MB (10^6 bytes): as it is, and compressed by gzip at level 6, as the oBERT paper reports it."""
    compressor = zlib.compressobj(level=6, wbits=31)  # 31: with gzip's header and checksum
    compressed = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            compressed += len(compressor.compress(chunk))
    compressed += len(compressor.flush())
    return path.stat().st_size / 1e6, compressed / 1e6
