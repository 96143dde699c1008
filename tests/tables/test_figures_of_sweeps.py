"""Figures 3 to 5: lines by one parameter, the others at the best trial's values; what is said of their scale."""

import pandas as pd
import pytest

from obert.commands.tables import load_results
from obert.experiment.plan import Plan
from obert.foundation import registry
from obert.foundation.errors import UserError
from obert.report.built import build_table
from obert.report.text import to_csv
from obert.tables._sweeps import draw_history, draw_importances
from tables.examples import trials


def figure(number, results):
    return build_table(f"figure{number}", registry.load("tables", f"figure{number}")(), results)


@pytest.mark.parametrize(
    ("number", "expected", "fixed"),
    [
        (3, {10: [88.0, 68.0], 20: [87.0, 67.0]}, ("num_gradients 100", "dampening 1e-07")),
        (4, {50: [87.0, 67.0], 100: [88.0, 68.0]}, ("fisher_block_size 10", "dampening 1e-07")),
        (5, {1e-7: [88.0, 68.0], 1e-3: [86.0, 66.0]}, ("num_gradients 100", "fisher_block_size 10")),
    ],
)
def test_each_line_has_the_trials_that_differ_from_the_best_in_one_value(results, number, expected, fixed):
    built = figure(number, results)
    found = {value: line.sort_values("sparsity")["score"].tolist() for value, line in built.content.groupby("value")}
    assert found == {value: pytest.approx(scores) for value, scores in expected.items()}
    assert set(built.content["sparsity"]) == {0.5, 0.7} and set(built.content["dense"]) == {92.0}
    labels = [line.get_label() for line in built.figure.axes[0].get_lines()]
    assert labels[0] == "dense" and len(labels) == 3
    (note,) = built.notes
    for part in (*fixed, "example, 2 layers", "recipe one_shot", "1 seed", "movie_reviews 800", "20 %"):
        assert part in note.text
    assert "held out, not on validation examples" in built.caption


def test_ablation_leaves_failed_trials_out(make_results, example_runs):
    best = 5
    content = figure(4, make_results(example_runs, sweeps={"ablation": trials(failing=(best,))})).content
    assert content["value"].unique().tolist() == [50] and content["score"].tolist() == pytest.approx([87.0, 67.0])


def test_figure_3_has_m_fac_beside_the_block_sizes(make_results, example_runs):
    """In a panel of its own, a line a number of gradients; a block Fisher's gradients are Figure 4's alone."""
    blocks = trials().drop(columns=["methods.obert.num_gradients", "methods.obert.dampening"])
    mfac = trials().drop(columns=["methods.obert.fisher_block_size", "methods.obert.dampening"])
    mfac = mfac.rename(columns={"methods.obert.num_gradients": "methods.mfac.num_gradients"})
    sweeps = {"blocks": blocks, "mfac": mfac, "gradients": trials().drop(columns="methods.obert.fisher_block_size")}
    built = figure(3, make_results(example_runs, sweeps=sweeps))
    axes = {axis.get_title().split(",")[0]: axis for axis in built.figure.axes}
    labels = {name: [line.get_label() for line in axis.get_lines()][1:] for name, axis in axes.items()}
    assert labels == {"blocks": ["B = 10", "B = 20"], "mfac": ["M-FAC, m = 50", "M-FAC, m = 100"]}


def test_a_dampening_may_be_a_share(make_results, example_runs):
    tried = trials().astype({"methods.obert.dampening": object}).replace({"methods.obert.dampening": {1e-3: "1%"}})
    built = figure(5, make_results(example_runs, sweeps={"ablation": tried}))
    labels = [line.get_label() for line in built.figure.axes[0].get_lines()]
    assert labels == ["dense", "\N{GREEK SMALL LETTER LAMDA} = 1e-07", "\N{GREEK SMALL LETTER LAMDA} = 1%"]


def test_a_sweep_without_trials_gives_its_command(make_results, example_runs):
    built = figure(5, make_results(example_runs, sweeps={"ablation": pd.DataFrame()}))
    assert built.content.empty
    assert built.notes[0].lines == ("python -m obert sweep --config configs/sweeps/ablation.yaml",)


def test_an_experiment_without_a_sweep_is_told_how_to_add_one(make_results, example_runs):
    built = figure(3, make_results(example_runs))
    assert "No sweep of this experiment varies fisher_block_size" in built.notes[0].text


def test_trials_of_another_key_draw_no_line(make_results, example_runs):
    sweeps = {"quantize": trials().rename(columns={"methods.obert.dampening": "training.epochs"})}
    assert figure(5, make_results(example_runs, sweeps=sweeps)).content.empty


def test_load_results_reads_trials_and_refuses_those_of_another_experiment(root, tmp_path):
    (tmp_path / "sweeps" / "smoke").mkdir(parents=True)
    file = tmp_path / "sweeps" / "smoke" / "trials.csv"
    plan = Plan.load("configs/smoke.yaml")

    def load():
        return load_results(plan, "configs/smoke.yaml", tmp_path / "runs", tmp_path / "sweeps").sweeps

    file.write_text(to_csv(trials(failing=(2,)).assign(experiment="smoke")))
    assert to_csv(load()["smoke"]) == file.read_text()
    file.write_text(to_csv(trials()))
    with pytest.raises(UserError, match="'smoke' is a sweep of experiment example"):
        load()
    file.write_text("nothing")
    with pytest.raises(UserError, match="is damaged"):
        load()
    file.unlink()
    assert load()["smoke"].empty


def test_history_shows_complete_trials_and_the_best_so_far():
    axis = draw_history(trials(failing=(1,))).axes[0]
    points, best = axis.get_lines()
    assert points.get_xdata().tolist() == [0, 2, 3, 4, 5, 6, 7]
    assert best.get_ydata().tolist() == pytest.approx([75, 75, 76, 76, 78, 78, 78])
    assert axis.get_title() == "7 complete, 1 failed"


def test_importances_are_bars_with_the_highest_on_top():
    axis = draw_importances({"a": 0.7, "b": 0.3}).axes[0]
    assert [bar.get_width() for bar in axis.patches] == [0.3, 0.7]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["b", "a"]
