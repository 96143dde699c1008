"""Rules by which schedules scale with the sparsity, against one another: what each costs, and what it scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from obert.experiment.scaling import Scaling as Rule
from obert.statistics.formatting import format_number, format_summary
from obert.tables import Note, Results, Table
from obert.tables._collapsed import COLLAPSED, collapsed_runs, collapsed_text
from obert.tables._measured import Group, groups, metric_of, recipe_of, scale_text
from obert.tables._ranking import texts_by_row
from obert.tables._scopes import scope_name

if TYPE_CHECKING:
    from obert.experiment.plan import Plan

ALIKE = ("method", "scope", "distillation")  # what a rule shares with those that it is compared with
COLUMNS = (
    "task", "metric", *ALIKE, "rule", "sparsity", "recipe", "cycles", "epochs", "steps", "hours", "mean", "std", "n",
    *COLLAPSED,
)  # fmt: skip
RULES = ("constant", "linear", "density", "table")


class Scaling(Table):
    """A row a rule and sparsity."""

    title = "Schedules that scale with the sparsity"
    caption = (
        "Mean ± sample standard deviation over n seeds. The rule says how many cycles, each the dense schedule of the "
        "learning rate, a run to sparsity s has. Constant: the same number for every s; a schedule that does not scale "
        "is one, with the cycles of its learning rate. Linear a: 1 + a s, rounded up. Density r: one, and one for each "
        "time that a share r of the weights left is pruned, rounded up. Equal compute is the control for longer "
        "training: each s has the largest or the mean number of the sparsities in the control; where that is the "
        "rule's own, both rows are the same runs. Optimiser steps and hours of training and pruning are means over "
        "seeds. Collapsed runs are no better than chance, of those for which that is known."
    )

    section = "Training and sparsity"
    split_by = ("task", "metric")
    headed_by = ALIKE

    @classmethod
    def concerns(cls, plan: Plan) -> bool:
        return any(run.recipe is not None and run.recipe.scaling is not None for run in plan)

    def build(self, results: Results) -> pd.DataFrame:
        rows = []
        for task in results.tasks:
            found = [(group, _scaling(group)) for group in groups(results, task, "downstream") if group.epochs]
            rows += [_row(results, *each) for each in sorted((*found, *_shared(found)), key=lambda each: _order(*each))]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def display(self, content: pd.DataFrame) -> pd.DataFrame:
        per_row = partial(texts_by_row, content)
        return pd.DataFrame(
            {
                **{name: content[name] for name in ("task", "metric", *ALIKE, "rule")},
                "sparsity %": per_row(lambda s: format_number(100 * s, 1), "sparsity"),
                "recipe": content["recipe"],
                "cycles": per_row(lambda c: format_number(c, 0), "cycles"),
                "epochs": per_row(lambda e: format_number(e, 2), "epochs"),
                "steps": per_row(lambda s: format_number(s, 0), "steps"),
                "hours": per_row(lambda h: format_number(h, 3), "hours"),
                "score": per_row(format_summary, "mean", "std", "n"),
                "collapsed": per_row(collapsed_text, *COLLAPSED, "n"),
            }
        )

    def notes(self, results: Results) -> tuple[Note, ...]:
        notes = [Note(f"Measured with {scale_text(results)}.")] if scale_text(results) else []
        if not any(_scaling(group) for task in results.tasks for group in groups(results, task, "downstream")):
            notes.append(Note("No finished run has a recipe with 'scaling'."))
        return tuple(notes)


def _scaling(group: Group) -> dict[str, Any] | None:
    return recipe_of(group.records[0]).get("scaling")


def _alike(group: Group) -> tuple[str, str, str]:
    recipe = recipe_of(group.records[0])
    return group.method, scope_name(recipe), _distillation(recipe.get("distillation"))


def _distillation(distillation: dict[str, float] | None) -> str:
    return "h = {hardness:g}, T = {temperature:g}".format(**distillation) if distillation else "none"


def _cycles(group: Group, scaling: dict[str, Any] | None) -> int:
    if scaling is not None:
        return Rule.model_validate(scaling).cycles_at(group.sparsity)
    rate = recipe_of(group.records[0])["training"].get("learning_rate") or {}
    return 1 + len(rate.get("rewind_epochs", ()))


def _shared(found: Iterable[tuple[Group, dict[str, Any] | None]]) -> Iterator[tuple[Group, dict[str, Any]]]:
    """Runs that are also those of a control, which gives their sparsity the number of cycles that it has anyway."""
    pairs = [(group, scaling) for group, scaling in found if scaling is not None]
    controls = {(_alike(group), str(scaling)): scaling for group, scaling in pairs if "equal_compute" in scaling}
    for (alike, _), control in controls.items():
        own = {name: value for name, value in control.items() if name != "equal_compute"}
        done = {group.sparsity for group, scaling in pairs if scaling == control and _alike(group) == alike}
        for group, scaling in pairs:
            of = group.sparsity in set(control["equal_compute"]["of"]) - done
            if of and scaling == own and _alike(group) == alike and _cycles(group, own) == _cycles(group, control):
                yield group, control


def _named(group: Group, scaling: dict[str, Any] | None) -> str:
    """The rule in words."""
    if scaling is None:
        return f"constant {_cycles(group, scaling)}"
    ((rule, number),) = scaling["cycles"].items()
    named = rule if isinstance(number, dict) else f"{rule} {number:g}"
    control = scaling.get("equal_compute")
    return f"{named}, equal compute ({control['length']})" if control else named


def _row(results: Results, group: Group, scaling: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "task": group.key.task,
        "metric": metric_of(results, group.key.task),
        **dict(zip(ALIKE, _alike(group), strict=True)),
        "rule": _named(group, scaling),
        "sparsity": group.sparsity,
        "recipe": group.key.recipe,
        "cycles": _cycles(group, scaling),
        "epochs": group.epochs,
        "steps": group.mean("optimizer_steps"),
        "hours": group.hours,
        "mean": group.score.mean,
        "std": group.score.std,
        "n": group.score.n,
        **collapsed_runs(results, group),
    }


def _order(group: Group, scaling: dict[str, Any] | None) -> tuple:
    """What is alike together, rules by kind, a control behind its rule."""
    kind = next(iter(scaling["cycles"])) if scaling is not None else "constant"
    return *_alike(group), RULES.index(kind), _named(group, scaling), group.sparsity, group.key.recipe
