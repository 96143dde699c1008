"""Encoded examples, and padded batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from obert.tasks import INPUT_COLUMNS, Task

MODEL_COLUMNS = (*INPUT_COLUMNS, "labels", "start_positions", "end_positions")


@dataclass(frozen=True)
class Features:
    """Encoded examples of a split, and how to make padded batches of them."""

    task: Task
    examples: Dataset
    features: Dataset
    collator: DataCollatorWithPadding

    @classmethod
    def encode(cls, task: Task, examples: Dataset, tokenizer: PreTrainedTokenizerBase) -> Features:
        """Encode a split of a task."""
        return cls(task, examples, task.encode(examples, tokenizer), DataCollatorWithPadding(tokenizer))

    def prepared(self, batch: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """A batch as the model is to see it; what the task draws at random for it depends on the seed alone."""
        return self.task.prepare_batch(batch, self.collator.tokenizer, torch.Generator().manual_seed(seed))

    @property
    def model_inputs(self) -> Dataset:
        """The features with the columns that a model takes, and no others."""
        return self.features.select_columns([c for c in MODEL_COLUMNS if c in self.features.column_names])

    def batches(self, sizes: list[int], generator: torch.Generator, by_length: bool = False) -> Iterator[Any]:
        """Padded minibatches of these sizes, drawn at random; the data is passed over again when it is used up.

        Args:
            by_length: put features of similar length together, for a caller to whom their company makes no difference.
        """
        inputs, total = self.model_inputs, sum(sizes)
        passes = -(-total // len(inputs))
        drawn = torch.cat([torch.randperm(len(inputs), generator=generator) for _ in range(passes)])[:total].tolist()
        if by_length:
            lengths = list(self.features["length"])
            drawn.sort(key=lambda index: -lengths[index])
        for size in sizes:
            chosen, drawn = drawn[:size], drawn[size:]
            rows = inputs[chosen]
            batch = self.collator([{name: rows[name][i] for name in rows} for i in range(size)])
            yield self.task.prepare_batch(batch, self.collator.tokenizer, generator)
