"""Figure: what the score costs: against optimiser steps and hours of training and pruning."""

import string

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from obert.tables import Results, Table
from obert.tables._figures import STYLE, method_styles
from obert.tables._guidelines import PAPER, place_of
from obert.tables._labels import label_point
from obert.tables._measured import groups, metric_of, recipe_of, score
from obert.tables._panels import empty_figure, panels, score_axes, shared_legend

COLUMNS = (
    "task", "metric", "sparsity", "series", "recipe", "method", "score_mean", "score_std", "n", "training_steps",
    "hours", "dense",
)  # fmt: skip
AXES = {"training_steps": "optimiser steps", "hours": "hours of training and pruning"}


class AccuracyVsCost(Table):
    """A row of panels a task and sparsity; one point a recipe and method."""

    title = "Score against the cost of training"
    caption = (
        "One point a recipe and method that trains while it prunes, or after: means over seeds, error bars are sample "
        "standard deviations. Hours are those of the machine that made the runs; steps do not depend on it. Colours "
        "and markers are methods. Letters are recipes, as far as they have room: which guidelines one follows, its "
        "name, the method. Dashed: the dense model."
    )

    section = "How to prune a language model"
    paper = PAPER

    def build(self, results: Results) -> pd.DataFrame:
        rows = []
        for task in results.tasks:
            for group in groups(results, task, "downstream"):
                if not group.sparsity or not recipe_of(group.records[0]).get("training"):
                    continue
                place = place_of(group.records[0])
                series = f"{group.key.recipe}: {group.method}"
                rows.append(
                    {
                        "task": task,
                        "metric": metric_of(results, task),
                        "sparsity": group.sparsity,
                        "series": series if place is None else f"{place.label}; {series}",
                        "recipe": group.key.recipe,
                        "method": group.method,
                        **group.score_columns,
                        "training_steps": group.mean("optimizer_steps"),
                        "hours": group.hours,
                        "dense": score(results.dense(task)),
                    }
                )
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def draw(self, content: pd.DataFrame) -> Figure:
        with mpl.rc_context(STYLE):
            content = content.dropna(subset=["score_mean"])
            if content.empty:
                return empty_figure()
            parts = [part for _, of_task in content.groupby("task", sort=False) for part in of_task.groupby("sparsity")]
            figure, axes = panels(len(parts), len(AXES), width=4.6, height=2.5)
            looks, letters = method_styles(content["method"]), _letters(content["series"])
            for row, (sparsity, part) in zip(axes, parts, strict=True):
                for axis, (cost, label) in zip(row, AXES.items(), strict=True):
                    _draw_panel(axis, part, cost, looks, letters)
                    axis.set_title(f"{part['task'].iloc[0]}, {100 * sparsity:g} %")
                    axis.set_xlabel(label)
                    axis.set_ylabel(f"{part['metric'].iloc[0]} (%)")
            for task in content["task"].unique():
                rows = [row for row, (_, part) in zip(axes, parts, strict=True) if part["task"].iloc[0] == task]
                score_axes(axis for row in rows for axis in row)
            named = content.drop_duplicates("series")[["series", "method"]].itertuples(index=False, name=None)
            shared_legend(
                figure,
                "upper",
                [Line2D([], [], linestyle="none", label=f"{letters[s]}: {s}", **looks[m]) for s, m in named],
            )
        return figure


def _letters(series: pd.Series) -> dict[str, str]:
    """A letter for each series, or two letters, in their order: a, b, ..., z, aa, ab."""
    names = (*string.ascii_lowercase, *(a + b for a in string.ascii_lowercase for b in string.ascii_lowercase))
    return dict(zip(series.unique(), names, strict=False))


def _draw_panel(axis, part: pd.DataFrame, cost: str, looks: dict, letters: dict[str, str]) -> None:
    axis.axhline(part["dense"].iloc[0], color="0.35", linestyle="--", linewidth=1)
    for point in part.dropna(subset=[cost]).itertuples():
        error = None if pd.isna(point.score_std) else point.score_std
        look = looks[point.method] | {"linestyle": "none"}
        axis.errorbar(getattr(point, cost), point.score_mean, yerr=error, **look)
        label_point(axis, letters[point.series], getattr(point, cost), point.score_mean)
    axis.margins(x=0.15, y=0.15)
    axis.set_xlim(left=0)
