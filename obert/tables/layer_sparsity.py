"""Figure: heat map of the sparsity of each layer."""

import re

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from obert.experiment.keys import RunKey
from obert.records.record import Record
from obert.tables import Results, Table
from obert.tables._figures import STYLE
from obert.tables._panels import empty_figure

COLUMNS = ("stage", "task", "recipe", "method", "sparsity", "layer", "matrix", "layer_sparsity", "n")
MATRICES = {
    "attention.self.query": "Q",
    "attention.self.key": "K",
    "attention.self.value": "V",
    "attention.output.dense": "O",
    "intermediate.dense": "F1",
    "output.dense": "F2",
}
PARTS, SHORT_PARTS = ("embeddings", "encoder", "head"), ("embed.", "", "head")
NAME = re.compile(r"layer\.(\d+)\.(.+?)(?:\.weight)?$")
NUMBERS_UP_TO = 40  # columns that have room for a number in each cell
MOST = 25  # points of difference at which the colour is full


class LayerSparsity(Table):
    """A heat map a task: rows are the methods at their highest sparsity, columns the weight matrices by layer."""

    title = "Sparsity by layer"
    caption = (
        "Zeros in percent of each weight matrix, mean over seeds, for each recipe and method at its highest sparsity. "
        "Colour: points above (orange) or below (purple) the model's target. Q, K, V, O: the attention's query, key, "
        "value and output; F1, F2: the feed-forward network's first and second matrix. Embeddings and head are there "
        "where they are in scope."
    )

    section = "Training and sparsity"

    def build(self, results: Results) -> pd.DataFrame:
        collected: dict[tuple, list[Record]] = {}
        for record in results.of_kind(prunes=True):
            if record.sparsity is not None:
                collected.setdefault(_identity(record.key), []).append(record)
        rows = []
        for identity, records in collected.items():
            for name in records[0].sparsity.layers:
                counts = [record.sparsity.layers[name] for record in records if name in record.sparsity.layers]
                share = sum(count.zeros / count.size for count in counts) / len(counts)
                rows.append((*identity, *_place(name), share, len(counts)))
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def draw(self, content: pd.DataFrame) -> Figure:
        with mpl.rc_context(STYLE | {"axes.grid": False}):
            if content.empty:
                return empty_figure()
            highest = content.groupby(["stage", "task", "recipe", "method"], sort=False)["sparsity"].transform("max")
            content = content[content["sparsity"] == highest]
            tables = {task: _table(part) for task, part in content.groupby("task", sort=False)}
            columns = max(table.shape[1] for table in tables.values())
            rows = sum(len(table) for table in tables.values())
            size = (min(2.6 + 0.36 * columns, 16), 1 + 0.27 * rows + 0.8 * len(tables))
            figure = Figure(figsize=size, layout="constrained")
            heights = [len(table) + 2 for table in tables.values()]
            axes = figure.subplots(len(tables), 1, squeeze=False, height_ratios=heights)[:, 0]
            for axis, (task, table) in zip(axes, tables.items(), strict=True):
                drawn = _draw_table(axis, table, columns <= NUMBERS_UP_TO)
                axis.set_title(task)
            figure.colorbar(drawn, ax=list(axes), label="points above the target", shrink=min(1, 3 / size[1]))
        return figure


def _identity(key: RunKey) -> tuple:
    return key.stage, key.task, key.recipe, key.method, key.sparsity


def _place(name: str) -> tuple[float, str]:
    """A weight's encoder layer and what it is there; no layer and its own name for any other."""
    found = NAME.search(name)
    return (int(found[1]), MATRICES.get(found[2], found[2])) if found else (-1, name)


def _table(part: pd.DataFrame) -> pd.DataFrame:
    """Rows: (target, label) of a model; columns: (layer, matrix), in the model's order."""
    labels = part["recipe"] + ": " + part["method"] + ", " + (100 * part["sparsity"]).map("{:g} %".format)
    table = part.assign(label=labels).pivot_table(
        index=["sparsity", "label"], columns=["layer", "matrix"], values="layer_sparsity", sort=False
    )
    return table[sorted(table.columns, key=lambda column: _part(*column))]


def _part(layer: float, matrix: str) -> tuple[int, float]:
    """The part of a model, embeddings first, and the layer in it."""
    if layer >= 0:
        return PARTS.index("encoder"), layer
    return PARTS.index("embeddings" if "embedding" in matrix else "head"), 0


def _short(matrix: str) -> str:
    """E.g. "word" of `bert.embeddings.word_embeddings.weight`, "pooler.dense" of `bert.pooler.dense.weight`."""
    name = matrix.removesuffix(".weight")
    return (
        name.rpartition(".")[2].removesuffix("_embeddings") if "embedding" in name else ".".join(name.split(".")[-2:])
    )


def _draw_table(axis, table: pd.DataFrame, with_numbers: bool):
    targets = table.index.get_level_values("sparsity").to_numpy()
    above = 100 * (table.to_numpy() - targets[:, None])
    drawn = axis.pcolormesh(above, cmap="PuOr_r", vmin=-MOST, vmax=MOST, edgecolors="white", linewidth=0.5)
    if with_numbers:
        for (row, column), value in np.ndenumerate(table.to_numpy()):
            if not np.isnan(value):
                dark = abs(above[row, column]) > 0.7 * MOST
                axis.text(column + 0.5, row + 0.5, f"{100 * value:.0f}", ha="center", va="center", fontsize=7,
                          color="white" if dark else "black")  # fmt: skip
    axis.set_yticks(np.arange(len(table)) + 0.5, table.index.get_level_values("label"), fontsize=8)
    layers, matrices = (table.columns.get_level_values(level) for level in ("layer", "matrix"))
    axis.set_xticks(np.arange(len(matrices)) + 0.5, map(_short, matrices), fontsize=7 if with_numbers else 5)
    for place, layer in enumerate(layers):
        if layer < 0:  # of an embedding or a head, whose names are longer than a column is wide
            axis.get_xticklabels()[place].set(rotation=90)
    parts = [_part(*column) for column in table.columns]
    starts = [i for i, part in enumerate(parts) if i == 0 or part != parts[i - 1]]
    upper = axis.secondary_xaxis("top")
    names = [f"layer {layers[start]:.0f}" if layers[start] >= 0 else SHORT_PARTS[parts[start][0]] for start in starts]
    upper.set_xticks(np.array(starts) + 0.1, names, fontsize=8, ha="left")
    for start in starts[1:]:
        axis.axvline(start, color="0.2", linewidth=1.2)
    axis.invert_yaxis()
    for one in (axis, upper):
        one.tick_params(length=0)
    return drawn
