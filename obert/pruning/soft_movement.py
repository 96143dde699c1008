"""Movement pruning, soft (Sanh, Wolf and Rush 2020, arXiv 2005.07683): a threshold on the scores, and a penalty."""

import torch
from pydantic import Field
from torch import Tensor, nn

from obert.masks.patterns import UNSTRUCTURED, AnyPattern
from obert.pruning.movement import Movement
from obert.pruning.shared.training_hooks import WeightsBehindMasks


class _Penalized(WeightsBehindMasks):
    def __init__(self, layers: dict[str, nn.Linear], learning_rate: float, pattern: AnyPattern, strength: float):
        super().__init__(layers, learning_rate, pattern)
        self.strength = strength

    def penalty(self, progress: float) -> Tensor:
        """strength * progress * the mean over matrices of the mean of sigmoid(S)."""
        means = [torch.sigmoid(scores).mean() for scores in self.group_scores.values()]
        return self.strength * progress * torch.stack(means).mean()


class SoftMovement(Movement):
    """Keeps what has sigmoid(S) above one threshold for all tensors.

    The threshold is solved for at every event, so that the sparsity is the schedule's: as the sigmoid is monotone,
    these are the top S of all tensors together. The reference code fixes a schedule of the threshold instead, and takes
    what sparsity comes out; it also keeps half a percent of every matrix, which is not done here. Its penalty grows
    with its threshold, ours with the sparsity.
    """

    final_lambda: float = Field(400.0, ge=0, description="strength of the penalty when the target sparsity is reached")

    def training_hook(
        self, network: nn.Module, layers: dict[str, nn.Linear], pattern: AnyPattern = UNSTRUCTURED
    ) -> WeightsBehindMasks:
        """Holds S, and gives its penalty."""
        return _Penalized(layers, self.score_learning_rate, pattern, self.final_lambda)
