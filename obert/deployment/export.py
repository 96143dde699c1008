"""Export to ONNX, and what must hold of the exported file: the same zeros, the same logits, its size."""

import ast
import logging
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from transformers import PreTrainedModel

from obert.deployment.onnx_graph import FLOAT_PRODUCTS, INTEGER, OnnxGraph
from obert.foundation.errors import UserError
from obert.foundation.files import atomic_path
from obert.heads import Head
from obert.masks.counts import Sparsity, count_zeros
from obert.models.architecture import architecture_of
from obert.quantization.fake import integer_weight

FILE_NAME = "model.onnx"
# The oldest that the exporter writes; sparse runtimes that are no longer developed read it, and no later file format.
OPSET, IR_VERSION = 18, 8
_CHUNK = 1 << 20


def export_onnx(network: PreTrainedModel, head: Head, path: Path, inputs: Sequence[str]) -> None:
    """Write a model to one ONNX file with dynamic batch and sequence axes, weights inside.

    Each linear layer is a MatMul or Gemm with an initializer that has the name of its parameter, and each product is
    named by the module that makes it. A module that runs several times has several products, of one weight.

    Args:
        network: in evaluation mode, with `attn_implementation="eager"` (the exporter decomposes fused attention).
        head: names the file's outputs.
        inputs: what the model is given by keyword, each [batch, tokens]: `model_input_names` of its tokenizer. The file
            declares those of them that it reads.
    """
    # Padding in the example keeps the exporter from treating the mask as a constant.
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    example = {name: torch.zeros_like(mask) for name in inputs} | {"attention_mask": mask}
    example["input_ids"] = mask * (network.config.vocab_size - 1)
    parameters = {name for name, _ in network.named_parameters(remove_duplicate=False)}
    with atomic_path(path) as temporary:
        with _quiet(), torch.no_grad():
            from onnxscript.optimizer import fold_constants, remove_unused_nodes

            from obert.deployment.operators import TRANSLATIONS

            program = torch.onnx.export(
                network,
                kwargs=example,
                output_names=list(head.outputs),
                dynamic_shapes={name: {0: "batch", 1: "tokens"} for name in example},
                opset_version=OPSET,
                custom_translation_table=TRANSLATIONS,
                # That would rename the weights that are transposed, join equal ones, and drop LayerNorm's 1e-12.
                optimize=False,
                dynamo=True,
                verbose=False,
            )
            model = program.model_proto
            _name_products(model.graph)
            _transpose_weights(model.graph)
            # Of small models the exporter would compute what depends on weights alone, and the weights would be gone.
            fold_constants(
                model, should_fold=lambda node: False if parameters & {v.name for v in node.inputs if v} else None
            )
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


def _name_products(graph: onnx.GraphProto) -> None:
    """Name products by the modules that make them, numbered where there are several."""
    seen: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type in FLOAT_PRODUCTS:
            facts = {fact.key: fact.value for fact in node.metadata_props}
            *_, module, _ = ast.literal_eval(facts["pkg.torch.onnx.name_scopes"])
            number = f"_{seen[module]}" if seen[module] else ""
            seen[module] += 1
            node.name = f"{module}/{node.op_type}{number}"


def _transpose_weights(graph: onnx.GraphProto) -> None:
    """Put the transposed weight into the file in place of a weight and its Transposes, under the same name."""
    read = OnnxGraph(graph)
    moved = {}
    for name in [tensor.name for tensor in graph.initializer]:
        readers = read.readers[name]
        if readers and all(node is not None and node.op_type == "Transpose" for node in readers):
            array = np.ascontiguousarray(read.values(name).T)
            read.constants[name].CopyFrom(numpy_helper.from_array(array, name))
            moved |= {node.output[0]: name for node in readers}
    kept = [node for node in graph.node if node.output[0] not in moved]
    del graph.node[:]
    graph.node.extend(kept)
    for node in graph.node:
        node.input[:] = [moved.get(name, name) for name in node.input]


