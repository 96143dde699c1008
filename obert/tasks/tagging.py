"""Tagging: which words of a sentence are names, and of what (as CoNLL 2003, Tjong Kim Sang and De Meulder)."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from obert.data.columns import Identifier, Tags, Words
from obert.data.splits import load_splits, without_shared
from obert.foundation.errors import UserError
from obert.heads.token_classification import IGNORED, TokenClassification
from obert.records.record import Score
from obert.statistics.metrics import f1
from obert.tasks import Task
from obert.tasks._own_columns import SOURCE, check_distinct
from obert.tasks._sentences import normalised

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

OUTSIDE = "O"
_TAG = re.compile(rf"{OUTSIDE}|[BIES]-.+")


class Tagging(Task):
    """Sentences as lists of words, with a tag for each word: `O`, or `B-`, `I-`, `E-`, `S-` and what the words name.

    A long sentence becomes several features, so that every word is judged. A word's first piece stands for it.
    """

    head = TokenClassification()
    primary_metric = "f1"

    source: str = Field(description=SOURCE)
    text: str = Field("tokens", description="the column of the words")
    label: str = Field("ner_tags", description="the column of the tags")

    @model_validator(mode="after")
    def _distinct(self):
        check_distinct((self.text, self.label, "id"))
        return self

    def read(self) -> dict[str, Dataset]:
        """The source's splits, without the training sentences that are in validation too."""
        columns = {"id": Identifier(), self.text: Words(), self.label: Tags(words=self.text)}
        splits = load_splits(self.source, columns, together=(self.text,))
        if wrong := [tag for tag in self.classes(splits["train"]) if not _TAG.fullmatch(tag)]:
            raise UserError(
                f"source '{self.source}', column '{self.label}': '{wrong[0]}' is no tag of an entity. Allowed: "
                f"{OUTSIDE}, and B-, I-, E- or S- before the entity's kind, as in B-PER"
            )
        return without_shared(splits, self.units)

    def units(self, examples: Dataset) -> Iterator[str]:
        """The sentence, without differences in case."""
        return (normalised(" ".join(words)) for words in examples[self.text])

    def classes(self, examples: Dataset) -> tuple[str, ...]:
        """Names of the tags, in the order of their numbers."""
        return tuple(examples.features[self.label].feature.names)

    def encode(self, examples: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """One or more features an example, none of which shares a word with another.

        Columns beside the model's inputs: `labels` (of each token, IGNORED where it is no word's first piece),
        `length`, `words` (the place in its sentence of each word that has a label), and `id`, the example's.
        """
        self.check_length(tokenizer)

        def features(batch: dict[str, list]) -> dict[str, list]:
            encoded = tokenizer(
                [" ".join(words) for words in batch[self.text]],
                truncation=True,
                max_length=self.max_length,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
                padding=False,
            )
            owners, offsets = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
            columns: dict[str, list] = defaultdict(list, {name: encoded[name] for name in encoded})
            last: dict[int, int] = defaultdict(lambda: -1)
            for owner, spans in zip(owners, offsets, strict=True):
                labels, chosen = [IGNORED] * len(spans), []
                for place, word in enumerate(words_of(batch[self.text][owner], spans)):
                    if word is not None and word > last[owner]:
                        labels[place] = batch[self.label][owner][word]
                        chosen.append(word)
                        last[owner] = word
                columns["labels"].append(labels)
                columns["words"].append(chosen)
                columns["length"].append(len(labels))
                columns["id"].append(batch["id"][owner])
            return dict(columns)

        columns = examples.column_names
        return examples.map(features, batched=True, remove_columns=columns, keep_in_memory=True)

    def predict(self, logits: Sequence[torch.Tensor], features: Dataset, examples: Dataset) -> list[dict[str, Any]]:
        """The tag with the highest score for each word of each example, and the right ones beside them.

        A word that the tokenizer makes nothing of is outside.
        """
        names = self.classes(examples)
        rows = zip(examples["id"], examples[self.label], strict=True)
        right = {i: [names[tag] for tag in tags] for i, tags in rows}
        given = {i: [OUTSIDE] * len(tags) for i, tags in right.items()}
        columns = (features[name] for name in ("id", "labels", "words"))
        for i, labels, words, tags in zip(*columns, logits[0].argmax(-1).tolist(), strict=True):
            places = [place for place, label in enumerate(labels) if label != IGNORED]
            for place, word in zip(places, words, strict=True):
                given[i][word] = names[tags[place]]
        return [{"id": i, "prediction": given[i], "label": right[i]} for i in right]

    def score(self, predictions: list[dict[str, Any]], examples: Dataset) -> dict[str, Score]:
        """F1, precision and recall of whole entities, in percent, as `seqeval` and CoNLL's script count them.

        An example's terms are the entities that are right, found, and there.
        """
        from seqeval.metrics.sequence_labeling import get_entities

        for prediction in predictions:
            found, true = (set(get_entities(prediction[key])) for key in ("prediction", "label"))
            prediction["terms"] = [len(found & true), len(found), len(true)]
        right, found, true = (sum(counts) for counts in zip(*(p["terms"] for p in predictions), strict=True))
        values = {
            "f1": self.primary(predictions),
            "precision": 100 * right / found if found else 0.0,
            "recall": 100 * right / true if true else 0.0,
        }
        return {name: Score(value=value, count=len(predictions)) for name, value in values.items()}

    @staticmethod
    def from_terms(terms: np.ndarray) -> np.ndarray:
        """F1."""
        return f1(terms)


def words_of(words: Sequence[str], spans: Sequence[tuple[int, int]]) -> Iterator[int | None]:
    """For each token the word that it is a piece of, by its characters in the words joined by spaces.

    A token is known by its last character, as some tokenizers count the space before a word to its first piece.
    """
    starts = [0, *accumulate(len(word) + 1 for word in words)]
    for _, end in spans:
        word = bisect_right(starts, end - 1) - 1
        yield word if end > 0 and end - 1 < starts[word] + len(words[word]) else None
