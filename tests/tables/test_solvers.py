"""The table of solvers: what shares a row, and what a column."""

import math

from obert.tables.solvers import Solvers
from tables.examples import FISHER, record


def spec(solver=None, pattern="unstructured", **changes):
    """The specification of a one-shot run."""
    content = {"recipe": {"training": None, "pattern": pattern}}
    return content | ({"method": FISHER | {"solver": solver} | changes} if solver else {})


def run(value, recipe, method="obert", seed=0, scores=None, **options):
    made = record("downstream", value, recipe=recipe, method=method, sparsity=0.5, seed=seed, spec=spec(**options))
    return made, scores, 0


def table(make_results, *runs):
    return Solvers().build(make_results([(record("teacher", 90.0), None, 0), *runs]))


def test_table_has_a_row_for_each_setting_and_a_column_for_each_solver(make_results):
    content = table(
        make_results,
        run(60.0, "plain", method="magnitude"),
        run(80.0, "ours", solver="greedy"),
        run(70.0, "paper", solver="independent"),
        run(74.0, "paper", solver="independent", seed=1),
    )
    assert len(content) == 1
    assert list(dict.fromkeys(content.columns.get_level_values(0))) == [
        "row",
        "magnitude",
        "obert, independent",
        "obert, greedy",
    ]
    row = content.iloc[0]
    assert (row["row", "dense"], row["magnitude", "mean"], row["obert, greedy", "mean"]) == (90.0, 60.0, 80.0)
    assert (row["obert, independent", "mean"], row["obert, independent", "n"]) == (72.0, 2)
    shown = Solvers().display(content).iloc[0]
    assert (shown["training"], shown["pattern"], shown["sparsity %"]) == ("one-shot", "unstructured", "50.0")
    assert shown["obert, greedy"] == "80.00 (n=1)"


def test_other_patterns_and_numbers_of_gradients_get_rows_of_their_own(make_results):
    content = table(
        make_results,
        run(60.0, "plain", method="magnitude"),
        run(70.0, "paper", solver="independent"),
        run(65.0, "blocks", solver="independent", pattern="1x4"),
        run(75.0, "more", solver="independent", num_gradients=1024),
    )
    found = content.set_index([("row", "pattern"), ("row", "gradients")])["obert, independent", "mean"]
    assert found.to_dict() == {("unstructured", 256): 70.0, ("unstructured", 1024): 75.0, ("1x4", 256): 65.0}
    magnitude = content.set_index(("row", "pattern"))["magnitude", "mean"]
    assert magnitude["unstructured"].tolist() == [60.0, 60.0] and math.isnan(magnitude["1x4"])


def test_another_solver_is_compared_with_the_papers_example_by_example(make_results):
    content = table(
        make_results,
        run(100.0, "plain", method="magnitude", scores=(100,) * 4),
        run(75.0, "ours", solver="greedy", scores=(100, 100, 100, 0)),
        run(50.0, "paper", solver="independent", scores=(100, 100, 0, 0)),
        run(25.0, "exact", solver="joint", scores=(0, 0, 100, 0)),
    )
    labels = {label for label, name in content.columns if name == "difference"}
    assert labels == {"obert, greedy", "obert, joint"}  # neither magnitude nor the paper's solver itself
    greedy, joint = (content.iloc[0][f"obert, {solver}"] for solver in ("greedy", "joint"))
    assert (greedy["difference"], greedy["difference_low"], greedy["difference_high"]) == (25, 0, 75)
    assert joint["difference"] == -25 and joint["difference_low"] < 0 < joint["difference_high"]
    shown = Solvers().display(content).iloc[0]
    assert shown["obert, greedy less independent"] == "+25.00 [+0.00, +75.00]"


def test_a_solver_without_the_papers_beside_it_has_no_difference(make_results):
    content = table(
        make_results, run(80.0, "ours", solver="greedy"), run(70.0, "paper", solver="independent", pattern="1x4")
    )
    assert "difference" not in content.columns.get_level_values(1)
