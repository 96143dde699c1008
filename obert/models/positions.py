"""How many tokens a model takes."""

from __future__ import annotations

import torch
from torch import nn
from transformers import AutoModel, PretrainedConfig, PreTrainedTokenizerBase

from obert.foundation.errors import UserError


def positions(config: PretrainedConfig) -> int | None:
    """The longest sequence, in tokens, that a model of this configuration has positions for; None if any length.

    RoBERTa and its kin count positions from behind the padding's, so that of 514 rows 512 are used (`padding_idx` of
    the embedding tells). Where positions are not embedded, the configuration's number holds.
    """
    with torch.device("meta"):
        network = AutoModel.from_config(config, trust_remote_code=False)
    for name, module in network.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2].startswith("position_embedding"):
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - first
    return getattr(config, "max_position_embeddings", None)


def limit_length(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    """Lower the tokenizer's `model_max_length` to what the model takes: many tokenizers do not know."""
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions(config) or tokenizer.model_max_length)


def check_length(config: PretrainedConfig, length: int, what: str) -> None:
    """Raise UserError if a model has no positions for `length` tokens.

    Args:
        what: the option that asks for them.
    """
    most = positions(config)
    if most is not None and length > most:
        raise UserError(f"{what} {length}: the model has positions for {most} tokens; set it to that or less")
