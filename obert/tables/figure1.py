"""Figure 1 of the oBERT paper: methods of unstructured pruning on a task against each other."""

import math

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from obert.tables import Note, Results, Table
from obert.tables._figures import STYLE, empty_figure, panels, styles
from obert.tables._measured import DENSE
from obert.tables._paper import ROW
from obert.tables.table1 import Table1

COLUMNS = ("task", "metric", "source", "series", "sparsity", "score", "std", "dense")
SOURCES = {"published": {"linestyle": "--", "fillstyle": "none"}, "measured": {"linestyle": "-"}}
TASK = "squad"


class Figure1(Table):
    """A panel a task; a line a method with its epochs."""

    paper = "obert"
    section = "Published and measured"
    title = "Figure 1 of the oBERT paper: unstructured pruning on a task"
    caption = (
        "Dashed with open markers: published. The values of Figure 1 of Kurtic et al. 2022 are not printed; these are "
        "those of its Table 1 (BERT-base, SQuAD v1.1). Solid: this experiment's means over seeds, with sample standard "
        "deviations. Grey: the dense model."
    )

    def build(self, results: Results) -> pd.DataFrame:
        table = Table1().build(results)
        rows = []
        for source in SOURCES:
            for label in dict.fromkeys(label for label, column in table.columns if column == source and label != DENSE):
                for _, row in table.iterrows():
                    score = row[label, source]
                    if not math.isnan(score) and (source == "measured" or row[ROW, "task"] == TASK):
                        place = (row[ROW, "task"], row[ROW, "metric"], source, label, row[ROW, "sparsity"])
                        rows.append((*place, score, row[label, f"{source}_std"], row[DENSE, source]))
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def notes(self, results: Results) -> tuple[Note, ...]:
        return Table1().notes(results)

    def draw(self, content: pd.DataFrame) -> Figure:
        with mpl.rc_context(STYLE):
            if content.empty:
                return empty_figure()
            parts = list(content.groupby("task", sort=False))
            figure, axes = panels(1, len(parts), height=4.2, share="none")
            looks = styles(content["series"])
            for axis, (task, part) in zip(axes[0], parts, strict=True):
                for (source, dense), _ in part.groupby(["source", "dense"], sort=False):
                    axis.axhline(dense, color="0.35", linestyle=SOURCES[source]["linestyle"], linewidth=1)
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
                axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16))
        return figure
