"""Which models of a Pareto front the intervals separate: those that its line joins."""

from collections.abc import Callable, Sequence

import pandas as pd

from obert.tables import Results
from obert.tables._measured import groups
from obert.tables._pareto import FRONT, JOINED, dense_group
from obert.tables._ranking import differences

Compare = Callable[[int, int], bool]


def separated(order: Sequence[int], is_better: Compare, has_more: Compare) -> list[int]:
    """The longest chain of points of which each has a better score, and the one before it more gain, beyond doubt.

    Of chains that are as long it is the one whose points come first.

    Args:
        order: points of a front, most gain first.
        is_better: whether the first of two has a better score beyond doubt.
        has_more: whether the first of two has more gain beyond doubt.
    """
    chains: list[list[int]] = []  # the longest that ends at each point
    for point in order:
        before = (c for c in chains if has_more(c[-1], point) and is_better(point, c[-1]))
        chains.append([*max(before, key=len, default=[]), point])
    return max(chains, key=len, default=[])


def mark_separated(
    results: Results, points: pd.DataFrame, gain: str, within: list[str], bounds: tuple[str, str]
) -> pd.DataFrame:
    """The points with the column JOINED.

    Args:
        points: as `mark_front` returns them, with the column `task`.
        gain: column of what the score is traded for; more is better.
        within: columns that the points of a panel share.
        bounds: columns of the gain's interval; the gain itself, twice, where it is exact.
    """
    points = points.assign(**{JOINED: False})
    for _, panel in points[points[FRONT].astype(bool)].groupby(within, sort=False):
        panel = panel.sort_values([gain, "score_mean"], ascending=False)
        task = panel["task"].iloc[0]
        of_task = (*groups(results, task), *dense_group(results, task))
        found = {(group.key.recipe, group.method, group.sparsity): group for group in of_task}
        members = [found[row] for row in panel[["recipe", "method", "sparsity"]].itertuples(index=False, name=None)]
        pairs = differences(results, members)
        low, high = (panel[bound].to_numpy(float) for bound in bounds)
        kept = separated(
            range(len(members)),
            is_better=lambda i, j, pairs=pairs: pairs[i, j].interval().is_certain,
            has_more=lambda i, j, low=low, high=high: bool(low[i] > high[j]),
        )
        points.loc[panel.index[kept], JOINED] = True
    return points
