"""The score of an exported model in the engine that runs it, which is the model that a user ships."""

from collections.abc import Iterator

import numpy as np
import torch
from datasets import Dataset

from obert.engines import Engine
from obert.records.record import Score
from obert.tasks import INPUT_COLUMNS, Task

BATCH = 16


def score_in(engine: Engine, task: Task, features: Dataset, examples: Dataset, pad_token_id: int) -> dict[str, Score]:
    """The task's metrics over all examples, predictions made by the engine.

    All batches have one shape, [16, task.max_length], as an engine may compile for a shape.
    """
    outputs = [_logits(engine, batch, real) for batch, real in _batches(features, task.max_length, pad_token_id)]
    logits = tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))
    return task.score(task.predict(logits, features, examples), examples)


def _batches(features: Dataset, length: int, pad_token_id: int) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """Inputs padded to full batches of full length, and how many rows of each are real."""
    padding = {"input_ids": pad_token_id}
    for start in range(0, len(features), BATCH):
        rows = features[start : start + BATCH]
        real = len(rows["input_ids"])
        inputs = {}
        for name in INPUT_COLUMNS:
            inputs[name] = np.full((BATCH, length), padding.get(name, 0), dtype=np.int64)
            for index, values in enumerate(rows[name]):
                inputs[name][index, : len(values)] = values
        inputs["attention_mask"][real:, 0] = 1  # a row without any token has no attention to share out
        yield inputs, real


def _logits(engine: Engine, inputs: dict[str, np.ndarray], real: int) -> tuple[torch.Tensor, ...]:
    """Of the real rows; scores of tokens are lowest at padding, so that no decoder chooses them."""
    outputs = [torch.from_numpy(np.array(output[:real])) for output in engine.run(inputs)]
    if len(outputs) > 1:
        padding = torch.from_numpy(inputs["attention_mask"][:real] == 0)
        outputs = [output.masked_fill(padding, torch.finfo(torch.float32).min) for output in outputs]
    return tuple(outputs)
