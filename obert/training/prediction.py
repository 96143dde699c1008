"""Predictions of a trained model for a whole split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from obert.heads import Logits
from obert.training.features import Features

TEACHER_FEATURES = 1000  # a few megabytes for question answering, whose distributions are over positions
DECIMALS = 4  # of logits that are kept


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


def teacher_logits(evidence: Logits, data: Features) -> Iterator[dict[str, Any]]:
    """The id and the logits by output of at most TEACHER_FEATURES features, spread evenly over a split.

    Args:
        evidence: what `predict_logits` returns for the split.
    """
    head, count = data.task.head, len(data.features)
    size = min(count, TEACHER_FEATURES)
    for index in (i * count // size for i in range(size)):
        feature = data.features[index]
        logits = head.distributions(tuple(values[index] for values in evidence), feature)
        if logits:
            of_output = {name: [[round(x, DECIMALS) for x in row] for row in rows] for name, rows in logits.items()}
            yield {"id": feature.get("id", feature.get("example_id", index)), "logits": of_output}


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
