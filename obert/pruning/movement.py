"""Movement pruning, hard (Sanh, Wolf and Rush 2020, arXiv 2005.07683): what moves away from zero in training stays."""

from pydantic import Field
from torch import Tensor, nn

from obert.masks.patterns import UNSTRUCTURED, AnyPattern
from obert.pruning import Context, Method
from obert.pruning.shared.training_hooks import WeightsBehindMasks


class Movement(Method):
    """Scores S, zero at first, are trained along with the weights by the straight-through gradient of the mask,
    dL/dS = dL/d(W * M) * W, masked weights included. Those with the top S are kept: in each tensor, or in all together,
    as the recipe's `distribution` says. In block movement pruning (Lagunas et al. 2021, arXiv 2109.04838) the recipe's
    pattern is of blocks, rows or columns, which have one score each.

    The source makes masks anew at every step; a recipe may do so less often. Ties, before S has been trained, would be
    broken by position, so pruning at the first step is refused.
    """

    score_learning_rate: float = Field(1e-2, gt=0, description="initial rate of S, under the recipe's schedule")

    def training_hook(
        self, network: nn.Module, layers: dict[str, nn.Linear], pattern: AnyPattern = UNSTRUCTURED
    ) -> WeightsBehindMasks:
        """Holds S."""
        return WeightsBehindMasks(layers, self.score_learning_rate, pattern)

    def steps_needed(self) -> int:
        """S is zero before the first step."""
        return 1

    def score(self, context: Context) -> dict[str, Tensor]:
        """S."""
        return context.hook.scores
