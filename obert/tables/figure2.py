"""Figure 2 of the oBERT paper: what is left of the score against what is gained in speed and size."""

import math

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from obert.tables import Note, Results, Table
from obert.tables._chance import RULE
from obert.tables._deployed import Deployed, Speed, published_models
from obert.tables._figures import OPEN, STYLE, method_styles
from obert.tables._labels import label_point
from obert.tables._measured import DENSE
from obert.tables._panels import empty_figure, ratio_axis, score_axes, shared_legend, some_panels
from obert.tables.table17 import Table17

COLUMNS = (
    "source", "task", "engine", "method", "layers", "sparsity", "compression", "recall", "speedup",
    "compression_ratio", "dense_layers",
)  # fmt: skip
AXES = {"speedup": "times the dense model's throughput, same engine", "compression_ratio": "times smaller after gzip"}
SIZE = "size"  # the title of the panel that no engine matters for
LEVELS = (99, 92.5)


class Figure2(Table):
    """A panel a task and engine, and one a task for sizes; one point a model."""

    title = "Figure 2 of the oBERT paper: recall against speed and size"
    caption = (
        "Published and measured points mean the same: score, throughput and size of a compressed model over those of "
        "its own dense model, in the same engine. Open: Table 17 (SQuAD v1.1, DeepSparse on a c5.12xlarge), over "
        "BERT-base's 12 layers. Filled: this experiment's, first seed, over its teacher. Each model was timed in a "
        "process of its own; either throughput is first divided by that of the dense model in ONNX Runtime there. "
        f"Recall is recovery. {RULE} Chance is 0 on SQuAD, where it is the score as a percentage of the dense "
        "model's, as the paper has it. Dotted: 99 and 92.5 %. Labels, where they have room: layers, sparsity in "
        "percent, and q for quantised."
    )

    paper = "obert"
    section = "Published and measured"

    def build(self, results: Results) -> pd.DataFrame:
        theirs = published_models(results, Table17.paper, Table17.table, Table17.engine)
        layers = next(row.layers for row in theirs if row.compression == DENSE)
        engine = Table17.engine
        rows = [_row("published", row, engine, row.speeds[engine].speedup, layers) for row in theirs]
        measured = Table17().measured(results)
        dense = {row.task: row for row in measured if _is_teacher(results, row)}
        for row in measured:
            own = dense.get(row.task)
            for engine, speed in row.speeds.items():
                base = own.speeds.get(engine, Speed()).speedup if own else math.nan
                rows.append(_row("measured", row, engine, speed.speedup / base, own.layers if own else math.nan))
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def is_measured(self, content: pd.DataFrame) -> bool:
        return bool((content["source"] == "measured").any())

    def notes(self, results: Results) -> tuple[Note, ...]:
        return Table17().notes(results)

    def draw(self, content: pd.DataFrame) -> Figure:
        with mpl.rc_context(STYLE):
            if content.empty:
                return empty_figure()
            published, measured = (content[content["source"] == source] for source in ("published", "measured"))
            parts = _parts(published, measured)
            figure, axes = some_panels(len(parts), columns=3, width=4.6, height=3.8)
            looks = method_styles(content["method"])
            for axis, (title, column, own) in zip(axes, parts, strict=True):
                for level in LEVELS:
                    axis.axhline(level, color="0.6", linestyle=":", linewidth=1)
                for points, face in ((published, OPEN), (own, {})):
                    for point in points.dropna(subset=[column, "recall"]).itertuples():
                        place = getattr(point, column), point.recall
                        axis.plot(*place, linestyle="none", **looks[point.method] | face)
                        if point.compression != DENSE:
                            label_point(axis, _label(point), *place)
                ratio_axis(axis)
                axis.margins(x=0.12, y=0.1)
                axis.set_title(title)
                axis.set_xlabel(AXES[column])
                axis.set_ylabel("recall (%)")
            score_axes(axes)
            shared_legend(figure, "upper", _handles(content, looks))
        return figure


def _is_teacher(results: Results, row: Deployed) -> bool:
    dense = results.dense(row.task)
    return dense is not None and row.key == dense.key.at("benchmark")


def _row(source: str, row: Deployed, engine: str, speedup: float, dense_layers: float) -> tuple:
    place = (source, row.task, engine, row.method, row.layers, row.sparsity, row.compression)
    return (*place, row.recall, speedup, row.compression_ratio, dense_layers)


def _parts(published: pd.DataFrame, measured: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Title, column and measured points of each panel; without any, the published points alone."""
    parts = []
    for task, of_task in measured.groupby("task", sort=False):
        timed = of_task.dropna(subset=["speedup", "recall"])
        parts += [(f"{task}, {engine}", "speedup", part) for engine, part in timed.groupby("engine")]
        sized = of_task.dropna(subset=["compression_ratio", "recall"])
        sized = sized.drop_duplicates(["method", "layers", "sparsity", "compression_ratio", "recall"])
        parts += [(f"{task}, {SIZE}", "compression_ratio", sized)] if len(sized) else []
    if parts:
        return parts
    engine, task = published[["engine", "task"]].iloc[0]
    return [(f"{task}, {engine}", "speedup", measured), (f"{task}, {SIZE}", "compression_ratio", measured)]


def _handles(content: pd.DataFrame, looks: dict) -> list[Line2D]:
    """A handle a source and method, with what the ratios are over."""
    handles = []
    for (source, method), part in content[content["method"] != DENSE].groupby(["source", "method"], sort=False):
        layers = "- or ".join(f"{count:g}" for count in sorted(part["dense_layers"].dropna().unique()))
        over = f", over the dense {layers}-layer model" if layers else ""
        look = looks[method] | (OPEN if source == "published" else {})
        handles.append(Line2D([], [], linestyle="none", label=f"{method}, {source}{over}", **look))
    return [Line2D([], [], linestyle="none", label=DENSE, **looks[DENSE]), *handles]


def _label(point) -> str:
    return f"{point.layers:g}/{100 * point.sparsity:g}{'q' if point.compression.endswith('QAT') else ''}"
