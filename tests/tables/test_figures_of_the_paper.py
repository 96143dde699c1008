"""Figures 1 and 6 to 9: published and measured lines apart, and which runs are drawn where."""

import pytest

from obert.foundation import registry
from obert.report.built import build_table
from obert.tables._published import load_published
from obert.tables._schedules import published_curve
from tables.examples import record

TRAINING = {"epochs": 10.0, "learning_rate": {"rewind_epochs": []}}


def figure(number, results):
    return build_table(f"figure{number}", registry.load("tables", f"figure{number}")(), results)


def gradual(recipe, rewinds):
    spec = {"recipe": {"training": {**TRAINING, "learning_rate": {"rewind_epochs": rewinds}}}}
    return record("downstream", 70.0, method="obert", sparsity=0.9, recipe=recipe, spec=spec)


def test_figure_1_shows_squad_of_table_1_and_measured_scores(results):
    content = figure(1, results).content
    theirs, ours = (content[content["source"] == source] for source in ("published", "measured"))
    assert len(theirs) == 9 and set(theirs["task"]) == {"squad"} and set(theirs["dense"]) == {88.54}
    line = theirs[theirs["series"] == "oBERT, 30 epochs"].set_index("sparsity")
    assert line["score"].to_dict() == {0.8: 89.04, 0.9: 88.31, 0.97: 85.98}
    assert set(ours["task"]) == {"movie_reviews"} and set(ours["dense"]) == {80.0}
    assert sorted(ours["score"]) == [0.0, 75.0, 87.5]  # two seeds each: movement, magnitude, oBERT


def test_figure_1_draws_published_and_measured_lines_differently(results):
    built = figure(1, results).figure
    assert [axis.get_title() for axis in built.axes] == ["squad", "movie_reviews"]
    for axis, (source, filled) in zip(built.axes, (("published", "none"), ("measured", "full")), strict=True):
        handles, labels = axis.get_legend_handles_labels()
        assert labels and all(label.endswith(source) for label in labels)
        assert {handle[0].get_fillstyle() for handle in handles} == {filled}
    assert len(built.legends[0].get_texts()) == 4 + 3  # published and measured series


@pytest.mark.parametrize(("epochs", "start", "end", "final"), [(10, 2, 8, 3e-5), (30, 2, 26, 8e-6)])
def test_published_schedules_match_table_9(root, epochs, start, end, final):
    """Cubic from 70 to 90 %: halfway 90 - 20 / 8 = 87.5 %. The learning rate reaches its end before each rewind."""
    curve = published_curve(load_published().schedule("obert", epochs)).set_index("epoch")
    sparsity, rate = curve["sparsity"], curve["learning_rate"]
    assert sparsity[start - 0.01] == 0 and sparsity[start] == pytest.approx(0.7)
    assert sparsity[(start + end) / 2] == pytest.approx(0.875)
    assert sparsity[end] == sparsity.iloc[-1] == pytest.approx(0.9)
    assert rate[0.0] == rate[8.0 if epochs == 10 else 26.0] == pytest.approx(8e-5)
    assert rate.iloc[-1] == rate[end - 0.01] == pytest.approx(final)
    jumps = (rate.diff() > 0).sum()
    assert jumps == (1 if epochs == 10 else 7)


@pytest.mark.parametrize(("number", "recipe"), [(6, "one_cycle"), (7, "one_cycle"), (8, "rewound"), (9, "rewound")])
def test_figures_6_to_9_draw_the_recipes_with_their_number_of_rewinds(make_results, number, recipe):
    one_shot = record("downstream", 70.0, method="obert", sparsity=0.9, recipe="one_shot")
    runs = [(gradual("one_cycle", [8.0]), None, 20), (gradual("rewound", [2.0, 6.0]), None, 20), (one_shot, None, 0)]
    built = figure(number, make_results(runs))
    assert built.content["recipe"].unique().tolist() == ["published", recipe]
    axes = built.figure.axes
    assert [axis.get_title() for axis in axes] == ["published", recipe]
    assert axes[0].get_ylabel() == ("learning rate" if number in (6, 8) else "sparsity (%)")
    (line,) = axes[1].get_lines()
    assert line.get_ydata().max() == pytest.approx(8e-5 * 0.95 if number in (6, 8) else 90.0)


def test_a_figure_without_runs_says_which_runs_it_needs(make_results):
    results = make_results([(gradual("one_cycle", []), None, 20)])
    assert not any("belongs" in note.text for note in figure(6, results).notes)
    assert "rewound more than once" in figure(8, results).notes[-1].text