def _clean(model: onnx.ModelProto) -> None:
    """Name sums by their layers, and leave out what tells of this machine: the exporter stores stack traces.

    Inputs that nothing reads are left out as well.
    """
    model.ir_version = IR_VERSION
    graph = OnnxGraph(model.graph)
    for products in graph.layers().values():
        for product in products:
            total = graph.sum_of(product)
            if total is not product:
                layer, _, kind = product.name.rpartition("/")
                total.name = f"{layer}/Add{kind.removeprefix(product.op_type)}"
    for declared in [tensor for tensor in model.graph.input if not graph.readers[tensor.name]]:
        model.graph.input.remove(declared)
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""


def stored_weights(path: Path) -> dict[str, torch.Tensor]:
    """The matrices of an exported file, by the parameter name they had in PyTorch; of linear layers transposed.

    Raises:
        UserError: the file is no readable ONNX model.
    """
    try:
        graph = OnnxGraph(onnx.load(path).graph)
    except Exception as error:  # protobuf's own DecodeError, which has no stable import path
        raise UserError(f"{path} is not a readable ONNX model ({error}): delete it and export again") from None
    return {
        name.removesuffix(INTEGER): torch.tensor(graph.values(name))
        for name, tensor in graph.constants.items()
        if len(tensor.dims) == 2
    }


def exported_sparsity(
    path: Path, network: PreTrainedModel, target: float, scope: Iterable[str] | None = None
) -> Sparsity:
    """Zeros of the weights in scope, counted in an exported file and compared with the model it was made from.

    Those of a quantised model are counted in its integers, where small weights have become zero too. The encoder and
    the whole model are counted as well, without what the file has no use for.

    Args:
        scope: names of weights; by default of the encoder's linear layers.

    Raises:
        UserError: a weight in scope is missing from the file, or one has another size or number of zeros than the
            model's.
    """
    exported, names = stored_weights(path), names_of_parameters(network)
    model: dict[str, dict[str, torch.Tensor]] = {}
    file: dict[str, dict[str, torch.Tensor]] = {}
    for part, layers in architecture_of(network).parts().items():
        model[part], file[part] = {}, {}
        for name, layer in layers.items():
            other = next((other for other in names[name] if other in exported), None)
            model[part][name] = integer_weight(layer) if hasattr(layer, "weight_fake_quant") else layer.weight.detach()
            if other is not None:
                file[part][name] = exported[other]
    everything = {name: weight for group in model.values() for name, weight in group.items()}
    in_file = {name: weight for group in file.values() for name, weight in group.items()}
    chosen = list(model["encoder"] if scope is None else scope)
    expected, counted = (count_zeros(weights, target).layers for weights in (everything, in_file))
    for name, layer in expected.items():
        other = counted.get(name)
        if other != layer and (other is not None or name in chosen):
            seen = "no such layer" if other is None else f"{other.zeros} zeros of {other.size}"
            raise UserError(
                f"{path}, weight '{name}': {seen}, but the model has {layer.zeros} zeros of {layer.size}. "
                "The file is not an export of this model; delete it and export again."
            )
    return count_zeros({name: in_file[name] for name in chosen}, target, file)


def names_of_parameters(network: torch.nn.Module) -> dict[str, list[str]]:
    """By each name of a parameter all its names: tied weights have several, and a file has one of them."""
    parameters = dict(network.named_parameters(remove_duplicate=False))
    names: dict[int, list[str]] = defaultdict(list)
    for name, parameter in parameters.items():
        names[id(parameter)].append(name)
    return {name: names[id(parameter)] for name, parameter in parameters.items()}


def file_sizes_mb(path: Path) -> tuple[float, float]:
    """Size of a file in MB (10^6 bytes): as it is, and compressed by gzip at level 6, as the oBERT paper reports it."""
    with path.open("rb") as file:
        compressed = gzip_size(iter(lambda: file.read(_CHUNK), b""))
    return path.stat().st_size / 1e6, compressed / 1e6


def gzip_size(chunks: Iterable[bytes | memoryview]) -> int:
    """Bytes of what the chunks make together, compressed by gzip at level 6."""
    compressor = zlib.compressobj(level=6, wbits=31)  # 31: with gzip's header and checksum
    return sum(len(compressor.compress(chunk)) for chunk in chunks) + len(compressor.flush())
