"""What stands on an encoder for a kind of task, one file a head: outputs, losses, distillation, padding of batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:  # checking a configuration must not take the seconds that these imports take
    import torch
    from transformers import PreTrainedTokenizerBase

INPUT_COLUMNS = ("input_ids", "attention_mask", "token_type_ids")
Batch = Mapping[str, "torch.Tensor"]
Logits = tuple["torch.Tensor", ...]


class Head(ABC):
    """A head. A task names one; a new head is a file with a subclass.

    Attributes:
        auto_model: the class of `transformers` that puts the head on an encoder.
        pipeline: the pipeline of `transformers` that takes such a model; None if there is none.
        outputs: names of the model's outputs, in the library's result and in an exported graph.
        labels: columns of a feature that the loss reads.
        of_tokens: whether outputs are scores of tokens, [batch, tokens, ...], which mean nothing at padding.
    """

    auto_model: ClassVar[str]
    pipeline: ClassVar[str | None] = None
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    labels: ClassVar[tuple[str, ...]] = ("labels",)
    of_tokens: ClassVar[bool] = False

    def settings(self, classes: Sequence[str]) -> dict[str, Any]:
        """What the model's configuration says of the head. `classes` are the labels' names, if it has any."""
        return {}

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Callable[[list[dict[str, Any]]], Any]:
        """Makes a padded batch of features."""
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(tokenizer)

    def inputs(self, batch: Batch) -> dict[str, torch.Tensor]:
        """What of a batch the model takes, each [sequences, tokens]."""
        return {name: batch[name] for name in INPUT_COLUMNS if name in batch}

    def arranged(self, outputs: Logits, batch: Batch) -> Logits:
        """A model's outputs for the inputs of a batch as logits, the feature first."""
        return outputs

    def forward(self, network: torch.nn.Module, batch: Batch) -> Logits:
        """The logits of a batch, each [batch, ...]."""
        found = network(**self.inputs(batch))
        return self.arranged(tuple(found[name] for name in self.outputs), batch)

    @abstractmethod
    def losses(self, logits: Logits, batch: Batch) -> torch.Tensor:
        """Hard-label loss of each feature of a batch, shape [batch]."""

    def distillation_losses(self, logits: Logits, taught: Logits, temperature: float, batch: Batch) -> torch.Tensor:
        """Distillation loss of each feature of a batch, shape [batch]: of distributions over the last axis."""
        from obert.heads.distillation import distillation_losses

        return distillation_losses(logits, taught, temperature)

    def evidence(self, logits: Logits, batch: Batch) -> Logits:
        """What a task's predictions need of the logits, each [batch, ...]; all of them by default."""
        return logits

    def distributions(self, evidence: Logits, feature: Mapping[str, Any]) -> dict[str, list[list[float]]]:
        """The logits of each distribution that students of a model are compared with on a feature, by output.

        Args:
            evidence: of that feature, each [...].
            feature: its columns, with `length`.
        """
        return {name: [values.tolist()] for name, values in zip(self.outputs, evidence, strict=True)}
