"""Collapsed models: classifiers that answer the same whatever they are asked, or no better than chance."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

RULE = (
    "A run is collapsed if it gives one answer to everything, or if its accuracy is at most one standard error, "
    "sqrt(c (1 - c) / examples), above chance c: an equal share for each choice of a question, and the share of the "
    "most frequent class for a classification task."
)


def collapse(
    answers: Sequence[Hashable], labels: Sequence[Hashable], right: Sequence[bool], chance: float | None = None
) -> dict[str, float | bool]:
    """Whether a model has collapsed, and by what that is judged (`RULE`).

    Args:
        answers, labels: what is given and what is true, one each an example, of which there is at least one.
        right: whether an answer counts as right.
        chance: accuracy without knowledge, in [0, 1]; by default the share of the most frequent label.

    Returns:
        `majority_rate`, the percentage of the most frequent label, `constant_rate`, that of the most frequent answer,
        and `collapsed`.
    """
    majority, constant = largest_share(labels), largest_share(answers)
    return {
        "majority_rate": 100 * majority,
        "constant_rate": 100 * constant,
        "collapsed": constant == 1 or _is_at(majority if chance is None else chance, right),
    }


def largest_share(values: Iterable[Hashable]) -> float:
    """The share of the most frequent of some values, in [0, 1]."""
    counts = Counter(values)
    return max(counts.values()) / counts.total()


def _is_at(chance: float, right: Sequence[bool]) -> bool:
    return sum(right) / len(right) <= chance + math.sqrt(chance * (1 - chance) / len(right))
