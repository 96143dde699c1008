"""How small a difference between two pruned models an experiment can show, planned before it.

The difference of two scores varies with the examples and with the seeds, and the two add up. A difference is found with
probability `POWER` if it is so many standard errors as its test takes, and as many again as that probability does; see
Card et al. 2020, "With Little Power Comes Great Responsibility" (arXiv 2010.06595), which asks for such a plan.
"""

import math
from statistics import NormalDist

from obert.statistics import CONFIDENCE

POWER = 0.8
DIFFERING = 0.1  # share of the examples that one of two models alone gets right, before anything is known
SPREAD = 0.5  # points, standard deviation over seeds of the difference of two models, before anything is known


def standard_error(examples: int, seeds: int, differing: float = DIFFERING, spread: float = SPREAD) -> float:
    """Of the difference of two accuracies on the same examples, in points.

    Seeds are taken to help against their own spread alone: models that are made of one teacher err on the same
    examples.

    Args:
        examples, seeds: both models have the same.
        differing: share of the examples that one model alone gets right.
        spread: points, standard deviation of the difference over seeds.
    """
    return math.sqrt(100**2 * differing / examples + spread**2 / seeds)


def detectable(error: float) -> float:
    """The difference that is found with probability `POWER`, by its standard error; in the same unit."""
    quantile = NormalDist().inv_cdf
    return (quantile((1 + CONFIDENCE) / 2) + quantile(POWER)) * error


def examples_for(points: float, seeds: int, differing: float = DIFFERING, spread: float = SPREAD) -> int | None:
    """The examples with which a difference of so many points is found; None if no number is enough for so few seeds."""
    left = (points / detectable(1.0)) ** 2 - spread**2 / seeds
    return math.ceil(100**2 * differing / left) if left > 0 else None
