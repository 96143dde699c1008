"""Collapsed models: classifiers that answer the same whatever they are asked, or no better than chance."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

CHANCE = (
    "Chance is the best score that the same answer to every example has: the share of the most frequent class, or of "
    "the most frequent position of the right choice"
)
RULE = (
    "A run is collapsed if it gives one answer to everything, or if its accuracy is at most one standard error, "
    f"sqrt(c (1 - c) / examples), above chance c. {CHANCE}."
)


def collapse(answers: Sequence[Hashable], labels: Sequence[Hashable], right: Sequence[bool]) -> dict[str, float | bool]:
    """Whether a model has collapsed, and by what that is judged (`RULE`).

    Args:
        answers, labels: what is given and what is true, one each an example, of which there is at least one.
        right: whether an answer counts as right.

    Returns:
        `majority_rate`, the percentage of the most frequent label, `constant_rate`, that of the most frequent answer,
        and `collapsed`.
    """
    majority, constant = 100 * largest_share(labels), 100 * largest_share(answers)
    return {
        "majority_rate": majority,
        "constant_rate": constant,
        "collapsed": is_collapsed(majority, constant, 100 * sum(right) / len(right), len(right)),
    }


def is_collapsed(majority: float, constant: float, accuracy: float, examples: int) -> bool:
    """`RULE`, from percentages."""
    chance = majority / 100
    bound = chance + math.sqrt(chance * (1 - chance) / examples)
    return constant == 100 or accuracy / 100 <= bound


def largest_share(values: Iterable[Hashable]) -> float:
    """The share of the most frequent of some values, in [0, 1]."""
    counts = Counter(values)
    return max(counts.values()) / counts.total()


def f1_of_all_positive(positive: float) -> float:
    """F1 in percent of calling everything positive, where a share `positive` in [0, 1] is: precision p, recall 1."""
    return 200 * positive / (1 + positive)
