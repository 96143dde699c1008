"""Predictions of a trained model for a whole split."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from obert.heads import Logits
from obert.training.features import Features


def predict_logits(network: PreTrainedModel, data: Features, batch_size: int) -> Logits:
    """What the task predicts from, for every feature in order, in evaluation mode, as `joined` puts it together."""
    network.eval()
    device, head = network.device, data.task.head
    lengths = list(data.features["length"])
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    collected: list[tuple[int, Logits]] = []
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = data.prepared(data.padded(chosen).to(device), seed=start)
            found = head.evidence(head.forward(network, batch), batch)
            collected += [(index, tuple(x[i].cpu() for x in found)) for i, index in enumerate(chosen)]
    collected.sort(key=lambda item: item[0])
    return joined(logits for _, logits in collected)


def joined(features: Iterable[Logits]) -> Logits:
    """The logits of features, one by one, as tensors [features, ...].

    Sequences of another length than the longest are filled up with the lowest value of float32, so that no decoder
    chooses it.
    """
    pad = torch.finfo(torch.float32).min
    return tuple(
        torch.stack(rows) if rows[0].dim() == 0 else pad_sequence(list(rows), batch_first=True, padding_value=pad)
        for rows in zip(*features, strict=True)
    )
