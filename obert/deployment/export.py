"""Export to ONNX, and what must hold of the exported file: the same zeros, the same logits, its size."""

import warnings
import zlib
from pathlib import Path

import onnx
import torch
from transformers import PreTrainedModel

from obert.foundation.errors import UserError
from obert.foundation.files import atomic_path
from obert.masks import counts as sparsity
from obert.masks.counts import Sparsity
from obert.models.encoders import prunable_layers
from obert.quantization.fake import QuantizedLinear, integer_weight

FILE_NAME = "model.onnx"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUTS = {"sequence_classification": ("logits",), "question_answering": ("start_logits", "end_logits")}
# The oldest opset with all that an encoder needs; sparse runtimes that are no longer developed read it as well.
OPSET = 14
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
    expected = sparsity.count_zeros(stored, target)
    exported = linear_weights(path)
    found = sparsity.count_zeros({name: exported[name] for name in expected.layers if name in exported}, target)
    for name, layer in expected.layers.items():
        if found.layers.get(name) != layer:
            other = found.layers.get(name)
            seen = "no such layer" if other is None else f"{other.zeros} zeros of {other.size}"
            raise UserError(
                f"{path}, weight '{name}': {seen}, but the model has {layer.zeros} zeros of {layer.size}. "
                "The file is not an export of this model; delete it and export again."
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
