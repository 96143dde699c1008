"""The leaderboard: every method ranked on equal terms, with its cost, size and speed."""

import math
from functools import partial

import pandas as pd

from obert.statistics.formatting import DASH, format_difference, format_number, format_summary
from obert.tables import Note, Results, Table
from obert.tables._chance import RULE as RECOVERY
from obert.tables._chance import Scale
from obert.tables._engines import (
    DENSE_THROUGHPUT,
    MARK,
    OVER,
    SPEEDUP,
    THROUGHPUT,
    UNDER_LOAD,
    engine_notes,
    engines_of,
    marked,
    size_and_speed,
)
from obert.tables._measured import DENSE, Group, groups, metric_of, scale_text
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
    "task", "metric", "sparsity_target", "sparsity_measured", "rank", "rank_seeds", "method", "recipe", "family",
    "score_mean", "score_std", "n", "chance", "recovery", *DIFFERENCE, "size_gzip_mb",
)  # fmt: skip
SPEEDS = (THROUGHPUT, DENSE_THROUGHPUT, SPEEDUP)
COSTS = ("training_steps", "gradient_evaluations", "seconds")


class Leaderboard(Table):
    """Per task and target sparsity, recipe by recipe, ranked by the mean over seeds."""

    title = "Leaderboard"
    caption = (
        f"Scores are in percent: mean ± sample standard deviation over n seeds. {RECOVERY} A method is compared with "
        f"others of the same task, sparsity and recipe, seed by seed and example by example. {RULE} A method without a "
        "rival has no rank. Size is that of the gzipped model in MB (10^6 bytes). Throughput is in examples per second "
        f"and speed-up {OVER}, whose throughput there stands beside it; all of the first seed. {MARK}: timed while the "
        "machine was busy with something else. Steps, gradient evaluations and seconds (of pruning and training) are "
        "means over seeds."
    )

    section = "Leaderboards"
    split_by = ("task", "metric")
    headed_by = ("sparsity %", "recipe", "terms")

    def build(self, results: Results) -> pd.DataFrame:
        engines = engines_of(results)
        rows = []
        for task in results.tasks:
            dense, scale = results.dense(task), Scale.of(results, task)
            if dense is not None:
                rows.append(_row(results, Group.of([dense]), scale, engines))
            for block in blocks(groups(results, task)):
                rows.extend(_block_rows(results, block, scale, engines))
        wide = any(is_wide(group) for task in results.tasks for group in groups(results, task))
        parts = SPARSITIES if wide else ()  # where a recipe's scope is not the encoder alone
        columns = [*COLUMNS, *parts, *(f"{e}{kind}" for e in engines for kind in SPEEDS)]
        columns += [*([UNDER_LOAD] if engines else ()), *COSTS]
        return pd.DataFrame(rows, columns=columns)

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        per_row = partial(texts_by_row, content)
        shown = {
            "task": content["task"],
            "metric": content["metric"],
            "sparsity %": per_row(lambda s: format_number(100 * s, 1), "sparsity_target"),
            "recipe": content["recipe"],
            "terms": content["family"].replace("", DASH),
            "method": content["method"],
            "rank": per_row(rank_text, "rank", "rank_seeds"),
            "score": per_row(format_summary, "score_mean", "score_std", "n"),
            "chance": per_row(lambda c: format_number(c, 1), "chance"),
            "recovery %": per_row(lambda r: format_number(r, 1), "recovery"),
            "difference to the best": per_row(format_difference, "difference", "difference_low", "difference_high"),
            "measured %": per_row(lambda s: format_number(100 * s, 2), "sparsity_measured"),
            "gzip MB": per_row(lambda s: format_number(s, 1), "size_gzip_mb"),
        }
        for column in content.columns:
            if column in SPARSITIES:
                shown[SPARSITIES[column]] = per_row(lambda s: format_number(100 * s, 2), column)
            elif column.endswith(DENSE_THROUGHPUT):
                name = f"{column.removesuffix(DENSE_THROUGHPUT)}: dense ex/s"
                shown[name] = per_row(lambda v: format_number(v, 1), column)
            elif column.endswith(THROUGHPUT):
                shown[f"{column.removesuffix(THROUGHPUT)} ex/s"] = per_row(_speed, column, UNDER_LOAD)
            elif column.endswith(SPEEDUP):
                shown[f"{column.removesuffix(SPEEDUP)} speed-up"] = per_row(_times, column, UNDER_LOAD)
        shown["steps"] = per_row(lambda v: format_number(v, 0), "training_steps")
        shown["gradients"] = per_row(lambda v: format_number(v, 0), "gradient_evaluations")
        shown["seconds"] = per_row(lambda v: format_number(v, 0), "seconds")
        return pd.DataFrame(shown)

    def variants(self, content: pd.DataFrame) -> list[str]:
        found = content[["task", "recipe", "method", "sparsity_target"]].itertuples(index=False)
        return [f"{t}/{r}/{m}" if m == DENSE else f"{t}/{r}/{m}-{s:g}" for t, r, m, s in found]

    def notes(self, results: Results) -> tuple[Note, ...]:
        notes = list(pool_notes(results))
        if scale_text(results):
            notes.append(Note(f"Measured with {scale_text(results)}."))
        notes.extend(engine_notes(results))
        if results.missing:
            commands = tuple(results.command(key) for key in results.missing)
            text = f"{len(commands)} of {len(results.planned)} planned runs have no record yet. To make them:"
            notes.append(Note(text, commands))
        return tuple(notes)


def _speed(value: float, under_load: object) -> str:
    return marked(format_number(value, 1), under_load)


def _times(value: float, under_load: object) -> str:
    return DASH if math.isnan(value) else marked(f"{value:.2f}×", under_load)  # noqa: RUF001


def _row(results: Results, group: Group, scale: Scale, engines: list[str]) -> dict:
    key, first = group.key, group.records[0]
    measured = [r.sparsity for r in group.records if r.sparsity is not None]
    unknown = math.nan if key.method else 0.0
    return {
        "task": key.task,
        "metric": metric_of(results, key.task),
        "sparsity_target": group.sparsity,
        "sparsity_measured": _mean([sparsity.measured for sparsity in measured], unknown),
        "encoder_sparsity": encoder_sparsity(group),
        "whole_model_sparsity": whole_sparsity(group),
        "method": group.method,
        "recipe": key.recipe,
        "family": first.family,
        **group.score_columns,
        "chance": scale.chance,
        "recovery": scale.recovery(group.score.mean),
        "training_steps": group.mean("optimizer_steps"),
        "gradient_evaluations": group.mean("gradient_evaluations"),
        "seconds": group.mean("pruning_seconds", "training_seconds"),
    } | size_and_speed(results, key, engines)


def _mean(values: list[float], unknown: float) -> float:
    return sum(values) / len(values) if values else unknown


def _block_rows(results: Results, block: list[Group], scale: Scale, engines: list[str]) -> list[dict]:
    rows = [_row(results, group, scale, engines) for group in block]
    scored = [group for group in block if group.score.n]
    if len(scored) > 1:
        pairs = differences(results, scored)
        placed = zip(ranks(len(scored), pairs), fewest_seeds(scored), strict=True)
        for position, (rank, seeds) in enumerate(placed):
            rows[position] |= {"rank": rank, "rank_seeds": seeds}
            if position:
                rows[position] |= difference_columns(pairs[position, 0])
    return rows
