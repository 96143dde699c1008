"""Figure: what the score costs: against optimiser steps and hours of training and pruning."""

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from obert.tables import Results, Table
from obert.tables._figures import STYLE, empty_figure, panels, shared_legend, styles
from obert.tables._guidelines import PAPER, place_of
from obert.tables._measured import groups, metric_of, recipe_of, score

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
        "standard deviations. Hours are those of the machine that made the runs; steps do not depend on it. Names: "
        "which guidelines a recipe follows, the recipe, the method. Dashed: the dense model."
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
            looks = styles(content["series"])
            for row, (sparsity, part) in zip(axes, parts, strict=True):
                for axis, (cost, label) in zip(row, AXES.items(), strict=True):
                    _draw_panel(axis, part, cost, looks)
                    axis.set_title(f"{part['task'].iloc[0]}, {100 * sparsity:g} %")
                    axis.set_xlabel(label)
                    axis.set_ylabel(f"{part['metric'].iloc[0]} (%)")
            shared_legend(figure, "upper")
        return figure


def _draw_panel(axis, part: pd.DataFrame, cost: str, looks: dict) -> None:
    axis.axhline(part["dense"].iloc[0], color="0.35", linestyle="--", linewidth=1)
    for point in part.dropna(subset=[cost]).itertuples():
        error = None if pd.isna(point.score_std) else point.score_std
        look = looks[point.series] | {"linestyle": "none"}
        axis.errorbar(getattr(point, cost), point.score_mean, yerr=error, label=point.series, **look)
    axis.margins(x=0.15, y=0.15)
    axis.set_xlim(left=0)
