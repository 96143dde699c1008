"""One number for a whole sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from obert.heads import Batch, Head, Logits

if TYPE_CHECKING:
    import torch


class Regression(Head):
    """A number, [batch, 1]; labels are numbers, [batch]."""

    auto_model = "AutoModelForSequenceClassification"
    pipeline = "text-classification"

    def settings(self, classes: Sequence[str]) -> dict[str, Any]:
        """One output, which is no class."""
        return {"num_labels": 1, "problem_type": "regression"}

    def losses(self, logits: Logits, batch: Batch) -> torch.Tensor:
        """Squared error of each feature, shape [batch]."""
        return (logits[0].squeeze(-1) - batch["labels"]) ** 2

    def distillation_losses(self, logits: Logits, taught: Logits, temperature: float, batch: Batch) -> torch.Tensor:
        """Squared difference to the teacher's number, shape [batch]; a number has no temperature.

        A divergence of distributions would be 0 whatever the student says, as there is but one output.
        """
        return (logits[0].squeeze(-1) - taught[0].squeeze(-1)) ** 2

    def distributions(self, evidence: Logits, feature: Mapping[str, Any]) -> dict[str, list[list[float]]]:
        """None: a number is no distribution."""
        return {}
