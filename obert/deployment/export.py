"""Export to ONNX, and what must hold of the exported file: the same zeros, the same logits, its size."""

import logging
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from transformers import PreTrainedModel

from obert.deployment.onnx_graph import OnnxGraph
from obert.foundation.errors import UserError
from obert.foundation.files import atomic_path
from obert.heads import Head
from obert.masks.counts import Sparsity, count_zeros
from obert.models.encoders import prunable_layers
from obert.quantization.fake import QuantizedLinear, integer_weight

FILE_NAME = "model.onnx"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# The oldest that the exporter writes; sparse runtimes that are no longer developed read it, and no later file format.
OPSET, IR_VERSION = 18, 8
_CHUNK = 1 << 20


def export_onnx(network: PreTrainedModel, head: Head, path: Path) -> None:
    """Write a model to one ONNX file with dynamic batch and sequence axes, weights inside.

    Each linear layer is a MatMul or Gemm with an initializer that has the name of its parameter.

    Args:
        network: in evaluation mode, with `attn_implementation="eager"` (the exporter decomposes fused attention).
        head: names the file's outputs.
    """
    # Padding in the example keeps the exporter from treating the mask as a constant.
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    ids = mask * (network.config.vocab_size - 1)
    with atomic_path(path) as temporary:
        with _quiet(), torch.no_grad():
            from onnxscript.optimizer import fold_constants, remove_unused_nodes

            from obert.deployment.operators import TRANSLATIONS

            program = torch.onnx.export(
                network,
                kwargs=dict(zip(INPUTS, (ids, mask, torch.zeros_like(mask)), strict=True)),
                input_names=list(INPUTS),
                output_names=list(head.outputs),
                dynamic_shapes={name: {0: "batch", 1: "tokens"} for name in INPUTS},
                opset_version=OPSET,
                custom_translation_table=TRANSLATIONS,
                # That would rename the weights that are transposed, join equal ones, and drop LayerNorm's 1e-12.
                optimize=False,
                dynamo=True,
                verbose=False,
            )
            model = program.model_proto
            _transpose_weights(model.graph)
            fold_constants(model)
            remove_unused_nodes(model)
        _clean(model)
        onnx.save(model, str(temporary))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of libraries that are not there, of its own future, and of names of axes."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("ignore", "# The axis name", UserWarning)
        try:
            yield
        finally:
            logging.disable(level)


def _transpose_weights(graph: onnx.GraphProto) -> None:
    """Put the transposed weight into the file in place of a weight and its Transpose, under the same name."""
    read = OnnxGraph(graph)
    moved = {}
    for node in list(graph.node):
        name = node.input[0] if node.op_type == "Transpose" else None
        if name in read.constants and len(read.readers[name]) == 1:
            array = np.ascontiguousarray(read.values(name).T)
            read.constants[name].CopyFrom(numpy_helper.from_array(array, name))
            moved[node.output[0]] = name
            graph.node.remove(node)
    for node in graph.node:
        node.input[:] = [moved.get(name, name) for name in node.input]


def _clean(model: onnx.ModelProto) -> None:
    """Name products by their layers, and leave out what tells of this machine: the exporter stores stack traces."""
    model.ir_version = IR_VERSION
    graph = OnnxGraph(model.graph)
    for name, product in graph.layers().items():
        graph.sum_of(product).name = f"{name}/Add"
        product.name = f"{name}/{product.op_type}"  # last, as they may be one
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""


def linear_weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights of an exported file's linear layers, by the parameter name they had in PyTorch.

    Raises:
        UserError: the file is no readable ONNX model.
    """
    try:
        graph = OnnxGraph(onnx.load(path).graph)
    except Exception as error:  # protobuf's own DecodeError, which has no stable import path
        raise UserError(f"{path} is not a readable ONNX model ({error}): delete it and export again") from None
    return {f"{name}.weight": torch.tensor(graph.values(node.input[1])) for name, node in graph.layers().items()}


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
    expected = count_zeros(stored, target)
    exported = linear_weights(path)
    found = count_zeros({name: exported[name] for name in expected.layers if name in exported}, target)
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
