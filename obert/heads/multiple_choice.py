"""One of a question's choices, each scored as a sequence of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from obert.heads import INPUT_COLUMNS, Batch, Head, Logits

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


class MultipleChoice(Head):
    """Scores of a question's choices, [batch, choices]; labels are the choices' numbers, [batch].

    The model gives one score to each sequence, [batch * choices, 1], so that an exported graph takes sequences like any
    other. A batch's inputs are [batch, choices, tokens]. The head is the architecture's own for classification with
    one class; RoBERTa's is the one of fairseq's `sentence_ranking`.
    """

    auto_model = "AutoModelForSequenceClassification"

    def settings(self, classes: Sequence[str]) -> dict[str, Any]:
        """One score a sequence."""
        return {"num_labels": 1}

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[dict[str, Any]]], Any]:
        """Makes a batch of features, which hold lists [choices][tokens], of as many choices each."""
        from transformers import DataCollatorWithPadding

        pad = DataCollatorWithPadding(tokenizer)

        def collate(features: list[dict[str, Any]]) -> Any:
            names = [name for name in INPUT_COLUMNS if name in features[0]]
            choices = len(features[0][names[0]])
            batch = pad([{name: row[name][i] for name in names} for row in features for i in range(choices)])
            for name in names:
                batch[name] = batch[name].unflatten(0, (len(features), choices))
            batch.update(self.targets(features))
            return batch

        return collate

    def targets(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """What of features the loss reads, each [batch, ...]."""
        import torch

        return {"labels": torch.tensor([row["labels"] for row in features])}

    def inputs(self, batch: Batch) -> dict[str, torch.Tensor]:
        """What of a batch the model takes, each [batch * choices, tokens], a question's choices one after the other."""
        return {name: values.flatten(0, 1) for name, values in super().inputs(batch).items()}

    def arranged(self, outputs: Logits, batch: Batch) -> Logits:
        """Scores of sequences, [batch * choices, 1], as those of a question's choices, [batch, choices]."""
        return (outputs[0].reshape(batch["input_ids"].shape[:2]),)

    def losses(self, logits: Logits, batch: Batch) -> torch.Tensor:
        """Cross-entropy over each question's choices, shape [batch]."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits[0], batch["labels"], reduction="none")
