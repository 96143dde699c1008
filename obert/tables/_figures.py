"""One look for all figures, and files that are the same byte for byte whenever they are drawn again."""

import io
from collections.abc import Iterable, Sequence

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure

STYLE = {
    "svg.hashsalt": "obert",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "errorbar.capsize": 3,
    "axes.prop_cycle": cycler(color=mpl.color_sequences["tab10"]),
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
DASHES = ("-", "--", ":", "-.")
DPI = 120
EMPTY = "no records yet"


def panels(
    rows: int, columns: int, width: float = 4.2, height: float = 3.4, sharey: bool = True
) -> tuple[Figure, Sequence]:
    """A figure of rows x columns axes, sizes of one in inches. The axes of a row share their scale by default."""
    figure = Figure(figsize=(max(width * columns, 5), height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharey="row" if sharey else False)


def styles(names: Iterable[str]) -> dict[str, dict]:
    """Colour and marker for each name, so that one method looks the same in every panel."""
    colours = mpl.color_sequences["tab10"]
    unique = sorted(set(names))
    return {n: {"color": colours[i % 10], "marker": MARKERS[i % len(MARKERS)]} for i, n in enumerate(unique)}


def empty_figure() -> Figure:
    """A figure that says that there is nothing to draw."""
    figure, axes = panels(1, 1)
    axes[0][0].set_axis_off()
    axes[0][0].text(0.5, 0.5, EMPTY, ha="center", va="center", transform=axes[0][0].transAxes)
    return figure


def save(figure: Figure, kind: str) -> bytes:
    """The figure as a "png" or "svg" file, without date or program version."""
    buffer = io.BytesIO()
    metadata = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()
