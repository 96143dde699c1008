"""Encoders with a task's head: loaded from a wheel, a folder or the Hub, cut to some of their layers, saved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from obert.data.sources import resolve_model
from obert.experiment.recipe import Scope
from obert.experiment.schema import Model
from obert.foundation.errors import UserError
from obert.foundation.files import file_hash, write_text
from obert.heads import Head
from obert.masks.counts import Sparsity, count_zeros
from obert.models.architecture import Architecture, architecture_of
from obert.models.loading import check_vocabulary, load_tokenizer, load_weights, read_config
from obert.quantization.fake import is_of_quantizer, is_quantized, quantize

ENCODER = Scope()
WEIGHTS, QUANTIZED = "model.safetensors", "quantization.json"
# Under this name Transformers does not find them: it would take them for those of a float model.
QUANTIZED_WEIGHTS = "quantized.safetensors"
_AGAIN = "run the stage that made it again"


def load_pretrained(
    model: Model, head: Head, classes: Sequence[str]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A pre-trained encoder with a freshly initialised head, and its tokenizer.

    The caller seeds torch's generator, which decides the head's weights. `classes` are the labels' names.

    Raises:
        UserError: no such model, no safetensors in it, damaged ones or such as lack a weight, an architecture that is
            not understood, a tokenizer of another model, or a layer it does not have.
    """
    return _load(model, head, classes, new_head=True)


