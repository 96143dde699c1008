"""Figure 1 of the oBERT paper: methods of unstructured pruning on a task against each other."""

import math

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from obert.tables import Note, Results, Table
from obert.tables._figures import OPEN, STYLE, series_styles
from obert.tables._measured import DENSE
from obert.tables._panels import empty_figure, score_axes, shared_legend, some_panels
from obert.tables._paper import ROW
from obert.tables.table1 import Table1

COLUMNS = ("task", "metric", "source", "series", "method", "sparsity", "score", "std", "dense")
SOURCES = {"published": OPEN, "measured": {}}
DENSE_LINES = {"published": "--", "measured": "-"}
TASK = "squad"


class Figure1(Table):
    """A panel a task; a line a method with its epochs."""

    paper = "obert"
    section = "Published and measured"
    title = "Figure 1 of the oBERT paper: unstructured pruning on a task"
    caption = (
        "Open markers: published. The values of Figure 1 of Kurtic et al. 2022 are not printed; these are "
        "those of its Table 1 (BERT-base, SQuAD v1.1). Filled: this experiment's means over seeds, with sample "
        "standard deviations. Grey: the dense model. A method has one colour and marker; its recipes differ in their "
        "dashes."
    )

    def build(self, results: Results) -> pd.DataFrame:
        table, methods = Table1().build(results), Table1().methods(results)
        rows = []
        for source in SOURCES:
            for label in dict.fromkeys(label for label, column in table.columns if column == source and label != DENSE):
                for _, row in table.iterrows():
                    score = row[label, source]
                    if not math.isnan(score) and (source == "measured" or row[ROW, "task"] == TASK):
                        place = (row[ROW, "task"], row[ROW, "metric"], source, label, methods[label])
                        place += (row[ROW, "sparsity"],)
                        rows.append((*place, score, row[label, f"{source}_std"], row[DENSE, source]))
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def is_measured(self, content: pd.DataFrame) -> bool:
        return bool((content["source"] == "measured").any())

    def notes(self, results: Results) -> tuple[Note, ...]:
        return Table1().notes(results)

    def draw(self, content: pd.DataFrame) -> Figure:
        with mpl.rc_context(STYLE):
            if content.empty:
                return empty_figure()
            parts = list(content.groupby("task", sort=False))
            figure, axes = some_panels(len(parts), columns=3)
            looks = series_styles(content[["series", "method"]].itertuples(index=False, name=None))
            for axis, (task, part) in zip(axes, parts, strict=True):
                for (source, dense), _ in part.groupby(["source", "dense"], sort=False):
                    axis.axhline(dense, color="0.35", linestyle=DENSE_LINES[source], linewidth=1)
                for (source, series), line in part.groupby(["source", "series"], sort=False):
                    line = line.sort_values("sparsity")
                    look = looks[series] | SOURCES[source]
                    errors = line["std"].fillna(0) if line["std"].notna().any() else None
                    axis.errorbar(
                        100 * line["sparsity"], line["score"], yerr=errors, label=f"{series}, {source}", **look
                    )
                axis.set_title(task)
                axis.set_xticks(sorted(100 * part["sparsity"].unique()))
                axis.xaxis.set_major_formatter("{x:g}")
                axis.margins(x=0.1)
                axis.set_xlabel("sparsity of the encoder (%)")
                axis.set_ylabel(f"{part['metric'].iloc[0]} (%)")
                score_axes([axis])
            shared_legend(figure, "lower")
        return figure
