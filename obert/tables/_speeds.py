"""The picture of models that were timed by hand."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from obert.tables._figures import STYLE, shades
from obert.tables._panels import panels, shared_legend

SCENARIO = ("batch_size", "sequence_length", "threads")
BAR = 0.8  # of the distance of two engines


def draw_speeds(rows: pd.DataFrame) -> Figure:
    """Items a second with their intervals: a panel for each scenario, bars from 0 for each engine and model.

    Args:
        rows: a row a timing, with the columns of the written table.
    """
    with mpl.rc_context(STYLE):
        return _drawn(rows)


def _drawn(rows: pd.DataFrame) -> Figure:
    models, engines = (list(dict.fromkeys(rows[name])) for name in ("model", "engine"))
    scenarios = list(rows.groupby(list(SCENARIO), sort=False))
    columns = min(len(scenarios), 3)
    lines = -(-len(scenarios) // columns)
    height = 1.2 + 0.25 * len(engines) * (len(models) + 1)
    figure, axes = panels(lines, columns, height=height)
    colours, thickness = shades(len(models)), BAR / len(models)
    for axis, ((batch, length, threads), part) in zip(axes.flat, scenarios, strict=False):
        for index, model in enumerate(models):
            own = part[part["model"] == model]
            places = own["engine"].map(engines.index) + (index - (len(models) - 1) / 2) * thickness
            value = own["items_per_second"].to_numpy()
            ends = np.abs(own[["items_per_second_low", "items_per_second_high"]].to_numpy().T - value)
            bars = axis.barh(places, value, thickness, xerr=ends, color=colours[index], label=model)
            axis.bar_label(bars, [_rounded(number) for number in value], padding=6, fontsize=8)
        axis.set_yticks(range(len(engines)), engines)
        axis.set_ylim(len(engines) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        axis.set_xlim(0, 1.25 * part["items_per_second_high"].max())
        axis.set_title(f"{batch} x {length} tokens, {threads} thread{'s' if threads > 1 else ''}")
        axis.set_xlabel("items/s")
    for axis in list(axes.flat)[len(scenarios) :]:
        axis.set_axis_off()
    if len(models) > 1:
        shared_legend(figure, "lower")
    return figure


def _rounded(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
