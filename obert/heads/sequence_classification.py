"""One class for a whole sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from obert.heads import Batch, Head, Logits

if TYPE_CHECKING:
    import torch


class SequenceClassification(Head):
    """Scores of classes, [batch, classes]; labels are their numbers, [batch]."""

    auto_model = "AutoModelForSequenceClassification"
    pipeline = "text-classification"

    def settings(self, classes: Sequence[str]) -> dict[str, Any]:
        """The classes with their names."""
        return {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}

    def losses(self, logits: Logits, batch: Batch) -> torch.Tensor:
        """Cross-entropy of each feature, shape [batch]."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits[0], batch["labels"], reduction="none")
