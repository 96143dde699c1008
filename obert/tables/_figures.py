"""One look for all figures, and files that are the same byte for byte whenever they are drawn again.

A method has one colour and one marker in every figure. Open markers are published, filled ones measured. Several
series of one method differ in their dashes.
"""

import io
from collections import Counter
from collections.abc import Iterable

import matplotlib as mpl
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.figure import Figure

from obert.foundation import registry
from obert.tables._labels import spread_labels
from obert.tables._measured import DENSE

COLOURS = mpl.color_sequences["petroff10"]  # told apart with any colour vision
STYLE = {
    "svg.hashsalt": "obert",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "errorbar.capsize": 3,
    "axes.prop_cycle": cycler(color=COLOURS),
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
DASHES = ("-", "--", ":", "-.")
DPI = 120
PLACES = 6  # decimals of the figure's width or height; a thousandth of a pixel
MOST_COMPARED = ("obert", "magnitude")  # they have the first colours, which are the clearest
POINTS = 200
OPEN = {"fillstyle": "none"}  # of what is published


def method_styles(names: Iterable[str]) -> dict[str, dict]:
    """Colour and marker for each method, the same in every figure; black for what is not pruned."""
    ours = sorted({*registry.names("pruning")} - {*MOST_COMPARED})
    others = sorted({*names} - {DENSE, *MOST_COMPARED, *ours})  # last, so that they change no method's look
    return _looks([*MOST_COMPARED, *ours, *others]) | {DENSE: {"color": "0.2", "marker": "h"}}


def series_styles(series: Iterable[tuple[str, str]]) -> dict[str, dict]:
    """The look of each (name, method): its method's, dashed in another way than that method's series before it."""
    named = dict(series)
    of_method, seen, looks = method_styles(named.values()), Counter(), {}
    for name, method in named.items():
        looks[name] = of_method[method] | {"linestyle": DASHES[seen[method] % len(DASHES)]}
        seen[method] += 1
    return looks


def shades(count: int) -> list[tuple]:
    """Colours of ordered values, dark to light; no method has one of them."""
    return [mpl.colormaps["viridis"](0.9 * place / max(count - 1, 1)) for place in range(count)]


def _looks(names: list[str]) -> dict[str, dict]:
    looks = {}
    for i, name in enumerate(names):
        turn, position = divmod(i, len(COLOURS))
        looks[name] = {"color": COLOURS[position], "marker": MARKERS[(position + turn) % len(MARKERS)]}
    return looks


def thinned(curves: pd.DataFrame) -> pd.DataFrame:
    """At most about POINTS steps, evenly spread, and each step around a jump of sparsity or learning rate."""
    even = np.linspace(0, len(curves) - 1, min(POINTS, len(curves))).astype(int)
    jumps = np.flatnonzero((curves["sparsity"].diff() != 0) | (curves["learning_rate"].diff() > 0))
    return curves.iloc[np.union1d(even, np.union1d(jumps, np.maximum(jumps - 1, 0)))]


def fix_layout(figure: Figure) -> None:
    """Lay a figure out, once for all files that it is saved to.

    The places are rounded: the solver below matplotlib's layout orders its terms by address in memory, and their last
    digits, which an SVG shows, would differ between processes.
    """
    with mpl.rc_context(STYLE):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis in figure.axes:
        axis.set_position(np.round(axis.get_position(original=True).bounds, PLACES))
    spread_labels(figure)


def save(figure: Figure, kind: str) -> bytes:
    """The figure as a "png" or "svg" file, without date or program version."""
    buffer = io.BytesIO()
    metadata = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()
