"""A span of the tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from obert.heads import Batch, Head, Logits

if TYPE_CHECKING:
    import torch


class QuestionAnswering(Head):
    """Scores of each token to be the first and the last of the answer, each [batch, tokens]."""

    auto_model = "AutoModelForQuestionAnswering"
    outputs = ("start_logits", "end_logits")
    labels = ("start_positions", "end_positions")
    of_tokens = True

    def losses(self, logits: Logits, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy of start and end of each feature, shape [batch]; positions beyond the end count zero."""
        from torch.nn.functional import cross_entropy

        start, end = logits
        tokens = start.shape[1]

        def loss(scores: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
            return cross_entropy(scores, positions.clamp(0, tokens), ignore_index=tokens, reduction="none")

        return (loss(start, batch["start_positions"]) + loss(end, batch["end_positions"])) / 2

    def distributions(self, evidence: Logits, feature: Mapping[str, Any]) -> dict[str, list[list[float]]]:
        """Over the tokens of the feature, without padding."""
        return super().distributions(tuple(scores[: feature["length"]] for scores in evidence), feature)
