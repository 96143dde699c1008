"""Figure 2 of the oBERT paper: what is left of the score against what is gained in speed and size."""

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from obert.tables import Note, Results, Table
from obert.tables._chance import RULE
from obert.tables._deployed import Deployed, published_models
from obert.tables._engines import OVER
from obert.tables._figures import STYLE, empty_figure, panels, styles
from obert.tables.table17 import Table17

COLUMNS = ("series", "task", "layers", "sparsity", "compression", "recall", "speedup", "compression_ratio")
AXES = {"speedup": "times the dense model's throughput", "compression_ratio": "times smaller after gzip"}


class Figure2(Table):
    """One point a model; speed-ups by engine."""

    title = "Figure 2 of the oBERT paper: recall against speed and size"
    caption = (
        f"Dotted lines: 99 and 92.5 %. Measured recall is recovery. {RULE} Published recall is the score as a "
        "percentage of the dense model's, as in the paper; where chance is 0, as on SQuAD, both are the same. "
        "Published points: Table 17 (BERT-base, SQuAD v1.1, DeepSparse on a c5.12xlarge), over the dense model in "
        f"DeepSparse; the others are this experiment's, {OVER}. Labels: layers, sparsity in percent, and q "
        "for quantised."
    )

    paper = "obert"
    section = "Published and measured"

    def build(self, results: Results) -> pd.DataFrame:
        rows = [
            _row(f"published, {Table17.engine}", row, Table17.engine)
            for row in published_models(results, Table17.paper, Table17.table, Table17.engine)
        ]
        for row in Table17().measured(results):
            rows += [_row(f"{row.task}, {engine}", row, engine) for engine in row.speeds]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def notes(self, results: Results) -> tuple[Note, ...]:
        return Table17().notes(results)

    def draw(self, content: pd.DataFrame) -> Figure:
        with mpl.rc_context(STYLE):
            if content.empty:
                return empty_figure()
            figure, axes = panels(1, len(AXES), width=5.2, height=4.2)
            looks = styles(content["series"])
            for axis, (column, label) in zip(axes[0], AXES.items(), strict=True):
                for level in (99, 92.5):
                    axis.axhline(level, color="0.6", linestyle=":", linewidth=1)
                shown = content.dropna(subset=[column, "recall"])
                for series, points in shown.groupby("series", sort=True):
                    axis.plot(points[column], points["recall"], linestyle="none", label=series, **looks[series])
                # A dense model is where any is, and a size is the same in every engine.
                for point in shown[shown["compression"] != "dense"].drop_duplicates([column, "recall"]).itertuples():
                    axis.annotate(_label(point), (getattr(point, column), point.recall), fontsize=6, xytext=(3, 3),
                                  textcoords="offset points")  # fmt: skip
                axis.set_xscale("log")
                axis.xaxis.set_major_formatter("{x:g}")
                axis.xaxis.set_minor_formatter("")
                axis.set_xlabel(label)
                axis.set_ylabel("recall (%)")
            axes[0][0].legend(fontsize=7)
        return figure


def _row(series: str, row: Deployed, engine: str) -> tuple:
    values = (row.task, row.layers, row.sparsity, row.compression, row.recall)
    return (series, *values, row.speeds[engine].speedup, row.compression_ratio)


def _label(point) -> str:
    return f"{point.layers:g}/{100 * point.sparsity:g}{'q' if point.compression.endswith('QAT') else ''}"
