import math

import pytest

from obert.tables.table1 import Table1
from tables.examples import record


@pytest.fixture
def table(make_results):
    chosen = {"task": "squad", "method": "obert", "family": "as published"}
    runs = [(record("teacher", 80.0, task="squad"), None, 0)]
    runs += [
        (record("downstream", value, sparsity=0.9, recipe="obert_10_epochs", seed=seed, **chosen), None, 0)
        for seed, value in enumerate((71.0, 73.0))
    ]
    runs.append((record("downstream", 60.0, method="magnitude", sparsity=0.8), None, 0))
    return Table1().build(make_results(runs))


def _row(table, task, sparsity):
    (found,) = [row for _, row in table.iterrows() if (row["row", "task"], row["row", "sparsity"]) == (task, sparsity)]
    return found


def test_rows_are_the_papers_tasks_and_our_own(table):
    rows = list(zip(table["row", "task"], table["row", "sparsity"], strict=True))
    assert rows == [(t, s) for t in ("squad", "mnli", "qqp") for s in (0.8, 0.9, 0.97)] + [("movie_reviews", 0.8)]


def test_groups_are_in_the_papers_order_then_our_own(table):
    groups = list(dict.fromkeys(group for group, _ in table.columns))
    assert groups == [
        "row", "dense", "Soft MvP, 10 epochs", "oBERT, 10 epochs", "LT-BERT, 30 epochs", "oBERT, 30 epochs",
        "gradual: magnitude, 10 epochs, 2 layers",
    ]  # fmt: skip


def test_published_and_measured_are_apart(table):
    """Measured 71 and 73, so mean 72 and std sqrt(2); 72 - 87.98 = -15.98; 72 of the own dense 80 is 90 %."""
    row = _row(table, "squad", 0.9)
    group = row["oBERT, 10 epochs"]
    assert group["published"] == 87.98
    assert (group["measured"], group["measured_n"]) == (72.0, 2)
    assert group["measured_std"] == pytest.approx(math.sqrt(2))
    assert group["difference"] == pytest.approx(-15.98)
    assert group["recovery"] == pytest.approx(90.0)
    assert (row["dense", "published"], row["dense", "measured"]) == (88.54, 80.0)
    assert math.isnan(row["oBERT, 30 epochs", "measured"])


def test_nothing_measured_comes_from_published_numbers(no_results):
    content = Table1().build(no_results)
    measured = [column for column in content.columns if column[1] not in ("task", "metric", "sparsity")]
    measured = [column for column in measured if not column[1].startswith(("published", "approximate"))]
    assert content[measured].isna().all(axis=None)


def test_unpublished_values_are_dashes(table):
    shown = Table1().display(table)
    own = shown.iloc[-1]
    assert own["oBERT, 10 epochs", "published"] == own["dense", "published"] == "\N{EN DASH}"
    assert own["gradual: magnitude, 10 epochs, 2 layers", "measured"] == "60.00 (n=1)"
    assert ("gradual: magnitude, 10 epochs, 2 layers", "published") not in shown.columns
    squad = shown.iloc[1]
    assert squad["LT-BERT, 30 epochs", "published"] == "68.00*"
    assert squad["oBERT, 30 epochs", "published"] == "88.31 ± 0.13 (n=3)"
    assert squad["oBERT, 10 epochs", "difference"] == "-15.98"


def test_another_method_in_a_published_recipe_counts_as_measured_only(make_results):
    made = record("downstream", 60.0, task="squad", method="magnitude", sparsity=0.9, recipe="obert_10_epochs")
    table = Table1().build(make_results([(made, None, 0)]))
    assert math.isnan(_row(table, "squad", 0.9)["oBERT, 10 epochs", "measured"])
    assert _row(table, "squad", 0.9)["obert_10_epochs: magnitude, 10 epochs, 2 layers", "measured"] == 60.0
