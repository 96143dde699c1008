"""How small a difference between two pruned models an experiment can show, planned before it.

The difference of two scores varies with the examples and with the seeds, and the two add up. A difference is found with
probability `POWER` if it is half as wide as its interval, and as many standard errors more as that probability takes.
Card et al. 2020, "With Little Power Comes Great Responsibility" (arXiv 2010.06595), ask for such a plan.
"""

import bisect
import itertools
import math

from scipy import stats

from obert.statistics import CONFIDENCE

POWER = 0.8
DIFFERING = 0.1  # share of the examples that one of two models alone gets right, before anything is known
SPREAD = 0.5  # points, standard deviation over seeds of the difference of two models, before anything is known
MOST_EXAMPLES = 1_000_000_000  # of a data set


def detectable(examples: int, seeds: int, differing: float = DIFFERING, spread: float = SPREAD) -> float:
    """The difference of two accuracies that is found with probability `POWER`, in points; infinite for one seed.

    A difference is found if its interval lies above 0, which is as wide as `Resampled.interval` makes it. Seeds are
    taken to help against their own spread alone: models that are made of one teacher err on the same examples.

    Args:
        examples, seeds: both models have the same.
        differing: share of the examples that one model alone gets right.
        spread: points, standard deviation of the difference over seeds.
    """
    if seeds == 1:
        return math.inf
    tail = (1 - CONFIDENCE) / 2
    by_examples, by_seeds = 100 * math.sqrt(differing / examples), spread / math.sqrt(seeds)
    half = math.hypot(stats.norm.isf(tail) * by_examples, stats.t.isf(tail, seeds - 1) * by_seeds)
    return float(half + stats.norm.ppf(POWER) * math.hypot(by_examples, by_seeds))


def needed_for(points: float, seeds: int, differing: float = DIFFERING, spread: float = SPREAD) -> tuple[int, int]:
    """With how many seeds and examples a difference of so many points is found: the fewest seeds, from `seeds` on."""

    def is_found(examples: int, seeds: int) -> bool:
        return detectable(examples, seeds, differing, spread) <= points

    enough = next(number for number in itertools.count(seeds) if is_found(MOST_EXAMPLES, number))
    return enough, bisect.bisect_left(range(MOST_EXAMPLES), True, lo=1, key=lambda examples: is_found(examples, enough))
