"""The ladder from SMC-Bench's setting to all guidelines of "How to Prune Your Language Model", and each left out."""

import math
from dataclasses import astuple
from functools import partial

import pandas as pd

from obert.statistics.collapse import RULE
from obert.statistics.formatting import DASH, format_difference, format_number, format_summary
from obert.tables import Note, Results, Table
from obert.tables._collapsed import COLLAPSED, collapsed_runs, collapsed_text
from obert.tables._guidelines import PAPER, STEPS, Place, claim_notes, place_of, sparsities
from obert.tables._measured import Group, groups, metric_of, scale_text
from obert.tables._ranking import Pairs, differences, texts_by_row
from obert.tables._scopes import SPARSITIES

REFERENCES = {  # by the prefix of their columns
    "before": "to the step before",
    "full": "to all guidelines",
    "smc": "to as in SMC-Bench",
}
BOUNDS = ("", "_low", "_high")
COLUMNS = (
    "task", "metric", "sparsity", "step", "guidelines", "recipe", "method", "score_mean", "score_std", "n", *COLLAPSED,
    *SPARSITIES, "training_steps", "hours",
    *(f"{reference}{bound}" for reference in REFERENCES for bound in BOUNDS),
)  # fmt: skip
Member = tuple[Place, Group]


class Ladder(Table):
    """Rows are recipes and methods, by task and sparsity; what a recipe follows is read from its specification."""

    title = "From SMC-Bench's setting to the guidelines, one step at a time"
    caption = (
        "Gradual pruning. As in SMC-Bench: magnitude, every weight matrix in scope, a schedule of one length, no "
        "distillation. Each + adds a guideline to the row above: the encoder alone is pruned (scope), schedules that "
        "grow with the sparsity (schedule), distillation, and oBERT in the place of magnitude. All but: the others "
        "without that one, with the method named. Scores in percent: mean ± sample standard deviation over n seeds. "
        "Differences, in points, are to the nearest earlier step, to all guidelines with the same method, and to the "
        "first step, with the 95 % interval over the seeds that both have and the examples; of one "
        f"seed it does not say how another would do. {RULE} Hours are of training and pruning."
    )

    section = "How to prune a language model"
    paper = PAPER
    split_by = ("task", "metric")
    headed_by = ("sparsity %",)

    def build(self, results: Results) -> pd.DataFrame:
        rows = []
        for task in results.tasks:
            for members in _by_sparsity(results, task):
                rows += _rows(results, members)
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        per_row = partial(texts_by_row, content)
        shown = {
            "task": content["task"],
            "metric": content["metric"],
            "sparsity %": per_row(lambda s: format_number(100 * s, 1), "sparsity"),
            "guidelines": content["guidelines"],
            "recipe": content["recipe"],
            "method": content["method"],
            "score": per_row(format_summary, "score_mean", "score_std", "n"),
            "collapsed": per_row(collapsed_text, *COLLAPSED, "n"),
            **{words: per_row(lambda s: format_number(100 * s, 2), name) for name, words in SPARSITIES.items()},
            "steps": per_row(lambda v: format_number(v, 0), "training_steps"),
            "hours": per_row(lambda v: format_number(v, 3), "hours"),
        }
        for reference, words in REFERENCES.items():
            shown[words] = per_row(format_difference, *(f"{reference}{bound}" for bound in BOUNDS))
        return pd.DataFrame(shown)

    def variants(self, content: pd.DataFrame) -> list[str]:
        found = content[["task", "recipe", "method", "sparsity"]].itertuples(index=False)
        return [f"{task}/{recipe}/{method}-{sparsity:g}" for task, recipe, method, sparsity in found]

    def notes(self, results: Results) -> tuple[Note, ...]:
        content = self.build(results)
        notes = [*claim_notes(results), *_overall(content)]
        if content.empty:
            notes.append(Note("No run is pruned gradually by magnitude or oBERT on a task."))
        elif scale_text(results):
            notes.append(Note(f"Measured with {scale_text(results)}."))
        return tuple(notes)


