"""Pareto fronts of the score against what it is traded for."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from obert.tables import Results
from obert.tables._figures import STYLE, method_styles
from obert.tables._labels import label_point
from obert.tables._measured import DENSE, Group
from obert.tables._panels import empty_figure, score_axes, shared_legend, some_panels

POINT = ("recipe", "method", "sparsity", "score_mean", "score_std", "n")
FRONT, JOINED = "on_front", "joined"
FADED = 0.4
RULE = (
    "A model is on the front (ringed, labelled with its recipe, and with the words one seed if it has no more) if no "
    "other model is at least as good in both directions and better in one. The line joins as many of the front as the "
    "intervals separate: from right to left, each has a better score than the one before by the 95 % "
    "interval of the paired difference, and that one is ahead in the other direction; speed-ups by their intervals, "
    "which do not overlap. Scores are means over seeds, error bars sample standard deviations."
)


def dense_group(results: Results, task: str) -> list[Group]:
    """The task's dense teacher, if there is one."""
    dense = results.dense(task)
    return [] if dense is None else [Group.of([dense])]


def point(group: Group) -> dict:
    """A group's columns."""
    values = (group.key.recipe, group.method, group.sparsity, group.score.mean, group.score.std, group.score.n)
    return dict(zip(POINT, values, strict=True))


def is_on_front(gains: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Which points no other one dominates: is at least as good in both, and better in one."""
    gain_ahead, score_ahead = (values[None, :] - values[:, None] for values in (gains, scores))
    dominated = (gain_ahead >= 0) & (score_ahead >= 0) & ((gain_ahead > 0) | (score_ahead > 0))
    return ~dominated.any(axis=1)


def mark_front(points: pd.DataFrame, gain: str, within: list[str]) -> pd.DataFrame:
    """The points that have both a score and a gain, and whether each is on its panel's front.

    Args:
        gain: column of what the score is traded for; more is better.
        within: columns that the points of a panel share.
    """
    points = points.dropna(subset=[gain, "score_mean"]).reset_index(drop=True)
    points[FRONT] = False
    for _, panel in points.groupby(within, sort=False):
        points.loc[panel.index, FRONT] = is_on_front(panel[gain].to_numpy(float), panel["score_mean"].to_numpy(float))
    return points


def draw_fronts(content: pd.DataFrame, gain: str, label: str, rows: str | None = None, factor: float = 1) -> Figure:
    """A panel for each task (and each value of the column `rows`), a colour for each method.

    Args:
        gain: column of what the score is traded for, drawn times `factor`.
        label: of that axis.
    """
    with mpl.rc_context(STYLE):
        if content.empty:
            return empty_figure()
        tasks = list(content["task"].unique())
        levels = [None] if rows is None else list(content[rows].unique())
        parts = [(task, level, _part(content, task, rows, level)) for level in levels for task in tasks]
        parts = [(task, level, part) for task, level, part in parts if len(part)]
        figure, axes = some_panels(len(parts), columns=min(len(tasks), 3), width=5.2, height=4.2)
        looks = method_styles(content["method"])
        for axis, (task, level, part) in zip(axes, parts, strict=True):
            _draw_panel(axis, part.assign(**{gain: factor * part[gain]}), gain, looks)
            axis.set_title(task if rows is None else f"{task}, {level}")
            axis.set_xlabel(label)
            axis.set_ylabel(f"{part['metric'].iloc[0]} (%)")
        for task in tasks:
            score_axes(axis for axis, (of, *_) in zip(axes, parts, strict=True) if of == task)
        shared_legend(figure, "upper")
    return figure


def _part(content: pd.DataFrame, task: str, rows: str | None, level: object) -> pd.DataFrame:
    """The points of a panel."""
    part = content[content["task"] == task]
    return part if rows is None else part[part[rows] == level]


def _draw_panel(axis, part: pd.DataFrame, gain: str, looks: dict) -> None:
    front = part[part[FRONT]].sort_values([gain, "score_mean"], ascending=[True, False])
    joined = front[front[JOINED].astype(bool)]
    axis.plot(joined[gain], joined["score_mean"], color="0.3", linewidth=1, zorder=1)
    axis.plot(front[gain], front["score_mean"], "o", markersize=11, markerfacecolor="none", color="0.3", zorder=1)
    for method, points in part.groupby("method", sort=True):
        for alpha, chosen in ((FADED, points[~points[FRONT]]), (1, points[points[FRONT]])):
            look = looks[method] | {"linestyle": "none", "alpha": alpha}
            axis.errorbar(chosen[gain], chosen["score_mean"], yerr=chosen["score_std"], **look)
        axis.plot([], [], linestyle="none", label=method, **looks[method])
    for spot in front[front["method"] != DENSE].itertuples():
        words = f"{spot.recipe} (one seed)" if spot.n == 1 else spot.recipe
        label_point(axis, words, getattr(spot, gain), spot.score_mean)
    axis.margins(x=0.15, y=0.15)
