"""The leaderboard: every method ranked on equal terms, with its cost, size and speed."""

import math

import pandas as pd

from obert.errors import UserError
from obert.plan import RunKey
from obert.records import Record
from obert.statistics import DASH, format_difference, format_number, format_summary, paired_difference, pool, summarize
from obert.tables import Base, Note, Results
from obert.tables._engines import THROUGHPUT, engine_notes, engines_of
from obert.tables._measured import Group, groups, metric_of, recovery, scale, score

COLUMNS = (
    "task", "metric", "sparsity_target", "sparsity_measured", "rank", "method", "recipe", "family", "score_mean",
    "score_std", "n", "recovery", "difference", "difference_low", "difference_high", "size_gzip_mb",
)  # fmt: skip
COSTS = ("training_steps", "gradient_evaluations", "seconds")
SPEEDUP = "_speedup"


class Leaderboard(Base):
    """Per task and target sparsity, recipe by recipe, ranked by the mean over seeds."""

    title = "Leaderboard"
    caption = (
        "Scores are percent: mean ± sample standard deviation over n seeds. Recovery is the share of the own dense "
        "model's score. Ranks and differences compare methods of the same task, sparsity and recipe: the difference "
        "to the best one with its 95 % paired-bootstrap interval over examples (scores averaged over seeds); methods "
        "whose interval contains 0 share the best one's rank, and the only method of a recipe has none. Size is the "
        "gzipped model in MB (10^6 bytes). Throughput (examples a second) and speed-up over the dense model are the "
        "first seed's. Steps, gradient evaluations and seconds (pruning and training) are means over seeds."
    )

    def build(self, results: Results) -> pd.DataFrame:
        engines = engines_of(results)
        rows = []
        for task in results.tasks:
            dense = results.dense(task)
            if dense is not None:
                rows.append(_dense_row(results, dense, engines))
            blocks = _blocks(groups(results, task))
            for block in blocks:
                rows.extend(_block_rows(results, block, score(dense), engines))
        columns = [*COLUMNS, *(f"{e}{kind}" for e in engines for kind in (THROUGHPUT, SPEEDUP)), *COSTS]
        return pd.DataFrame(rows, columns=columns)

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        def per_row(function, *columns):
            return [function(*values) for values in content[list(columns)].itertuples(index=False)]

        shown = {
            "task": content["task"],
            "metric": content["metric"],
            "sparsity %": per_row(lambda s: format_number(100 * s, 1), "sparsity_target"),
            "measured %": per_row(lambda s: format_number(100 * s, 2), "sparsity_measured"),
            "rank": per_row(lambda r: format_number(r, 0), "rank"),
            "method": content["method"],
            "recipe": content["recipe"],
            "terms": content["family"].replace("", DASH),
            "score": per_row(format_summary, "score_mean", "score_std", "n"),
            "recovery %": per_row(lambda r: format_number(r, 1), "recovery"),
            "to the best": per_row(format_difference, "difference", "difference_low", "difference_high"),
            "gzip MB": per_row(lambda s: format_number(s, 1), "size_gzip_mb"),
        }
        for column in content.columns:
            if column.endswith(THROUGHPUT):
                shown[f"{column.removesuffix(THROUGHPUT)} ex/s"] = per_row(lambda v: format_number(v, 1), column)
            elif column.endswith(SPEEDUP):
                shown[f"{column.removesuffix(SPEEDUP)} speed-up"] = per_row(_times, column)
        shown["steps"] = per_row(lambda v: format_number(v, 0), "training_steps")
        shown["gradients"] = per_row(lambda v: format_number(v, 0), "gradient_evaluations")
        shown["seconds"] = per_row(lambda v: format_number(v, 0), "seconds")
        return pd.DataFrame(shown)

    def notes(self, results: Results) -> tuple[Note, ...]:
        notes = [Note(f"Measured on {scale(results)}.")] if scale(results) else []
        notes.extend(engine_notes(results))
        if results.missing:
            commands = tuple(results.command(key) for key in results.missing)
            text = f"{len(commands)} of {len(results.planned)} planned runs have no record. They are made by:"
            notes.append(Note(text, commands))
        return tuple(notes)


