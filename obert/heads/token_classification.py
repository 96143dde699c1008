"""A class for each word of a sequence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from obert.heads import Batch, Head, Logits
from obert.heads.sequence_classification import SequenceClassification

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # the label of a token that stands for no word: padding, special tokens, inner pieces of words


class TokenClassification(Head):
    """Scores of classes at each token, [batch, tokens, classes]; labels are their numbers or IGNORED, [batch, tokens].

    Both losses are means over the tokens with a label, as the outputs at others are never read.
    """

    auto_model = "AutoModelForTokenClassification"
    pipeline = "token-classification"
    of_tokens = True
    settings = SequenceClassification.settings

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[dict[str, Any]]], Any]:
        """Makes a padded batch of features; labels are padded by IGNORED."""
        from transformers import DataCollatorForTokenClassification

        return DataCollatorForTokenClassification(tokenizer, label_pad_token_id=IGNORED)

    def losses(self, logits: Logits, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy over the labelled tokens of each feature, shape [batch]."""
        from torch.nn.functional import cross_entropy

        losses = cross_entropy(logits[0].transpose(1, 2), batch["labels"], ignore_index=IGNORED, reduction="none")
        return _mean_over_labelled(losses, batch["labels"])

    def distillation_losses(self, logits: Logits, taught: Logits, temperature: float, batch: Batch) -> torch.Tensor:
        """Mean divergence from the teacher over the labelled tokens of each feature, shape [batch]."""
        from obert.heads.distillation import divergences

        return _mean_over_labelled(divergences(logits[0], taught[0], temperature), batch["labels"])

    def distributions(self, evidence: Logits, feature: Mapping[str, Any]) -> dict[str, list[list[float]]]:
        """One for each token with a label."""
        places = [place for place, label in enumerate(feature["labels"]) if label != IGNORED]
        return {self.outputs[0]: evidence[0][places].tolist()}


def _mean_over_labelled(losses: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Means over tokens, [batch]; 0 for a feature without any label."""
    labelled = labels != IGNORED
    return losses.masked_fill(~labelled, 0).sum(dim=1) / labelled.sum(dim=1).clamp(min=1)
