"""Which sparsity is tried next: halves of what is left, in the logarithm of the weights that stay."""

from __future__ import annotations

import math

MOST = 0.99  # above this nothing is looked for
NEAR = 1.15  # weights that stay at one sparsity over those at another: nearer ones are not told apart


def between(kept: float, lost: float) -> float | None:
    """A sparsity in whole percent between one that is good enough and one that is not; None if they are near.

    As many weights stay as is the geometric mean of what stays at the two: 90 % lies in the middle of 0 and 99 %.
    """
    if 1 - kept < NEAR * (1 - lost):
        return None
    middle = 1 - math.sqrt((1 - kept) * (1 - lost))
    tried = round(100 * middle) / 100
    return tried if kept < tried < lost else None
