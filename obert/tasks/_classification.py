"""What classification tasks share: a sentence or two, one label, cross-entropy, accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from obert.data.columns import Identifier, Label, Text
from obert.data.splits import load_splits, without_shared
from obert.heads.sequence_classification import SequenceClassification
from obert.records.record import Score
from obert.tasks import Task

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from evaluate import Metric
    from transformers import PreTrainedTokenizerBase


def normalised(*sentences: str) -> str:
    """Text without differences in case and white space, by which duplicates are found."""
    return "\n".join(" ".join(sentence.lower().split()) for sentence in sentences)


class Classification(Task):
    """Sentences, or pairs of them, with integer labels.

    A source has splits with the columns `sentences` names, and `label`; `id`, or GLUE's `idx`, is kept if it is there.
    """

    head = SequenceClassification()
    num_labels: ClassVar[int] = 2
    primary_metric = "accuracy"
    hub_config: ClassVar[str | None] = None
    sentences: ClassVar[tuple[str, ...]] = ("sentence",)
    validation_split: ClassVar[str] = "validation"

    def read(self) -> dict[str, Dataset]:
        """The source's splits, without the training sentences that are in validation too."""
        label = Label(classes=tuple(map(str, range(self.num_labels))))
        columns = {"id": Identifier(), **{name: Text() for name in self.sentences}, "label": label}
        splits = load_splits(self.source, columns, self.hub_config, validation=self.validation_split)
        return without_shared(splits, self.units)

    def units(self, examples: Dataset) -> Iterator[str]:
        """The sentences, without differences in case and white space."""
        return (normalised(*texts) for texts in zip(*(examples[name] for name in self.sentences), strict=True))

    def classes(self, examples: Dataset) -> tuple[str, ...]:
        """The labels' numbers."""
        return tuple(map(str, range(self.num_labels)))

    def encode(self, examples: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """One feature an example, cut off at `max_length` tokens; columns `labels`, `length` and `id`."""
        self.check_length(tokenizer)

        def features(batch: dict[str, list]) -> dict[str, list]:
            texts = [batch[name] for name in self.sentences]
            encoded = dict(tokenizer(*texts, truncation=True, max_length=self.max_length, padding=False))
            lengths = [len(tokens) for tokens in encoded["input_ids"]]
            return {**encoded, "labels": batch["label"], "length": lengths, "id": batch["id"]}

        columns = examples.column_names
        return examples.map(features, batched=True, remove_columns=columns, keep_in_memory=True)

    def predict(self, logits: Sequence[torch.Tensor], features: Dataset, examples: Dataset) -> list[dict[str, Any]]:
        """The label with the highest score, for each example."""
        labels = logits[0].argmax(-1).tolist()
        return [{"id": i, "prediction": label} for i, label in zip(features["id"], labels, strict=True)]

    def score(self, predictions: list[dict[str, Any]], examples: Dataset) -> dict[str, Score]:
        """Metrics in percent; each prediction's `score` is 100 if it is right, or 0."""
        given, expected = [p["prediction"] for p in predictions], list(examples["label"])
        for prediction, reference in zip(predictions, expected, strict=True):
            prediction["score"] = 100.0 * (prediction["prediction"] == reference)
        values = self.metric().compute(predictions=given, references=expected)
        return {name: Score(value=value, count=len(given)) for name, value in values.items()}

    def metric(self) -> Metric:
        """What labels are compared with."""
        from obert.tasks._metrics import Accuracy

        return Accuracy()
