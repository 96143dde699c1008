"""Predictions of a trained model for a whole split."""

from __future__ import annotations

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from obert.tasks import Task
from obert.training.features import Features


def predict_logits(network: PreTrainedModel, task: Task, data: Features, batch_size: int) -> tuple[torch.Tensor, ...]:
    """The task's logits for every feature in order, in evaluation mode; sequences are padded to the longest.

    Padding positions hold the lowest value of float32, so that no decoder chooses them.
    """
    network.eval()
    device = network.device
    inputs = data.model_inputs
    lengths = list(data.features["length"])
    order = sorted(range(len(inputs)), key=lambda i: -lengths[i])
    collected: list[tuple[int, tuple[torch.Tensor, ...]]] = []
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            rows = inputs[chosen]
            batch = data.collator([{name: rows[name][i] for name in rows} for i in range(len(chosen))])
            batch = data.prepared(batch.to(device), seed=start)
            found = task.evidence(task.forward(network, batch), batch)
            collected += [(index, tuple(x[i].cpu() for x in found)) for i, index in enumerate(chosen)]
    collected.sort(key=lambda item: item[0])
    pad = torch.finfo(torch.float32).min
    outputs = zip(*(logits for _, logits in collected), strict=True)
    return tuple(
        torch.stack(rows) if rows[0].dim() == 0 else pad_sequence(list(rows), batch_first=True, padding_value=pad)
        for rows in outputs
    )
