"""Downstream tasks, one file each. A task turns a data source into features, a loss and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from obert.records import Score

if TYPE_CHECKING:  # checking a configuration must not take the seconds that these imports take
    import torch
    from datasets import Dataset, DatasetDict
    from transformers import PreTrainedTokenizerBase


class Base(BaseModel):
    """A task. Its fields are the options that an experiment may set under `tasks.<name>`.

    The class attributes say what model it needs and how it is judged. Two rooms hold what tasks of a kind share:
    `_classification.py` and `_question_answering.py`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    head: ClassVar[Literal["sequence_classification", "question_answering"]]
    num_labels: ClassVar[int] = 2
    primary_metric: ClassVar[str]

    source: str = Field(description="wheel:<asset>, a local directory, or a Hugging Face Hub name")
    train_examples: int | None = Field(None, gt=0, description="size of a fixed random subset; all by default")
    eval_examples: int | None = Field(None, gt=0, description="size of a fixed random subset; all by default")
    max_length: int = Field(128, gt=4, description="tokens of a feature, special tokens included")

    def load(self) -> DatasetDict:
        """The examples: splits `train` and `validation`, disjoint, each with a unique `id` column.

        Raises:
            UserError: the source is missing or lacks a split or a column.
        """
        raise NotImplementedError

    def encode(self, examples: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Features of the examples. Columns: model inputs and labels (lists of varying length, not padded),
        `length`, and what `predict` needs to find the example again."""
        raise NotImplementedError

    def losses(self, logits: Sequence[torch.Tensor], batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Hard-label loss of each feature of a batch, shape [batch]."""
        raise NotImplementedError

    def logits(self, outputs: Any) -> tuple[torch.Tensor, ...]:
        """The outputs that a distillation loss compares: one tensor of class scores [batch, classes] for
        classification, start and end scores [batch, tokens] for question answering."""
        raise NotImplementedError

    def predict(self, logits: Sequence[torch.Tensor], features: Dataset, examples: Dataset) -> list[dict[str, Any]]:
        """One prediction an example, in the order of the examples, as `{"id": ..., "prediction": ...}`.

        Args:
            logits: as `logits` returns them, for all features, padded to one length for question answering.
        """
        raise NotImplementedError

    def score(self, predictions: list[dict[str, Any]], examples: Dataset) -> dict[str, Score]:
        """Metrics in percent. Adds `"score"` (the primary metric of that one example) to each prediction."""
        raise NotImplementedError
