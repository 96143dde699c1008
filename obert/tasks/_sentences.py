"""What tasks on a sentence or two share: columns, duplicates, features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from obert.data.columns import Column, Identifier, Text
from obert.data.splits import load_splits, without_shared
from obert.tasks import Task

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


def normalised(*sentences: str) -> str:
    """Text without differences in case and white space, by which duplicates are found."""
    return "\n".join(" ".join(sentence.lower().split()) for sentence in sentences)


class Sentences(Task):
    """Sentences, or pairs of them, each with one label.

    A source has splits with the columns that `sentences` names, and the label's; `id`, or GLUE's `idx`, is kept if it
    is there.
    """

    hub_config: ClassVar[str | None] = None
    sentences: ClassVar[tuple[str, ...]] = ("sentence",)
    validation_split: ClassVar[str] = "validation"

    @property
    def label_name(self) -> str:
        """The label's column."""
        return "label"

    def label_column(self) -> Column:
        """What the label's column holds."""
        raise NotImplementedError

    def read(self) -> dict[str, Dataset]:
        """The source's splits, without the training sentences that are in validation too."""
        return without_shared(self.read_splits(self.validation_split), self.units)

    def read_splits(self, validation: str) -> dict[str, Dataset]:
        """The splits `train` and `validation` as the source has them; there the latter's name is `validation`."""
        columns = {
            "id": Identifier(),
            **{name: Text() for name in self.sentences},
            self.label_name: self.label_column(),
        }
        return load_splits(self.source, columns, self.hub_config, validation=validation, together=self.sentences)

    def units(self, examples: Dataset) -> Iterator[str]:
        """The sentences, without differences in case and white space."""
        return (normalised(*texts) for texts in zip(*(examples[name] for name in self.sentences), strict=True))

    def encode(self, examples: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """One feature an example, cut off at `max_length` tokens; columns `labels`, `length` and `id`."""
        self.check_length(tokenizer)

        def features(batch: dict[str, list]) -> dict[str, list]:
            texts = [batch[name] for name in self.sentences]
            encoded = dict(tokenizer(*texts, truncation=True, max_length=self.max_length, padding=False))
            lengths = [len(tokens) for tokens in encoded["input_ids"]]
            return {**encoded, "labels": batch[self.label_name], "length": lengths, "id": batch["id"]}

        columns = examples.column_names
        return examples.map(features, batched=True, remove_columns=columns, keep_in_memory=True)
