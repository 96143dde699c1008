"""Models that the harness trained, for use elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from obert.foundation.errors import UserError
from obert.models.encoders import load_tokenizer, load_trained
from obert.records.record import MODEL

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load(folder: Path | str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A trained model, in evaluation mode on the CPU, and its tokenizer. One in 8 bits computes in 8 bits.

    Args:
        folder: the model's, or that of the run that made it.

    Raises:
        UserError: there is no such model, or a file of it is missing.
    """
    chosen = Path(folder) / MODEL if (Path(folder) / MODEL).is_dir() else Path(folder)
    if not (chosen / "config.json").is_file():
        raise UserError(f"{folder} holds no model: name a run's folder, or its folder '{MODEL}'")
    return load_trained(chosen), load_tokenizer(chosen)
