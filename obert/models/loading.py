"""Weights and tokenizers from files that may be damaged: nothing that is missing is made up at random."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from obert.foundation.errors import UserError
from obert.models.architecture import Architecture, architecture_of
from obert.models.positions import limit_length

SAFE = {"use_safetensors": True, "trust_remote_code": False}
POOLER = "pooler"  # belongs to the base in the library, and is the head's: checkpoints of language models have none
TOLD = 3  # names of weights


def read_config(location: str | Path, where: str, **settings: Any) -> PretrainedConfig:
    """A model's configuration, with further settings. Raises UserError if it is missing, damaged or unknown."""
    try:
        return AutoConfig.from_pretrained(location, trust_remote_code=False, **settings)
    except (OSError, ValueError) as error:
        raise UserError(f"{where} cannot be loaded: {error}") from None


def load_weights(
    kind: type, location: str | Path | None, where: str, new_head: bool, **options: Any
) -> PreTrainedModel:
    """A model in float32 whose weights are those of its file.

    Args:
        kind: class of `transformers`, one of the Auto classes.
        where: how a message names the file.
        new_head: whether pooler and head may be missing, and are random then. Those of another task are passed over.
        options: of `from_pretrained`, such as a `state_dict` in place of a location.

    Raises:
        UserError: the file is damaged, not of this model, lacks a weight, or holds what is no number.
    """
    try:
        network, found = kind.from_pretrained(
            location, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **SAFE, **options
        )
    except SafetensorError as error:
        raise UserError(f"{where}: the weights are damaged or incomplete ({error}). Fetch or make them again") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{where} cannot be loaded (safetensors only): {error}") from None
    architecture = architecture_of(network)
    if found["mismatched_keys"]:
        name, there, expected = min(found["mismatched_keys"])
        raise UserError(
            f"{where}: {name} has shape {list(there)} in the file, and config.json and task ask for {list(expected)}. "
            "Take a model whose files belong together, and whose head, if it has one, has as many outputs"
        )
    missing = found["missing_keys"]
    if new_head:
        missing = [name for name in missing if not _is_of_head(name, architecture)]
    if missing:
        raise UserError(
            f"{where}: the file lacks {_listed(missing)}, which would be random. Take a complete file, or the "
            "config.json that belongs to it"
        )
    unknown = found["unexpected_keys"]
    if new_head:
        unknown = [name for name in unknown if _is_of_stack(name, architecture)]
    if unknown:
        raise UserError(
            f"{where}: the file has {_listed(unknown)}, which the model that config.json describes does not have and "
            "would go without. Take the config.json that belongs to the file"
        )
    for name, weight in network.named_parameters():
        if not weight.is_meta and not bool(weight.isfinite().all()):
            raise UserError(f"{where}: {name} holds what is no finite number. Take another model, or make it again")
    return network


def _is_of_head(name: str, architecture: Architecture) -> bool:
    prefix = f"{architecture.network.base_model_prefix}."
    in_base = architecture.base is architecture.network or name.startswith(prefix)
    return not in_base or name.removeprefix(prefix).startswith(f"{POOLER}.")


def _is_of_stack(name: str, architecture: Architecture) -> bool:
    """Whether a name, with the base's prefix or without, is that of a weight in a list of layers."""
    prefix = f"{architecture.network.base_model_prefix}."
    return name.removeprefix(prefix).startswith(f"{architecture.stack_name.removeprefix(prefix)}.")


def _listed(names: Iterable[str]) -> str:
    found = sorted(names)
    return ", ".join(found[:TOLD]) + (f" and {len(found) - TOLD} more" if len(found) > TOLD else "")


def load_tokenizer(location: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model; its `model_max_length` is no more than the model has positions for.

    Raises:
        UserError: its files are damaged or missing.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(location, trust_remote_code=False)
    except Exception as error:  # tokenizers raises Exception itself, and the library fails at what it has not foreseen
        raise UserError(
            f"the tokenizer of {location} cannot be loaded: {error}. It is expected beside the model, as "
            "tokenizer.json and tokenizer_config.json"
        ) from None
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # the library makes an empty one where there are no files
        raise UserError(f"{location} has no tokenizer: tokenizer.json is expected beside the model")
    limit_length(tokenizer, AutoConfig.from_pretrained(location, trust_remote_code=False))
    return tokenizer


def check_vocabulary(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise UserError if the tokenizer gives tokens that the model has no embedding for."""
    table: nn.Embedding = network.get_input_embeddings()
    token, highest = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if highest >= table.num_embeddings:
        raise UserError(
            f"the tokenizer has a token {highest} ({token!r}), and the model has embeddings for tokens 0 to "
            f"{table.num_embeddings - 1}: they do not belong together. Take the tokenizer that the model was trained "
            "with"
        )
