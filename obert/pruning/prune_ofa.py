"""Prune Once for All (Zafrir et al. 2021, arXiv 2111.05754): magnitude pruning from which a weight may return."""

from torch import nn

from obert.masks.patterns import UNSTRUCTURED, AnyPattern
from obert.pruning.magnitude import Magnitude
from obert.pruning.shared.training_hooks import WeightsBehindMasks


class PruneOFA(Magnitude):
    """Pruned weights keep their value behind the mask, without a gradient, and are ranked anew at every event; the
    recipe's `schedule.rerank_until_epoch` says for how long. The source ranks in each tensor (`distribution: uniform`).
    """

    def training_hook(
        self, network: nn.Module, layers: dict[str, nn.Linear], pattern: AnyPattern = UNSTRUCTURED
    ) -> WeightsBehindMasks:
        """Keeps the values of pruned weights."""
        return WeightsBehindMasks(layers)
