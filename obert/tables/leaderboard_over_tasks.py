"""The leaderboard over all tasks: methods that were run on each of them, by mean recovery."""

import math
from functools import partial
from itertools import permutations

import pandas as pd

from obert.statistics.estimates import Summary, mean_over_tasks
from obert.statistics.formatting import DASH, format_difference, format_number, format_summary
from obert.tables import Note, Results, Table
from obert.tables._chance import RULE as RECOVERY
from obert.tables._chance import Scale
from obert.tables._measured import DENSE, Group, groups, score
from obert.tables._ranking import (
    DIFFERENCE,
    RULE,
    blocks,
    difference_columns,
    differences,
    fewest_seeds,
    pool_notes,
    rank_text,
    ranks,
    texts_by_row,
)
from obert.tables._scopes import SPARSITIES, encoder_sparsity, is_wide, whole_sparsity

COLUMNS = (
    "sparsity", "recipe", "family", "rank", "rank_seeds", "method", "recovery_mean", "recovery_std", "n", *DIFFERENCE,
    "mean_rank",
)  # fmt: skip


class LeaderboardOverTasks(Table):
    """One block for each sparsity and recipe; a method that lacks a task is left out."""

    title = "Leaderboard over tasks"
    caption = (
        f"{RECOVERY} It is averaged over all tasks: mean ± sample standard deviation over the n seeds that every task "
        "has. The difference to the best is in points of recovery; its interval is over the seeds and examples "
        f"of each task. {RULE} The mean rank averages a method's ranks on the single tasks. Dense "
        "scores and chance are taken as exact. Seconds (of pruning and training) and sparsities as measured are means "
        "over tasks and seeds."
    )

    section = "Leaderboards"
    headed_by = ("sparsity %", "recipe", "terms")

    def build(self, results: Results) -> pd.DataFrame:
        tasks = _tasks(results)
        columns = [*COLUMNS, *(f"{task}_{kind}" for task in tasks for kind in ("chance", "recovery")), "seconds"]
        if len(tasks) < 2:
            return pd.DataFrame(columns=columns)
        found, rows = _by_identity(results, tasks), []
        for block in blocks(found[tasks[0]].values()):
            shared = [identity for identity in map(_identity, block) if _seeds(found, identity)]
            if shared:
                rows += _rows(results, {task: [found[task][identity] for identity in shared] for task in tasks})
        wide = any(is_wide(group) for of_task in found.values() for group in of_task.values())
        columns[-1:-1] = SPARSITIES if wide else ()  # where a recipe's scope is not the encoder alone
        return pd.DataFrame(rows, columns=columns)

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        per_row = partial(texts_by_row, content)
        shown = {
            "sparsity %": per_row(lambda s: format_number(100 * s, 1), "sparsity"),
            "recipe": content["recipe"],
            "terms": content["family"].replace("", DASH),
            "method": content["method"],
            "rank": per_row(rank_text, "rank", "rank_seeds"),
            "recovery %": per_row(format_summary, "recovery_mean", "recovery_std", "n"),
            "difference to the best": per_row(format_difference, "difference", "difference_low", "difference_high"),
            "mean rank": per_row(partial(rank_text, digits=1), "mean_rank", "rank_seeds"),
        }
        for column in content.columns:
            if column in SPARSITIES:
                shown[SPARSITIES[column]] = per_row(lambda s: format_number(100 * s, 2), column)
            elif column.endswith("_chance"):
                shown[f"{column.removesuffix('_chance')} chance"] = per_row(lambda v: format_number(v, 1), column)
            elif column.endswith("_recovery"):
                shown[f"{column.removesuffix('_recovery')} %"] = per_row(lambda v: format_number(v, 1), column)
        shown["seconds"] = per_row(lambda v: format_number(v, 0), "seconds")
        return pd.DataFrame(shown)

    def notes(self, results: Results) -> tuple[Note, ...]:
        tasks = _tasks(results)
        if len(tasks) < 2:
            return (
                Note("This leaderboard needs two tasks or more with compressed models and a dense one above chance."),
            )
        planned = {task: {_identity(group) for group in groups(results, task)} for task in tasks}
        everywhere, found = set.intersection(*planned.values()), _by_identity(results, tasks)
        left_out = {
            "because a task lacks them": set.union(*planned.values()) - everywhere,
            "because no seed is on every task": {each for each in everywhere if not _seeds(found, each)},
        }
        return (*pool_notes(results), *(_left_out(rows, why) for why, rows in left_out.items() if rows))


