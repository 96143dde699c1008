"""Encoded examples, and padded batches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from obert.heads import INPUT_COLUMNS
from obert.tasks import Task


@dataclass(frozen=True)
class Features:
    """Encoded examples of a split, and how to make padded batches of them."""

    task: Task
    examples: Dataset
    features: Dataset
    tokenizer: PreTrainedTokenizerBase
    collator: Callable[[list[dict[str, Any]]], Any]

    @classmethod
    def encode(cls, task: Task, examples: Dataset, tokenizer: PreTrainedTokenizerBase) -> Features:
        """Encode a split of a task."""
        return cls(task, examples, task.encode(examples, tokenizer), tokenizer, task.head.collator(tokenizer))

    def prepared(self, batch: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """A batch as the model is to see it; what the task draws at random for it depends on the seed alone."""
        return self.task.prepare_batch(batch, self.tokenizer, torch.Generator().manual_seed(seed))

    @property
    def model_inputs(self) -> Dataset:
        """The features with the columns that a model takes, and no others."""
        columns = (*INPUT_COLUMNS, *self.task.head.labels)
        return self.features.select_columns([c for c in columns if c in self.features.column_names])

    def padded(self, chosen: Sequence[int]) -> Any:
        """A padded batch of some features."""
        rows = self.model_inputs[chosen]
        return self.collator([{name: rows[name][i] for name in rows} for i in range(len(chosen))])

    def in_order(self, size: int, count: int | None = None) -> Iterator[Any]:
        """Padded batches of `size` features in their order: of the first `count`, all by default."""
        stop = min(count or len(self.features), len(self.features))
        for start in range(0, stop, size):
            yield self.padded(range(start, min(start + size, stop)))

    def batches(self, sizes: list[int], generator: torch.Generator, by_length: bool = False) -> Iterator[Any]:
        """Padded minibatches of these sizes, drawn at random; the data is passed over again when it is used up.

        Args:
            by_length: put features of similar length together, for a caller to whom their company makes no difference.
        """
        total = sum(sizes)
        passes = -(-total // len(self.features))
        orders = [torch.randperm(len(self.features), generator=generator) for _ in range(passes)]
        drawn = torch.cat(orders)[:total].tolist()
        if by_length:
            lengths = list(self.features["length"])
            drawn.sort(key=lambda index: -lengths[index])
        for size in sizes:
            chosen, drawn = drawn[:size], drawn[size:]
            yield self.task.prepare_batch(self.padded(chosen), self.tokenizer, generator)
