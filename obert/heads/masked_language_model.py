"""The tokens behind the masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from obert.heads import Batch, Head, Logits

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class MaskedLanguageModel(Head):
    """Scores of the vocabulary at the tokens to predict, [batch, chosen, vocabulary].

    A batch says by `positions` which tokens are to be predicted, and by `labels` what they were, each [batch, chosen].
    """

    auto_model = "AutoModelForMaskedLM"
    pipeline = "fill-mask"
    of_tokens = True

    def forward(self, network: PreTrainedModel, batch: Batch) -> Logits:
        """Token scores at the tokens to predict."""
        return (scores_at(network, self.inputs(batch), batch["positions"]),)

    def losses(self, logits: Logits, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy over each sequence's chosen tokens, shape [batch]."""
        return _nll(logits, batch).mean(dim=1)

    def evidence(self, logits: Logits, batch: Batch) -> Logits:
        """Of each sequence, the chosen tokens, those predicted, and their negative log-likelihood, each [batch]."""
        right = (logits[0].argmax(dim=-1) == batch["labels"]).sum(dim=1)
        return right.new_full(right.shape, logits[0].shape[1]), right, _nll(logits, batch).sum(dim=1)

    def distributions(self, evidence: Logits, feature: Mapping[str, Any]) -> dict[str, list[list[float]]]:
        """None: the evidence holds no scores of the vocabulary."""
        return {}


def _nll(logits: Logits, batch: Batch) -> torch.Tensor:
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits[0].transpose(1, 2), batch["labels"], reduction="none")


def scores_at(network: PreTrainedModel, inputs: Batch, positions: torch.Tensor) -> torch.Tensor:
    """A masked language model's scores of the vocabulary at some tokens, [sequences, chosen, vocabulary].

    Its head sees their hidden states alone: over the whole vocabulary it takes more time than a small encoder.

    Args:
        positions: [sequences, chosen].
    """

    def choose(module, arguments, outputs):
        states = outputs.last_hidden_state
        outputs["last_hidden_state"] = states.gather(1, positions.unsqueeze(-1).expand(-1, -1, states.shape[-1]))

    handle = getattr(network, "module", network).base_model.register_forward_hook(choose)
    try:
        return network(**inputs).logits
    finally:
        handle.remove()
