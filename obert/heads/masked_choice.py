"""One of two options for a blank, each scored by what a masked language model says of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from obert.heads import Batch, Logits
from obert.heads.masked_language_model import scores_at
from obert.heads.multiple_choice import MultipleChoice

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

MARGIN, WEIGHT = 0.4, 5.0  # of fairseq's and SMC-Bench's WinoGrande
UNUSED = -100


class MaskedChoice(MultipleChoice):
    """Mean log-probabilities of two options' tokens, [batch, 2], where each option's tokens are masked.

    A batch says by `positions` which tokens are masked, and by `targets` what they were, each [batch, 2, masked];
    places that an option does not need hold -100 in `targets`. The model is the pre-trained one with its head for
    masked tokens, and nothing is new in it. Distillation compares the softmax of the two numbers, although they are not
    the logits of a softmax that was trained.
    """

    auto_model = "AutoModelForMaskedLM"
    labels = ("labels", "positions", "targets")
    of_tokens = True

    def settings(self, classes: Sequence[str]) -> dict[str, Any]:
        return {}

    def targets(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Labels [batch], and masked positions with their tokens, [batch, 2, masked]."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        def padded(name: str, value: int) -> torch.Tensor:
            rows = [torch.tensor(places) for row in features for places in row[name]]
            return pad_sequence(rows, batch_first=True, padding_value=value).unflatten(0, (len(features), -1))

        return {**super().targets(features), "positions": padded("positions", 0), "targets": padded("targets", UNUSED)}

    def forward(self, network: PreTrainedModel, batch: Batch) -> Logits:
        """The options' scores; the model's head sees the masked tokens alone."""
        return _scores(scores_at(network, self.inputs(batch), batch["positions"].flatten(0, 1)), batch)

    def arranged(self, outputs: Logits, batch: Batch) -> Logits:
        """Scores of all tokens, [batch * 2, tokens, vocabulary], as those of options, [batch, 2]."""
        index = batch["positions"].flatten(0, 1).unsqueeze(-1)
        return _scores(outputs[0].take_along_dim(index, dim=1), batch)

    def losses(self, logits: Logits, batch: Batch) -> torch.Tensor:
        """-log p_right + 5 max(0, log p_wrong - log p_right + 0.4) of each question, shape [batch]."""
        labels = batch["labels"].unsqueeze(1)
        right, wrong = (logits[0].gather(1, choice).squeeze(1) for choice in (labels, 1 - labels))
        return WEIGHT * (wrong - right + MARGIN).clamp(min=0) - right


def _scores(logits: torch.Tensor, batch: Batch) -> Logits:
    """Mean log-probability of each option's tokens, [batch, 2], from scores of the vocabulary at masked positions."""
    targets = batch["targets"].flatten(0, 1)
    used = targets != UNUSED
    of_tokens = logits.log_softmax(-1).gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    means = of_tokens.masked_fill(~used, 0).sum(dim=1) / used.sum(dim=1)
    return (means.unflatten(0, batch["targets"].shape[:2]),)
