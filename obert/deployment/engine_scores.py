"""The score of an exported model in the engine that runs it, which is the model that a user ships."""

from collections.abc import Mapping

import numpy as np
import torch

from obert.engines import Engine
from obert.records.record import Score
from obert.training.features import Features
from obert.training.prediction import joined

BATCH = 16


def score_in(engine: Engine, data: Features) -> dict[str, Score]:
    """The task's metrics over all examples, predictions made by the engine.

    All batches have one shape, [16, task.max_length], as an engine may compile for a shape.
    """
    task, head = data.task, data.task.head
    found = []
    for batch in data.in_order(BATCH):
        outputs = _run(engine, head.inputs(batch), task.max_length, data.tokenizer.pad_token_id)
        if head.of_tokens:
            width = batch["attention_mask"].shape[-1]
            outputs = tuple(output[:, :width] for output in outputs)
        found += zip(*head.evidence(head.arranged(outputs, batch), batch), strict=True)
    return task.score(task.predict(joined(found), data.features, data.examples), data.examples)


def _run(
    engine: Engine, inputs: Mapping[str, torch.Tensor], length: int, pad_token_id: int
) -> tuple[torch.Tensor, ...]:
    """Outputs of all sequences, made in batches of one shape."""
    sequences = len(inputs["input_ids"])
    outputs = []
    for start in range(0, sequences, BATCH):
        real = min(BATCH, sequences - start)
        batch = {}
        for name, values in inputs.items():
            batch[name] = np.full((BATCH, length), pad_token_id if name == "input_ids" else 0, dtype=np.int64)
            batch[name][:real, : values.shape[1]] = values[start : start + real].numpy()
        batch["attention_mask"][real:, 0] = 1  # a row without any token has no attention to share out
        outputs.append([torch.from_numpy(np.array(output[:real])) for output in engine.run(batch)])
    return tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))
