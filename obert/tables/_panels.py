"""Panels of a figure, the legend that they share, and where their axes start.

Scores: an axis spans at least SPAN points, and all panels of a task share it, so that a point never takes more than a
twentieth of its height. Costs, losses and speed-ups: a linear axis starts at 0. Ratios over a wide range have a
logarithmic axis, on which equal distances are equal factors.
"""

from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

EMPTY = "no records yet"
SPAN = 20  # points of a score
MOST_COLUMNS = 6  # of a legend


def panels(rows: int, columns: int, width: float = 4.2, height: float = 3.4, share: str = "row") -> tuple:
    """A figure of rows x columns axes, sizes of one in inches. The axes of a row (or "col") share their scale."""
    figure = Figure(figsize=(max(width * columns, 5), height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=share)


def some_panels(count: int, columns: int, width: float = 4.2, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """As many axes as are asked for, row by row; what is left of the last row stays empty."""
    columns = min(columns, count)
    figure, axes = panels(-(-count // columns), columns, width, height, share="none")
    for axis in axes.flat[count:]:
        axis.remove()
    return figure, list(axes.flat[:count])


def empty_figure() -> Figure:
    """A figure that says that there is nothing to draw."""
    figure, axes = panels(1, 1)
    axes[0][0].set_axis_off()
    axes[0][0].text(0.5, 0.5, EMPTY, ha="center", va="center", transform=axes[0][0].transAxes)
    return figure


def score_axes(axes: Iterable[Axes]) -> None:
    """Give the panels of one score one scale of at least SPAN points. Most room is below, as scores have a top."""
    axes = list(axes)
    limits = [axis.get_ylim() for axis in axes]
    low, high = min(low for low, _ in limits), max(high for _, high in limits)
    if high - low < SPAN:
        high += 0.05 * SPAN
        low = min(low, high - SPAN)
    for axis in axes:
        axis.set_ylim(low, high)


def ratio_axis(axis: Axes) -> None:
    """A logarithmic axis below a panel, with plain numbers."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


def shared_legend(figure: Figure, place: str, handles: Iterable[Line2D] | None = None) -> None:
    """One legend for all panels, each name in it once, in as many columns as fit. The figure grows by its height.

    Args:
        place: "upper" or "lower".
        handles: what it names, by default all that is drawn.
    """
    if handles is None:
        pairs = (pair for axis in figure.axes for pair in zip(*axis.get_legend_handles_labels(), strict=True))
        drawn = {name: handle for handle, name in pairs}
    else:
        drawn = {handle.get_label(): handle for handle in handles}
    if not drawn:
        return
    renderer = FigureCanvasAgg(figure).get_renderer()
    for columns in range(min(len(drawn), MOST_COLUMNS), 0, -1):
        legend: Legend = figure.legend(
            drawn.values(), drawn, loc=f"outside {place} center", ncols=columns, fontsize=8, borderaxespad=0.2
        )
        box = legend.get_window_extent(renderer)
        if box.width <= figure.bbox.width or columns == 1:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + box.height / figure.dpi)
