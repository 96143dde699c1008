"""Labels beside points that cover neither each other nor a point."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

DISTANCES = (5, 11, 18, 26, 36)  # of a label from its point, in typographic points; the nearest free place is taken
DIRECTIONS = (45, -45, 135, -135, 0, 180, 90, -90)  # in degrees, the best first
MARKER = 3.5  # half a marker's width in typographic points
LEADER = {"arrowstyle": "-", "linewidth": 0.5, "color": "0.5", "shrinkA": 0, "shrinkB": 3}


class PointLabel(Annotation):
    """A label that `spread_labels` puts into its place."""


def label_point(axis: Axes, text: str, x: float, y: float) -> None:
    """Label a point of a panel. Its place is found once the layout is known."""
    axis.add_artist(
        PointLabel(text, (x, y), xytext=(0, 0), textcoords="offset points", fontsize=6, arrowprops=LEADER)
    ).set_in_layout(False)


def spread_labels(figure: Figure) -> None:
    """Put each label into the nearest free place in its panel; one without any, or one that is there, is not shown."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    for axis in figure.axes:
        labels = [child for child in axis.get_children() if isinstance(child, PointLabel)]
        taken, shown = _markers(axis), set()
        for label in labels:
            point = axis.transData.transform(label.xy)
            place = (label.get_text(), *np.round(point))
            box = None if place in shown else _place(label, point, axis, taken, renderer)
            label.set_visible(box is not None)
            if box is not None:
                shown.add(place)
                taken = np.vstack([taken, box])


def _markers(axis: Axes) -> np.ndarray:
    """Boxes (left, bottom, right, top) in pixels of all markers in a panel."""
    half = MARKER * axis.figure.dpi / 72
    drawn = [line for line in axis.lines if line.get_marker() not in ("None", "", None) and len(line.get_xdata())]
    points = [axis.transData.transform(line.get_xydata()) for line in drawn]
    found = np.concatenate(points) if points else np.empty((0, 2))
    return np.hstack([found - half, found + half])


def _place(label: PointLabel, point: np.ndarray, axis: Axes, taken: np.ndarray, renderer) -> np.ndarray | None:
    """Move a label to the nearest free place. Returns its box in pixels, None if there is none."""
    extent = Text.get_window_extent(label, renderer)
    size, scale = np.array([extent.width, extent.height]) + 1, axis.figure.dpi / 72
    inside = np.array(axis.bbox.extents)
    for distance in DISTANCES:
        for direction in map(math.radians, DIRECTIONS):
            way = np.round([math.cos(direction), math.sin(direction)], 6)
            corner = point + distance * scale * way + size * (np.sign(way) - 1) / 2
            box = np.concatenate([corner, corner + size])
            if (box[:2] >= inside[:2]).all() and (box[2:] <= inside[2:]).all() and not _meets(box, taken):
                label.set_position(distance * way)
                label.set_horizontalalignment(("right", "center", "left")[int(np.sign(way[0])) + 1])
                label.set_verticalalignment(("top", "center", "bottom")[int(np.sign(way[1])) + 1])
                return box
    return None


def _meets(box: np.ndarray, others: np.ndarray) -> bool:
    """Whether a box overlaps any other."""
    return bool(((box[:2] < others[:, 2:]) & (box[2:] > others[:, :2])).all(axis=1).any())
