"""Ranks of methods that share a recipe and a sparsity, from the paired bootstrap, and what takes part."""

import math
from collections.abc import Callable, Iterable
from dataclasses import astuple
from itertools import permutations

import numpy as np
import pandas as pd

from obert.foundation.errors import UserError
from obert.records.record import Record
from obert.statistics.estimates import (
    RESAMPLES,
    Resampled,
    bootstrap,
    check_same_examples,
)
from obert.statistics.formatting import format_number
from obert.statistics.simultaneous import are_positive
from obert.tables import Note, Results
from obert.tables._engines import machine_text
from obert.tables._measured import Group, epochs_of, epochs_text, groups

RULE = (
    "A method's rank is 1 plus the number of methods that are better than it. A method is better if the interval of "
    "the paired difference, over the seeds that both have and the examples, lies above 0; all such intervals of a "
    "recipe and sparsity hold at once with 95 % confidence. Methods that cannot be told apart share a rank. One seed: "
    "another seed may give another order, as the interval is over examples alone. A shown interval is of its "
    "difference alone, and wide where there are few seeds."
)
DIFFERENCE = ("difference", "difference_low", "difference_high")  # to the best, as columns
Pairs = dict[tuple[int, int], Resampled]


def blocks(found: Iterable[Group]) -> list[list[Group]]:
    """Groups that are compared with each other: those of one sparsity and recipe, best first, best recipe first."""
    blocks: dict[tuple, list[Group]] = {}
    for group in found:
        blocks.setdefault((group.sparsity, group.key.recipe), []).append(group)
    ranked = [sorted(block, key=_by_score) for block in blocks.values()]
    return sorted(ranked, key=lambda block: (block[0].sparsity, *_by_score(block[0])))


def _by_score(group: Group) -> tuple:
    mean = group.score.mean
    return (math.inf if math.isnan(mean) else -mean, group.key.recipe, group.method)


def differences(results: Results, block: list[Group], seed: int = 0) -> Pairs:
    """By ordered pair of positions in a block: how much higher the first scores, over the seeds and examples of both.

    Args:
        seed: of the generator that resamples.

    Raises:
        UserError: two runs were not judged on the same examples.
    """
    terms = [{r.key.seed: t for r in g.records if (t := results.terms(r.key)) is not None} for g in block]
    shared = {(i, j): tuple(sorted(set(terms[i]) & set(terms[j]))) for i, j in permutations(range(len(block)), 2)}
    wanted = dict.fromkeys((i, seeds) for pair, seeds in shared.items() if seeds for i in pair)
    pooled = {(i, seeds): [terms[i][s] for s in seeds] for i, seeds in wanted}
    for i, seeds in pooled:
        first = next(iter(pooled))
        try:
            for table in pooled[i, seeds]:
                check_same_examples(pooled[first][0], table)
        except UserError as error:
            raise UserError(f"{block[i].key.path} against {block[first[0]].key.path}: {error}") from None
    means = dict(zip(pooled, _bootstrap(results, block, list(pooled.values()), seed), strict=True))
    unknown = np.full(RESAMPLES, math.nan)
    return {
        (i, j): means[i, seeds] - means[j, seeds]
        if seeds
        else Resampled(block[i].score.mean - block[j].score.mean, unknown)
        for (i, j), seeds in shared.items()
    }


def _bootstrap(results: Results, block: list[Group], pooled: list[list[pd.DataFrame]], seed: int) -> list[Resampled]:
    """The primary metric of each pool of seeds over the same resamples."""
    are_scores = all(table.shape[1] == 1 for tables in pooled for table in tables)
    return bootstrap(pooled, _mean_score if are_scores else results.metric(block[0].key), seed)


def _mean_score(terms: np.ndarray) -> np.ndarray:
    return terms[..., 0]


def difference_columns(resampled: Resampled) -> dict[str, float]:
    """A difference with its interval, by the columns that hold it."""
    return dict(zip(DIFFERENCE, astuple(resampled.interval()), strict=True))


def ranks(count: int, pairs: Pairs) -> list[int]:
    """Of each position in a block: 1 plus the number of those that are better than it, judged all at once."""
    is_better = dict(zip(pairs, are_positive(list(pairs.values()), count), strict=True))
    return [1 + sum(is_better[i, j] for i in range(count) if i != j) for j in range(count)]


def fewest_seeds(block: list[Group]) -> list[int]:
    """Of each position in a block: the fewest seeds that it has in common with another one."""
    seeds = [{record.key.seed for record in group.records} for group in block]
    return [min(len(own & other) for j, other in enumerate(seeds) if j != i) for i, own in enumerate(seeds)]


def rank_text(rank: float, seeds: float, digits: int = 0) -> str:
    """E.g. "2"; "2 (one seed)" where a comparison that it is from is over one seed."""
    text = format_number(rank, digits)
    return text if math.isnan(rank) or seeds > 1 else f"{text} ({'one' if seeds == 1 else 'no common'} seed)"


def texts_by_row(content: pd.DataFrame, text: Callable[..., str], *columns: str) -> list[str]:
    """The text of each row, from its values in some columns."""
    return [text(*values) for values in content[list(columns)].itertuples(index=False)]


def pool_notes(results: Results) -> tuple[Note, ...]:
    """What is compared: tasks, methods, seeds, budgets and hardware. No note without runs."""
    found = {task: groups(results, task) for task in results.tasks}
    members = [group for of_task in found.values() for group in of_task]
    if not members:
        return ()
    records = [record for group in members for record in group.records]
    budgets: dict[str, set] = {}
    for record in records:
        budgets.setdefault(record.key.recipe, set()).add(epochs_of(record))
    parts = [
        f"tasks {_listed(task for task, of_task in found.items() if of_task)}",
        f"methods {_listed(sorted({group.method for group in members}))}",
        f"seeds {_listed(sorted({r.key.seed for r in records}))}",
        f"budgets {_listed(f'{recipe} {epochs_text(epochs)}' for recipe, epochs in budgets.items())}",
        f"made on {_hardware(records)}",
    ]
    timed = results.of_stage("benchmark")
    if timed:
        parts.append(f"timed on {' / '.join(dict.fromkeys(map(machine_text, timed)))}")
    return (Note(f"Compared here (the pool): {'; '.join(parts)}."),)


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _hardware(records: Iterable[Record]) -> str:
    """The machines of some runs, with the threads of a run."""
    found = {}
    for record in records:
        said = record.environment
        device = said.get("gpu") or said.get("cpu") or "unknown hardware"
        found[f"{device}, {record.threads} thread{'' if record.threads == 1 else 's'}"] = None
    return " / ".join(found)
