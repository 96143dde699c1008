"""Figure: accuracy against sparsity, SMC-Bench's published curves beside this experiment's runs."""

import math

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from obert.tables import Note, Results, Table
from obert.tables._chance import chance_of
from obert.tables._figures import OPEN, STYLE, series_styles
from obert.tables._guidelines import BENCHMARK, PAPER, compared_groups, sparsities
from obert.tables._measured import DENSE, metric_of, score
from obert.tables._panels import empty_figure, panels, score_axes, shared_legend
from obert.tables.smc_bench import TABLE, SmcBench, shown_tasks

COLUMNS = (
    "task", "metric", "source", "series", "method", "sparsity", "whole_model_sparsity", "score", "error", "n",
    "approximate", "at_chance", "dense", "chance",
)  # fmt: skip
LOOKS = {"published": OPEN | {"linewidth": 1.1}, "measured": {}}
DENSE_LINES = {"published": "--", "measured": "-"}
AXES = {"sparsity": "sparsity of the weights in scope (%)", "whole_model_sparsity": "sparsity of all matrices (%)"}


class PublishedCurves(Table):
    """A row of panels a task: by the sparsity of what is in scope, and of all weight matrices."""

    title = "Accuracy against sparsity: SMC-Bench's curves and this experiment's"
    caption = (
        "Open markers: read off SMC-Bench's figure (RoBERTa-large, one seed; error bars: what a reading is "
        "good to, none where the marker is partly hidden). Crosses on the line of chance: the figure has the point "
        "there, without a value. Filled: this experiment's means over seeds, with sample standard deviations. Left: "
        "sparsity as each counts it, of all weight matrices in SMC-Bench's setting and of the encoder by the "
        "guidelines. Right: of all weight matrices, where it was counted. Dotted: chance, in SMC-Bench's figure an "
        "equal share for each choice, of this experiment the most frequent position or class. Grey: dense, dashed "
        "where published."
    )

    section = "How to prune a language model"
    paper = PAPER

    def build(self, results: Results) -> pd.DataFrame:
        rows = [row for task in shown_tasks(results) for row in (*_published(results, task), *_measured(results, task))]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def is_measured(self, content: pd.DataFrame) -> bool:
        return bool((content["source"] == "measured").any())

    def notes(self, results: Results) -> tuple[Note, ...]:
        return SmcBench().notes(results)

    def draw(self, content: pd.DataFrame) -> Figure:
        with mpl.rc_context(STYLE):
            if content.empty:
                return empty_figure()
            parts = list(content.groupby("task", sort=False))
            figure, axes = panels(len(parts), len(AXES), width=4.6, height=3.2, share="row")
            looks = series_styles(content[["series", "method"]].itertuples(index=False, name=None))
            for row, (task, part) in zip(axes, parts, strict=True):
                for axis, (column, label) in zip(row, AXES.items(), strict=True):
                    _draw_panel(axis, part.dropna(subset=[column]), column, looks)
                    axis.set_title(task)
                    axis.set_xlabel(label)
                    axis.set_ylabel(f"{part['metric'].iloc[0]} (%)")
                score_axes(row)
            shared_legend(figure, "lower")
        return figure


def _published(results: Results, task: str) -> list[dict]:
    numbers = [n for n in results.published.table(BENCHMARK, TABLE) if n.task == task]
    dense = next((n.value for n in numbers if n.is_dense), math.nan)
    whole = results.published.papers[BENCHMARK].sparsity_of == "matrices"
    return [
        {
            "task": task,
            "metric": number.metric,
            "source": "published",
            "series": number.label,
            "method": number.method or DENSE,
            "sparsity": number.sparsity,
            "whole_model_sparsity": number.sparsity if whole else math.nan,
            "score": number.value,
            "error": number.reading_error,
            "approximate": number.approximate,
            "at_chance": number.at_chance,
            "dense": dense,
            "chance": results.published.chance.get(task, math.nan),
        }
        for number in numbers
        if not number.is_dense
    ]


def _measured(results: Results, task: str) -> list[dict]:
    return [
        {
            "task": task,
            "metric": metric_of(results, task),
            "source": "measured",
            "series": label,
            "method": group.method,
            "sparsity": group.sparsity,
            "whole_model_sparsity": sparsities(group)["whole_model_sparsity"],
            "score": group.score.mean,
            "error": group.score.std,
            "n": group.score.n,
            "approximate": False,
            "at_chance": False,
            "dense": score(results.dense(task)),
            "chance": chance_of(results, task),
        }
        for label, groups in compared_groups(results, task).items()
        for group in groups
    ]


def _draw_panel(axis, part: pd.DataFrame, column: str, looks: dict) -> None:
    for source, of_source in part.groupby("source", sort=False):
        dense, chance = of_source[["dense", "chance"]].iloc[0]
        if not math.isnan(dense):
            axis.axhline(dense, color="0.45", linestyle=DENSE_LINES[source], linewidth=1)
        if not math.isnan(chance):
            axis.axhline(chance, color="0.2", linestyle=":", linewidth=1)
        for series, line in of_source.groupby("series", sort=False):
            line = line.sort_values(column)
            look, errors = looks[series] | LOOKS[source], line["error"].astype(float).fillna(0)
            # A point without a value breaks the line.
            axis.errorbar(
                100 * line[column], line["score"].astype(float), yerr=errors, label=f"{series}, {source}", **look
            )
            gone = line[line["at_chance"]]
            axis.plot(100 * gone[column], gone["chance"], "x", color=look["color"], markersize=5)
    axis.margins(x=0.05)