def _by_sparsity(results: Results, task: str) -> list[list[Member]]:
    """What stands on the ladder or beside it, steps first; a list a sparsity."""
    found: dict[float, list[Member]] = {}
    for group in groups(results, task, "downstream"):
        place = place_of(group.records[0])
        if place is not None and group.sparsity:
            found.setdefault(group.sparsity, []).append((place, group))
    return [sorted(found[sparsity], key=_order) for sparsity in sorted(found)]


def _order(member: Member) -> tuple:
    place, _ = member
    step = len(STEPS) if place.step is None else place.step
    return step, place.left_out is None, place.control or ""


def _rows(results: Results, members: list[Member]) -> list[dict]:
    scored = [position for position, (_, group) in enumerate(members) if group.score.n]
    pairs = differences(results, [members[position][1] for position in scored]) if len(scored) > 1 else {}
    pairs = {(scored[i], scored[j]): difference for (i, j), difference in pairs.items()}
    return [_row(results, place, group) | _differences(position, members, pairs)
            for position, (place, group) in enumerate(members)]  # fmt: skip


def _differences(position: int, members: list[Member], pairs: Pairs) -> dict[str, float]:
    found = {}
    for reference, other in zip(REFERENCES, _references(position, [place for place, _ in members]), strict=True):
        difference = pairs.get((position, other))
        if difference is not None:
            names = (f"{reference}{bound}" for bound in BOUNDS)
            found |= dict(zip(names, astuple(difference.interval()), strict=True))
    return found


def _references(position: int, places: list[Place]) -> tuple[int | None, int | None, int | None]:
    """What a row is compared with, in the order of REFERENCES; of several recipes, the first of the experiment."""
    own = places[position]
    firsts: dict[int, int] = {}
    for other, place in enumerate(places):
        if place.step is not None:
            firsts.setdefault(place.step, other)
    earlier = [step for step in firsts if own.step is not None and step < own.step]
    full = next((i for i, place in enumerate(places) if place.is_full and place.method == own.method), None)
    smc = firsts.get(0)
    return (
        firsts[max(earlier)] if earlier else None,
        None if own.is_full else full,
        None if own.step == 0 else smc,
    )


def _row(results: Results, place: Place, group: Group) -> dict:
    return {
        "task": group.key.task,
        "metric": metric_of(results, group.key.task),
        "sparsity": group.sparsity,
        "step": math.nan if place.step is None else place.step,
        "guidelines": place.label,
        "recipe": group.key.recipe,
        "method": group.method,
        **group.score_columns,
        **collapsed_runs(results, group),
        **sparsities(group),
        "training_steps": group.mean("optimizer_steps"),
        "hours": group.hours,
    }


def _overall(content: pd.DataFrame) -> list[Note]:
    """Of each task: magnitude by all guidelines against the first step, at the highest sparsity that has both."""
    notes = []
    both = content[(content["step"] == STEPS.index("+ distillation")) & content["smc"].notna()]
    for task, rows in both.groupby("task", sort=False):
        row = rows.loc[rows["sparsity"].idxmax()]
        first = content[(content["task"] == task) & (content["sparsity"] == row["sparsity"]) & (content["step"] == 0)]
        difference = format_difference(*(row[f"smc{bound}"] for bound in BOUNDS))
        gone = [
            collapsed_text(*one) or DASH
            for one in ((r["collapsed"], r["judged"], r["n"]) for r in (row, first.iloc[0]))
        ]
        notes.append(Note(
            f"{task}, {100 * row['sparsity']:g} %, the highest sparsity of both: gradual magnitude by the guidelines "
            f"against as in SMC-Bench: {difference} points (collapsed: {gone[0]} against {gone[1]})."
        ))  # fmt: skip
    return notes
