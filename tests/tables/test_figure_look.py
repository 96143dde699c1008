"""What all figures have in common: looks, axes, panels, legends and labels."""

import itertools
import warnings

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from obert.foundation import registry
from obert.tables._figures import fix_layout, method_styles, series_styles
from obert.tables._labels import PointLabel, label_point
from obert.tables._panels import SPAN, score_axes, shared_legend, some_panels
from tables.examples import record


def drawn(name, results):
    table = registry.load("tables", name)()
    return table.draw(table.build(results))


def markers_of(figure, colour):
    """The markers of the lines of one colour."""
    lines = [line for axis in figure.axes for line in axis.lines if to_hex(line.get_color()) == to_hex(colour)]
    return {line.get_marker() for line in lines} - {"None", "|", "_"}  # without the caps of error bars


@pytest.mark.parametrize("name", ["accuracy_vs_sparsity", "pareto_sparsity", "pareto_speed", "figure1", "figure2"])
def test_a_method_has_one_colour_and_marker_in_every_figure(name, two_tasks):
    looks, figure = method_styles([]), drawn(name, two_tasks)
    for method in ("obert", "magnitude"):
        found = markers_of(figure, looks[method]["color"])
        assert found == {looks[method]["marker"]} or (method == "magnitude" and not found)


def test_series_of_one_method_differ_in_their_dashes_alone():
    looks = series_styles([("a: obert", "obert"), ("b: obert", "obert"), ("a: magnitude", "magnitude")])
    first, second = looks["a: obert"], looks["b: obert"]
    assert first | {"linestyle": second["linestyle"]} == second and first["linestyle"] != second["linestyle"]
    assert looks["a: magnitude"]["linestyle"] == first["linestyle"]
    assert looks["a: magnitude"]["color"] != first["color"]


def test_axes_of_a_score_share_a_scale_on_which_a_point_stays_small():
    _, axes = some_panels(2, columns=2)
    axes[0].plot([1, 2], [76.0, 77.0])
    axes[1].plot([1, 2], [74.0, 75.0])
    score_axes(axes)
    limits = {axis.get_ylim() for axis in axes}
    ((low, high),) = limits
    assert high - low == pytest.approx(SPAN) and low < 74 and 77.9 < high < 78.2
    axes[0].plot([1, 2], [20.0, 77.0])
    axes[0].set_ylim(auto=True)
    axes[0].autoscale()
    score_axes(axes)
    assert axes[1].get_ylim()[0] < 20  # what is drawn is never cut off


def test_there_are_as_many_panels_as_there_is_something_to_draw():
    figure, axes = some_panels(4, columns=3)
    assert len(axes) == len(figure.axes) == 4
    rows = {round(axis.get_position().y0, 3) for axis in axes}
    assert len(rows) == 2


def test_figures_leave_out_the_panels_that_would_be_empty(make_results, example_runs):
    """A second recipe that only one of two tasks has."""
    more = [
        (record("teacher", 75.0, task="city_qa"), None, 0),
        (record("downstream", 60.0, task="city_qa", method="obert", sparsity=0.9), None, 0),
        (record("downstream", 60.0, recipe="one_shot", method="obert", sparsity=0.5), None, 0),
    ]
    figure = drawn("accuracy_vs_sparsity", make_results([*example_runs, *more]))
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["movie_reviews, gradual", "city_qa, gradual", "movie_reviews, one_shot"]
    assert all(axis.lines for axis in figure.axes)


@pytest.mark.parametrize("names", [1, 12, 90])
@pytest.mark.parametrize("place", ["upper", "lower"])
def test_a_legend_of_any_length_fits_and_leaves_the_panels_their_size(names, place):
    figure, axes = some_panels(2, columns=2)
    height = figure.get_figheight()
    for i in range(names):
        axes[i % 2].plot([0, 1], [i, i + 1], label=f"a recipe with a long name {i}: soft_movement, 10 epochs, measured")
    shared_legend(figure, place)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fix_layout(figure)
    renderer = FigureCanvasAgg(figure).get_renderer()
    (box,) = (legend.get_window_extent(renderer) for legend in figure.legends)
    assert len(figure.legends[0].get_texts()) == names
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 and box.y1 <= figure.bbox.height
    for axis in axes:
        assert axis.bbox.height > 0.6 * height * figure.dpi
        assert not axis.bbox.overlaps(box)


def test_figure_1_of_many_recipes_does_not_collapse(make_results):
    """More than forty lines in a panel, as an experiment of hundreds of runs has."""
    recipes, methods = [f"gradual_with_a_long_name_{i}" for i in range(8)], registry.names("pruning")
    runs = [(record("teacher", 80.0), None, 0)] + [
        (record("downstream", 50.0 + i, recipe=recipe, method=method, sparsity=0.9), None, 0)
        for i, (recipe, method) in enumerate(itertools.product(recipes, methods[:6]))
    ]
    figure = drawn("figure1", make_results(runs))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fix_layout(figure)
    assert all(axis.bbox.height > 2 * figure.dpi for axis in figure.axes)


def boxes(axis, renderer):
    """Of the visible labels and the markers in a panel."""
    labels = [one for one in axis.get_children() if isinstance(one, PointLabel) and one.get_visible()]
    texts = [Text.get_window_extent(label, renderer) for label in labels]
    return labels, texts


def test_labels_cover_neither_each_other_nor_a_point():
    """Sixty points in a small panel, some of them in one place; each that is not alone has fewer labels than points."""
    figure, (axis,) = some_panels(1, columns=1)
    points = np.random.default_rng(0).normal(size=(60, 2))
    points[1] = points[0]
    for i, (x, y) in enumerate(points):
        axis.plot(x, y, "o", markersize=5, linestyle="none")
        label_point(axis, "12/90q" if i < 2 else f"12/{i}", x, y)
    fix_layout(figure)
    labels, texts = boxes(axis, FigureCanvasAgg(figure).get_renderer())
    assert 20 < len(labels) < 60 and [label.get_text() for label in labels].count("12/90q") <= 1
    assert not any(one.overlaps(other) for one, other in itertools.combinations(texts, 2))
    centres = axis.transData.transform(points)
    assert not any(box.contains(*centre) for box in texts for centre in centres)
    assert all(axis.bbox.x0 <= box.x0 and box.x1 <= axis.bbox.x1 for box in texts)


def test_a_lonely_point_has_its_label_right_beside_it():
    figure, (axis,) = some_panels(1, columns=1)
    axis.plot([0, 1], [0, 1], "o", linestyle="none")
    label_point(axis, "3/90", 0, 0)
    fix_layout(figure)
    (label,), (box,) = boxes(axis, FigureCanvasAgg(figure).get_renderer())
    x, y = axis.transData.transform((0, 0))
    assert label.get_text() == "3/90"
    assert x < box.x0 < x + 12 and y < box.y0 < y + 12


def test_a_figure_without_names_has_no_legend():
    figure = Figure(layout="constrained")
    figure.subplots()
    shared_legend(figure, "upper")
    assert not figure.legends
