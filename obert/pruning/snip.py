"""SNIP (Lee, Ajanthan and Torr 2019, arXiv 1810.02340): what matters to the loss of one minibatch, before training."""

from torch import Tensor

from obert.pruning import Context
from obert.pruning.shared.mean_gradient import MeanGradient


class Snip(MeanGradient):
    """The score is the connection sensitivity |w g|, g the gradient of one minibatch's loss. Nothing is updated.

    The source prunes once, before training, and ranks all layers together: a schedule of one event at the first step.
    It divides the scores by their sum, which changes no ranking, and starts from weights of equal variance; here the
    weights are those that the run starts from. The model is in evaluation mode.
    """

    def score(self, context: Context) -> dict[str, Tensor]:
        """|w g|."""
        weights = context.weights
        return {name: gradient.mul_(weights[name]).abs_() for name, gradient in self.mean_gradient(context).items()}