def _tasks(results: Results) -> list[str]:
    """Tasks with a dense score above chance to compare with, and runs."""
    return [task for task in results.tasks if Scale.of(results, task).length > 0 and groups(results, task)]


def _by_identity(results: Results, tasks: list[str]) -> dict[str, dict[tuple, Group]]:
    """By task, the groups that have a score, by what they are."""
    return {task: {_identity(group): group for group in groups(results, task) if group.score.n} for task in tasks}


def _identity(group: Group) -> tuple:
    return group.sparsity, group.key.recipe, group.key.method or ""


def _seeds(found: dict[str, dict[tuple, Group]], identity: tuple) -> set[int]:
    """The seeds of a row that have a score on every task; none where a task lacks the row."""
    own = [of_task[identity].records if identity in of_task else () for of_task in found.values()]
    return set.intersection(*({r.key.seed for r in records if not math.isnan(score(r))} for records in own))


def _left_out(identities: set[tuple], why: str) -> Note:
    lines = tuple(f"{recipe}: {method or DENSE}, {100 * (s or 0):g} %" for s, recipe, method in sorted(identities))
    return Note(f"{len(lines)} rows are left out, {why}:", lines)


def _rows(results: Results, found: dict[str, list[Group]]) -> list[dict]:
    """A block's rows, best first. Each task has the same methods in the same order."""
    scales = {task: Scale.of(results, task) for task in found}
    by_method = list(zip(*found.values(), strict=True))
    rows = [_row(members, list(scales.values())) for members in by_method]
    pairs = {task: differences(results, of_task, seed) for seed, (task, of_task) in enumerate(found.items())}
    over_tasks = {
        pair: mean_over_tasks([pairs[task][pair].scaled(100 / scales[task].length) for task in found])
        for pair in permutations(range(len(rows)), 2)
    }
    order = sorted(range(len(rows)), key=lambda i: (-rows[i]["recovery_mean"], rows[i]["method"]))
    if len(rows) > 1:
        overall = ranks(len(rows), over_tasks)
        seeds = [min(of_method) for of_method in zip(*map(fewest_seeds, found.values()), strict=True)]
        single = [ranks(len(rows), of_task) for of_task in pairs.values()]
        for i, row in enumerate(rows):
            row |= {
                "rank": overall[i],
                "rank_seeds": seeds[i],
                "mean_rank": sum(of_task[i] for of_task in single) / len(single),
            }
            if i != order[0]:
                row |= difference_columns(over_tasks[i, order[0]])
    return [rows[i] for i in order]


def _row(members: tuple[Group, ...], scales: list[Scale]) -> dict:
    """One method's groups of all tasks as a row."""
    group = members[0]
    placed = list(zip(members, scales, strict=True))
    of_task = [{r.key.seed: scale.recovery(score(r)) for r in g.records} for g, scale in placed]
    seeds = sorted(set.intersection(*map(set, of_task)))
    over_tasks = Summary.of(sum(of_seed[s] for of_seed in of_task) / len(of_task) for s in seeds)
    row = {
        "sparsity": group.sparsity,
        "recipe": group.key.recipe,
        "family": group.records[0].family,
        "method": group.method,
        "recovery_mean": over_tasks.mean,
        "recovery_std": over_tasks.std,
        "n": over_tasks.n,
        "encoder_sparsity": Summary.of(encoder_sparsity(g) for g in members).mean,
        "whole_model_sparsity": Summary.of(whole_sparsity(g) for g in members).mean,
        "seconds": Summary.of(g.mean("pruning_seconds", "training_seconds") for g in members).mean,
    }
    for group, scale in placed:
        row[f"{group.key.task}_chance"] = scale.chance
        row[f"{group.key.task}_recovery"] = scale.recovery(group.score.mean)
    return row
