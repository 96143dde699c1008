"""Documents put one after the other and cut into sequences of one length, made once and mapped from the disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from obert.foundation.files import partial_folder

if TYPE_CHECKING:  # planning must not take the seconds that these imports take
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

FOLDER = Path("results/cache/packed")
BATCH = 1000  # documents that are tokenised at a time


def packed(documents: Dataset, tokenizer: PreTrainedTokenizerBase, length: int) -> Dataset:
    """Sequences `[CLS] ... [SEP]` of `length` tokens, with a separator after each document inside.

    Columns `input_ids`, the others of `attention_mask` and `token_type_ids` that are inputs of the tokenizer's model,
    `id` and `length`. What is left over at the end is dropped.
    """
    from datasets import Dataset, load_from_disk

    folder = FOLDER / _fingerprint(documents, tokenizer, length)
    if not folder.is_dir():
        with partial_folder(folder) as partial:
            if not folder.is_dir():  # made by the process that this one has waited for
                made = Dataset.from_generator(
                    _sequences,
                    gen_kwargs={"documents": documents, "tokenizer": tokenizer, "length": length},
                    cache_dir=str(partial),
                )
                made.save_to_disk(partial / "saved")
                (partial / "saved").rename(folder)
    return load_from_disk(str(folder))


def _fingerprint(documents: Dataset, tokenizer: PreTrainedTokenizerBase, length: int) -> str:
    digest = hashlib.sha256(
        json.dumps([length, sorted(tokenizer.model_input_names), sorted(tokenizer.get_vocab().items())]).encode()
    )
    for start in range(0, len(documents), BATCH):
        digest.update(json.dumps(documents[start : start + BATCH]["text"]).encode())
    return digest.hexdigest()


def _sequences(documents: Dataset, tokenizer: PreTrainedTokenizerBase, length: int) -> Iterator[dict]:
    room, held, count = length - 2, [], 0
    constant = {"attention_mask": [1] * length, "token_type_ids": [0] * length}
    constant = {name: values for name, values in constant.items() if name in tokenizer.model_input_names}
    for start in range(0, len(documents), BATCH):
        texts = documents[start : start + BATCH]["text"]
        encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
        for tokens in encoded["input_ids"]:
            held += [*tokens, tokenizer.sep_token_id]
        whole = len(held) - len(held) % room
        for begin in range(0, whole, room):
            yield {
                "input_ids": [tokenizer.cls_token_id, *held[begin : begin + room], tokenizer.sep_token_id],
                **constant,
                "id": f"sequence-{count}",
                "length": length,
            }
            count += 1
        held = held[whole:]
