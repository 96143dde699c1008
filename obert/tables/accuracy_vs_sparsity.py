"""Figure: score against sparsity, a panel a task and recipe."""

import math

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from obert.tables import Results, Table
from obert.tables._figures import STYLE, series_styles
from obert.tables._measured import groups, metric_of, score
from obert.tables._panels import empty_figure, score_axes, shared_legend, some_panels
from obert.tables._scopes import ENCODER, pruning_recipe, scope_words

AS_PUBLISHED = "as published"
COLUMNS = ("task", "metric", "panel", "recipe", "method", "sparsity", "score_mean", "score_std", "n", "dense")


class AccuracyVsSparsity(Table):
    """One line a method; recipes that are as published share a panel, the others have one each."""

    title = "Score against sparsity"
    caption = (
        "Means over seeds; error bars are sample standard deviations (none for one seed). The dashed line is the dense "
        "model. Methods in one panel share start, schedule and budget, except in panels 'as published'."
    )

    section = "Trade-offs"

    def build(self, results: Results) -> pd.DataFrame:
        rows, scopes = [], []
        for task in results.tasks:
            for group in groups(results, task):
                if not group.sparsity:  # a dense model is no point of any method's curve
                    continue
                family = group.records[0].family
                panel = AS_PUBLISHED if family == AS_PUBLISHED else group.key.recipe
                values = (task, metric_of(results, task), panel, group.key.recipe, group.method, group.sparsity)
                values += (group.score.mean, group.score.std, group.score.n, score(results.dense(task)))
                rows.append(values)
                scopes.append(scope_words(pruning_recipe(results, group.key)))
        content = pd.DataFrame(rows, columns=list(COLUMNS))
        return content if set(scopes) <= {ENCODER} else content.assign(scope=scopes)

    def draw(self, content: pd.DataFrame) -> Figure:
        with mpl.rc_context(STYLE):
            if content.empty:
                return empty_figure()
            names = {name: place for place, name in enumerate(content["panel"].unique())}
            parts = sorted(content.groupby(["task", "panel"], sort=False), key=lambda each: names[each[0][1]])
            figure, axes = some_panels(len(parts), columns=content["task"].nunique(), height=2.7)
            looks = series_styles(zip(_lines(content), content["method"], strict=True))
            of_task: dict[str, list] = {}
            for axis, ((task, name), part) in zip(axes, parts, strict=True):
                _draw_panel(axis, part, looks)
                axis.set_title(f"{task}\n{name}")
                of_task.setdefault(task, []).append(axis)
            for shared in of_task.values():
                score_axes(shared)
            shared_legend(figure, "upper")
        return figure


def _lines(content: pd.DataFrame) -> pd.Series:
    """The name of each row's line: the method, or the recipe where every recipe has its own method."""
    return content["method"].where(content["panel"] != AS_PUBLISHED, content["recipe"])


def _draw_panel(axes, part: pd.DataFrame, looks: dict) -> None:
    dense = part["dense"].iloc[0]
    if not math.isnan(dense):
        axes.axhline(dense, color="0.35", linestyle="--", linewidth=1.2, label="dense teacher")
    for name, line in part.groupby(_lines(part), sort=True):
        line = line.sort_values("sparsity")
        errors = line["score_std"].fillna(0) if line["score_std"].notna().any() else None
        axes.errorbar(100 * line["sparsity"], line["score_mean"], yerr=errors, label=name, **looks[name])
    axes.set_xticks(sorted(100 * part["sparsity"].unique()))
    axes.xaxis.set_major_formatter("{x:g}")
    scopes = set(part["scope"]) if "scope" in part else {ENCODER}
    axes.set_xlabel(f"sparsity of the {scopes.pop()} (%)" if len(scopes) == 1 else "sparsity of what is pruned (%)")
    axes.set_ylabel(f"{part['metric'].iloc[0]} (%)")
    axes.margins(x=0.1)
