"""How small a difference between two methods the runs of a plan will show, task by task."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from obert.experiment.plan import PlannedRun
from obert.experiment.sizes import Sizes
from obert.statistics.power import DIFFERING, POWER, SPREAD, detectable, needed_for
from obert.tasks import Task

POINTS = 1.0  # a difference that people ask for
WIDTH = 80  # of text


def run(runs: Sequence[PlannedRun]) -> str | None:
    """A line a task; None where nothing is compared.

    Args:
        runs: the chosen ones, of one experiment.
    """
    lines = list(_lines(runs))
    if not lines:
        return None
    assumed = (
        f"power: differences that are found {100 * POWER:g} times in a hundred, if two models differ on "
        f"{100 * DIFFERING:g} % of the examples, and by {SPREAD:g} points more or less over seeds:"
    )
    return "\n".join([textwrap.fill(assumed, WIDTH, subsequent_indent="    "), *lines])


def _lines(runs: Sequence[PlannedRun]) -> Iterator[str]:
    blocks: dict[str, dict[tuple, dict[str, set[int]]]] = {}
    first: dict[str, PlannedRun] = {}
    for each in runs:
        key = each.key
        if key.method is not None and key.sparsity and each.recipe is not None:
            first.setdefault(key.task, each)
            block = blocks.setdefault(key.task, {}).setdefault((key.stage, key.recipe, key.sparsity), {})
            block.setdefault(key.method, set()).add(key.seed)
    sizes = Sizes.of(runs[0].experiment)
    for task, of_task in blocks.items():
        counts = [len(set.intersection(*block.values())) for block in of_task.values() if len(block) > 1]
        if counts and min(counts) > 0:
            yield _line(first[task], sizes, min(counts))


def _line(run: PlannedRun, sizes: Sizes, seeds: int) -> str:
    task, counted = run.key.task, sizes.data_of(run)
    if type(run.task).from_terms is not Task.from_terms:
        return f"  {task}: not planned, as {run.task.primary_metric} is no mean over the examples"
    known = [run.task.eval_examples, counted and counted.validation]  # at most so many; features, one each or more
    examples = min(filter(None, known), default=None)
    more_seeds, more_examples = needed_for(POINTS, seeds)
    enough = f"{POINTS:g} point would take {more_examples:,} examples and {more_seeds} seeds"
    if seeds == 1:
        return f"  {task}: none with 1 seed, which tells nothing of others; {enough}"
    if examples is None:
        return f"  {task}: {seeds} seeds; `obert check` counts the examples; {enough}"
    return f"  {task}: {detectable(examples, seeds):.1f} points with {examples:,} examples and {seeds} seeds; {enough}"
