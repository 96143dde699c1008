"""Lottery tickets in BERT (Chen et al. 2020, arXiv 2007.12223): masks of trained weights, put on the first weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from obert.masks.patterns import UNSTRUCTURED, AnyPattern
from obert.pruning.magnitude import Magnitude
from obert.pruning.shared.training_hooks import TrainingHook

if TYPE_CHECKING:
    from obert.masks.selection import Masks


class _Rewinding(TrainingHook):
    """Sets the encoder, or the whole model, back to its first weights after every event."""

    rewinds: ClassVar[bool] = True

    def __init__(self, body: nn.Module, layers: dict[str, nn.Linear]):
        """
        Args:
            body: the part of the model that is set back.
        """
        super().__init__(layers)
        self._parameters = dict(body.named_parameters())
        self._start = {name: value.detach().clone() for name, value in self._parameters.items()}

    @torch.no_grad()
    def after_event(self, masks: Masks, optimizer: torch.optim.Optimizer | None) -> None:
        """Back to the first weights, under the mask, with a new optimiser state."""
        for name, value in self._parameters.items():
            value.copy_(self._start[name])
        self.impose(masks)
        if optimizer is not None:
            optimizer.state.clear()

    def state(self) -> dict[str, Tensor]:
        """The first weights: who goes on from a checkpoint may have made the hook with later ones."""
        return self._start

    def load(self, state: dict[str, Tensor]) -> None:
        """Take the first weights back."""
        self._start = dict(state)


class LotteryTicket(Magnitude):
    """Iterative magnitude pruning with rewinding: each event prunes by the magnitude of the trained weights, then sets
    the whole encoder, embeddings and pooler included, back to what the run started from. The task's head is not reset,
    as in the source, unless `rewind_head` says so.

    A round is the time from one event to the next; the recipe's schedule says how many and how much each removes. A
    single event at the first step is the source's one-shot form. What a run starts from is the recipe's `start`:
    the source's is the pre-trained model.
    """

    rewind_head: bool = Field(
        False,
        exclude_if=lambda rewind: not rewind,  # runs without it keep the specification they have always had
        description="the task's head is set back as well, to the weights that it was drawn with",
    )

    def training_hook(
        self, network: nn.Module, layers: dict[str, nn.Linear], pattern: AnyPattern = UNSTRUCTURED
    ) -> TrainingHook:
        """Remembers the first weights."""
        return _Rewinding(network if self.rewind_head else getattr(network, "base_model", network), layers)