def _times(value: float) -> str:
    return DASH if math.isnan(value) else f"{value:.2f}×"  # noqa: RUF001


def _blocks(found: list[Group]) -> list[list[Group]]:
    """What is compared on equal terms: groups of one sparsity and recipe, best first, best recipe first."""
    blocks: dict[tuple, list[Group]] = {}
    for group in found:
        blocks.setdefault((group.sparsity, group.key.recipe), []).append(group)
    ranked = [sorted(block, key=_by_score) for block in blocks.values()]
    return sorted(ranked, key=lambda block: (block[0].sparsity, *_by_score(block[0])))


def _by_score(group: Group) -> tuple:
    mean = group.score.mean
    return (math.inf if math.isnan(mean) else -mean, group.key.recipe, group.method)


def _speed(results: Results, key: RunKey, engines: list[str]) -> dict[str, float]:
    """Size and speed of a row's exported model, as far as they were measured."""
    chosen = {"task": key.task, "recipe": key.recipe, "method": key.method, "sparsity": key.sparsity}
    metrics = {}
    for stage in ("benchmark", "export"):
        for record in results.stage(stage, **chosen)[:1]:
            metrics |= {name: value.value for name, value in record.metrics.items()}
    row = {"size_gzip_mb": metrics.get("model_size_gzip_mb", math.nan)}
    for engine in engines:
        row |= {f"{engine}{kind}": metrics.get(f"{engine}{kind}", math.nan) for kind in (THROUGHPUT, SPEEDUP)}
    return row


def _dense_row(results: Results, dense: Record, engines: list[str]) -> dict:
    group = Group(dense.key, (dense,), summarize([score(dense)]))
    return _row(results, group, score(dense), engines)


def _row(results: Results, group: Group, dense: float, engines: list[str]) -> dict:
    key, first = group.key, group.records[0]
    measured = [r.sparsity.measured for r in group.records if r.sparsity is not None]
    return {
        "task": key.task,
        "metric": metric_of(results, key.task),
        "sparsity_target": group.sparsity,
        "sparsity_measured": sum(measured) / len(measured) if measured else math.nan if key.method else 0.0,
        "method": group.method,
        "recipe": key.recipe,
        "family": first.family,
        "score_mean": group.score.mean,
        "score_std": group.score.std,
        "n": group.score.n,
        "recovery": recovery(group.score.mean, dense),
        "training_steps": group.mean("optimizer_steps"),
        "gradient_evaluations": group.mean("gradient_evaluations"),
        "seconds": group.mean("pruning_seconds", "training_seconds"),
    } | _speed(results, key, engines)


def _block_rows(results: Results, block: list[Group], dense: float, engines: list[str]) -> list[dict]:
    rows = []
    for position, group in enumerate(block):
        row = _row(results, group, dense, engines)
        if len(block) > 1 and position == 0:
            row["rank"] = 1
        elif position > 0 and group.score.n:
            difference, low, high = _difference(results, group, block[0])
            shared = low <= 0 <= high
            row |= {"rank": 1 if shared else position + 1}
            row |= {"difference": difference, "difference_low": low, "difference_high": high}
        rows.append(row)
    return rows


def _difference(results: Results, group: Group, best: Group) -> tuple[float, float, float]:
    """Difference to the best with its interval, over the seeds both have; without predictions, of the means alone."""
    seeds = {r.key.seed: r.key for r in best.records}
    pairs = [(results.scores(r.key), results.scores(seeds[r.key.seed])) for r in group.records if r.key.seed in seeds]
    pairs = [pair for pair in pairs if pair[0] is not None and pair[1] is not None]
    if not pairs:
        return group.score.mean - best.score.mean, math.nan, math.nan
    try:
        found = paired_difference(pool(first for first, _ in pairs), pool(second for _, second in pairs))
    except UserError as error:
        raise UserError(f"{group.key.path} against {best.key.path}: {error}") from None
    return found.mean, found.low, found.high