def load_given(model: Model, head: Head, classes: Sequence[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model that has been trained on a task already, with its own head, and its tokenizer.

    Raises:
        UserError: as `load_pretrained`; also where it has no such head, or names the task's classes in another order.
    """
    where = _where(model)
    own = read_config(resolve_model(model.source), where).id2label or {}
    names = [str(own[i]).lower() for i in sorted(own)]
    expected = [name.lower() for name in classes]
    if sorted(names) == sorted(expected) and names != expected:
        raise UserError(
            f"{where} has classes {', '.join(names)}, in this order, and the task {', '.join(expected)}: its answers "
            "would be taken for others. Take a model that was trained on this task"
        )
    if expected and names != expected and not all(name.startswith("label_") for name in names):
        print(
            f"{where} calls the task's classes {', '.join(names)}; they are taken by number for {', '.join(expected)}",
            flush=True,
        )
    return _load(model, head, classes, new_head=False)


def _load(
    model: Model, head: Head, classes: Sequence[str], new_head: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    location, where = resolve_model(model.source), _where(model)
    config = read_config(location, where, **head.settings(classes))
    tokenizer = load_tokenizer(location)
    network = load_weights(_model_class(head.auto_model), location, where, new_head=new_head, config=config)
    understood(network, tokenizer)
    if model.layers is not None:
        keep_layers(network, model.layers)
    return network, tokenizer


def _where(model: Model) -> str:
    return f"model.source '{model.source}'"


def _model_class(auto_model: str) -> type:
    return getattr(transformers, auto_model)


def understood(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Architecture:
    """The architecture of a model. Its tokenizer makes the model's inputs and no others from now on, saved or not.

    Raises:
        UserError: the model is not understood, or the tokenizer is of another one.
    """
    architecture = architecture_of(network)
    architecture.require_understood()
    check_vocabulary(network, tokenizer)
    inputs = architecture.input_names(tokenizer)
    if set(inputs) != set(tokenizer.model_input_names):
        tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = inputs
    return architecture


def keep_layers(network: PreTrainedModel, layers: tuple[int, ...]) -> None:
    """Drop all encoder layers but `layers`, in place ("direct" layer dropping, oBERT section 4.3).

    Raises:
        UserError: an index that the encoder does not have, or layers that no model can be built of.
    """
    architecture_of(network).keep(layers)


def load_trained(folder: Path, head: Head | None = None, **options: Any) -> PreTrainedModel:
    """A model that `save` wrote, in evaluation mode, quantised if it was.

    Args:
        head: by default the one that the model's configuration names.
        options: of `from_pretrained`.

    Raises:
        UserError: the folder holds no such model, or its file is damaged or lacks a weight.
    """
    network = load_float(folder, head, **options)
    if (folder / QUANTIZED).is_file():
        missing, _ = quantize(network).load_state_dict(_quantized_state(folder), strict=False)
        if absent := [name for name in missing if name.endswith(("scale", "zero_point", "observer_enabled"))]:
            raise UserError(f"{folder / QUANTIZED_WEIGHTS} lacks {absent[0]}: {_AGAIN}")
    return network.eval()


def load_float(folder: Path, head: Head | None = None, **options: Any) -> PreTrainedModel:
    """A model that `save` wrote, in evaluation mode, without its quantisation. As `load_trained`."""
    config = read_config(folder, str(folder))
    kind = _model_class(head.auto_model if head else config.architectures[0])
    if not (folder / QUANTIZED).is_file():
        return load_weights(kind, folder, str(folder), new_head=False, config=config, **options).eval()
    weights = {name: weight for name, weight in _quantized_state(folder).items() if not is_of_quantizer(name)}
    kind = _model_class(config.architectures[0])  # those that find the class themselves take no weights
    where = str(folder / QUANTIZED_WEIGHTS)
    return load_weights(kind, None, where, new_head=False, config=config, state_dict=weights, **options).eval()


def _quantized_state(folder: Path) -> dict[str, Tensor]:
    path = folder / QUANTIZED_WEIGHTS
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}): {_AGAIN}") from None


def save(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> str:
    """Save a model and its tokenizer, and return the sha256 of the weights."""
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if not is_quantized(network):
        return file_hash(folder / WEIGHTS)
    (folder / WEIGHTS).replace(folder / QUANTIZED_WEIGHTS)
    write_text(folder / QUANTIZED, json.dumps({"bits": 8, "attention": True, "embeddings": True}) + "\n")
    return file_hash(folder / QUANTIZED_WEIGHTS)


def prunable_layers(network: nn.Module, scope: Scope = ENCODER) -> dict[str, nn.Linear | nn.Embedding]:
    """The layers whose weights count for sparsity, by the weight's name, in model order.

    By default every linear layer of the encoder: embeddings, pooler and task head stay dense, and do not count (oBERT,
    section 4: 85 million weights of BERT-base). Biases and LayerNorm never count.
    """
    return {name: layer for part in prunable_parts(network, scope).values() for name, layer in part.items()}


def prunable_parts(network: nn.Module, scope: Scope = ENCODER) -> dict[str, dict[str, nn.Linear | nn.Embedding]]:
    """The layers of `prunable_layers` by the part of the scope that they belong to."""
    parts = architecture_of(network).parts()
    return {part: parts[part] for part in scope.parts}


def prunable_weights(network: nn.Module, scope: Scope = ENCODER) -> dict[str, Tensor]:
    """The weights of `prunable_layers`, detached, by name, in model order."""
    return {name: layer.weight.detach() for name, layer in prunable_layers(network, scope).items()}


def measured_sparsity(network: nn.Module, scope: Scope, target: float) -> Sparsity:
    """The zeros of a model's weights in scope, and of its parts and the whole of it."""
    parts = {
        part: {name: layer.weight.detach() for name, layer in layers.items()}
        for part, layers in architecture_of(network).parts().items()
    }
    counted = count_zeros(prunable_weights(network, scope), target, parts)
    return counted.model_copy(update={"targets": scope.targets})


def deployed_weights(network: nn.Module, scope: Scope) -> int:
    """How many weights in scope a pass through the model multiplies by or looks up: shared ones as often as they are
    used."""
    architecture = architecture_of(network)
    weights = prunable_weights(network, scope)
    return sum(weight.numel() * architecture.repeats(name) for name, weight in weights.items())
