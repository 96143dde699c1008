import re
from collections import Counter

import pytest
import yaml

from obert.experiment.recipes import load_recipe
from obert.experiment.schema import PRETRAINED
from obert.foundation.errors import UserError
from obert.tables._published import load_published


@pytest.fixture
def published(root):
    return load_published()


def test_table_1_is_complete(published):
    """3 dense baselines and 9 cells a task. The sum is that of the paper's cells, added up by task:
    264.14 dense + 757.70 SQuAD + 732.38 MNLI + 814.51 QQP."""
    cells = published.table("obert", "1")
    assert len(cells) == 30
    assert sum(n.is_dense for n in cells) == 3
    assert sum(n.value for n in cells) == pytest.approx(2568.73)
    assert Counter(n.task for n in cells) == {"squad": 10, "mnli": 10, "qqp": 10}
    pruned = Counter((n.label, n.epochs) for n in cells if not n.is_dense)
    assert pruned == {("Soft MvP", 10): 6, ("oBERT", 10): 6, ("LT-BERT", 30): 6, ("oBERT", 30): 9}


def test_published_values_that_are_easily_misread_are_right(published):
    cells = {(n.task, n.label, n.epochs, n.sparsity): n for n in published.table("obert", "1")}
    assert cells["qqp", "Soft MvP", 10, 0.97].value == 89.10
    assert cells["squad", "oBERT", 30, 0.97].std == 0.11
    starred = {key[:2] for key, number in cells.items() if number.approximate}
    assert starred == {("squad", "LT-BERT"), ("mnli", "LT-BERT")}


def test_table_2_is_complete(published):
    """5 dense baselines (448.40), LT-BERT at 90 % (68 + 75 + 90 + 85 + 80 = 398), Prune OFA at 90 % (439.58) and oBERT
    at 90 % (445.05) and, on three tasks, 97 % (256.16)."""
    cells = published.table("obert", "2")
    by_label = Counter()
    for number in cells:
        by_label[number.label, number.sparsity] += number.value
    assert len(cells) == 23
    assert dict(by_label) == {
        (None, None): pytest.approx(448.40),
        ("LT-BERT", 0.9): pytest.approx(398),
        ("Prune OFA", 0.9): pytest.approx(439.58),
        ("oBERT", 0.9): pytest.approx(445.05),
        ("oBERT", 0.97): pytest.approx(256.16),
    }
    assert {(n.std is None, n.runs) for n in cells if n.label == "oBERT"} == {(False, 4), (True, 4)}


def test_table_3_is_complete(published):
    """Nine rows of 12, 6 and 3 layers. Sums: unstructured 266.83 + 263.30 + 251.24, 4-block 265.62 + 260.66 + 248.14,
    with QAT 263.63 + 258.63 + 245.95."""
    cells = [n for n in published.table("obert", "3") if not n.is_dense]
    by_label = Counter()
    for number in cells:
        by_label[number.label] += number.value
    assert Counter((n.layers, n.sparsity) for n in cells) == {(k, s): 3 for k in (12, 6, 3) for s in (0, 0.8, 0.9)}
    assert dict(by_label) == {
        "unstructured": pytest.approx(781.37),
        "4-block": pytest.approx(774.42),
        "4-block and QAT": pytest.approx(768.21),
    }


def test_tables_14_and_17_are_complete(published):
    """Sums by column; of Table 14 (2113.81) and of Table 17, ten rows."""
    assert sum(n.value for n in published.table("obert", "14")) == pytest.approx(2113.81)
    cells = published.table("obert", "17")
    assert len(cells) == 50
    sums = Counter()
    for number in cells:
        sums[number.metric] += number.value
    assert dict(sums) == {
        "f1": pytest.approx(863.48),
        "throughput": pytest.approx(6809.22),
        "speedup": pytest.approx(103.46),
        "size_gzip_mb": pytest.approx(1225.9),
        "compression_ratio": pytest.approx(63.78),
    }


def sums(published, table, *names):
    """The sum of a table's values, by some of their fields."""
    found = Counter()
    for number in published.table("obert", table):
        found[tuple(getattr(number, name) for name in names)] += number.value
    return dict(found)


def test_tables_4_and_7_are_complete(published):
    """F1 and exact match of four cells each: 88.54 + 49.97 + 83.17 + 88.58, 91.22 + 90.20 + 91.07 + 90.29 and so on."""
    f1, exact_match = ("f1",), ("exact_match",)
    assert sums(published, "4", "metric") == {f1: pytest.approx(310.26), exact_match: pytest.approx(271.99)}
    assert sums(published, "7", "metric") == {f1: pytest.approx(362.78), exact_match: pytest.approx(335.99)}
    cells = {(n.label, n.epochs, n.metric): n.value for n in published.table("obert", "4")}
    assert cells["magnitude", None, "exact_match"] == 35.24 and cells["oBERT", 1, "f1"] == 88.58
    assert {(n.label, n.sparsity) for n in published.table("obert", "7") if not n.is_dense} == {
        ("Prune OFA", 0.9),
        ("oBERT", 0.9),
        ("oBERT", 0.95),
    }


def test_table_5_is_complete(published):
    """Eleven metrics of seven tasks, by column."""
    assert len(published.table("obert", "5")) == 33
    columns = {(None,): 946.9, ("PLATON",): 912.5, ("oBERT",): 922.47}
    assert sums(published, "5", "label") == {label: pytest.approx(total) for label, total in columns.items()}
    assert {n.sparsity for n in published.table("obert", "5") if not n.is_dense} == {0.9}


def test_tables_6_and_8_are_complete(published):
    """Eight models and three, by column; 1.30 GB is 1300 MB."""
    columns = {"weights_millions": 232.8, "weights_ratio": 81.64, "speedup": 40.80, "f1": 693.48}
    assert sums(published, "6", "metric") == {(name,): pytest.approx(total) for name, total in columns.items()}
    columns = {"f1": 271.40, "size_mb": 1347.76, "compression_ratio": 171, "throughput": 1174.81, "speedup": 76}
    assert sums(published, "8", "metric") == {(name,): pytest.approx(total) for name, total in columns.items()}


def test_table_6_repeats_tables_3_and_17(published):
    """Of oBERT's three models and the dense one it prints the F1 and the speed-up of Table 17 again."""
    wanted = {(n.layers, n.sparsity, n.label, n.metric): n.value for n in published.table("obert", "17")}
    ours = [n for n in published.table("obert", "6") if n.method == "obert" or n.label == "dense"]
    shared = [n for n in ours if n.metric in ("f1", "speedup")]
    assert len(shared) == 8
    assert all(wanted[n.layers, n.sparsity, n.label, n.metric] == n.value for n in shared)


def test_tables_12_and_13_are_complete(published):
    """By column; 757.17 = 241.31 SQuAD + 251.27 MNLI + 264.59 QQP."""
    columns = {(None, None): 254.28, ("Soft MvP", 10): 483.50, ("oBERT", 10): 495.89, ("oBERT", 30): 757.17}
    assert sums(published, "12", "label", "epochs") == {key: pytest.approx(total) for key, total in columns.items()}
    columns = {(None, None): 254.48, ("Prune OFA", 0.9): 249.98, ("oBERT", 0.9): 253.02, ("oBERT", 0.97): 245.00}
    assert sums(published, "13", "label", "sparsity") == {key: pytest.approx(total) for key, total in columns.items()}


def test_standard_deviations_of_tables_15_and_16_are_complete(published):
    """Table 15, of three runs: 0.35 + 0.33 SQuAD, 0.54 + 0.39 MNLI, 0.17 + 0.22 QQP. Table 16, of four: 0.16 + 0.27,
    0.25 + 0.59, 0.15 + 0.25."""
    spread = {table: [n for n in published.table("obert", table) if n.std] for table in ("1", "12", "2", "13")}
    assert [len(spread[table]) for table in ("1", "12", "2", "13")] == [9, 9, 6, 6]
    assert sum(n.std for n in spread["1"] + spread["12"]) == pytest.approx(2.00)
    assert sum(n.std for n in spread["2"] + spread["13"]) == pytest.approx(1.67)
    assert {n.runs for n in spread["12"]} == {3} and {n.runs for n in spread["13"]} == {4}


@pytest.mark.parametrize("epochs", [10, 30])
def test_recipes_follow_the_published_schedules(published, epochs):
    recipe, schedule = load_recipe(f"obert_{epochs}_epochs"), published.schedule("obert", epochs)
    assert (recipe.training.epochs, recipe.training.learning_rate) == (epochs, schedule.learning_rate)
    assert recipe.schedule == schedule.sparsity


def test_recipes_and_methods_of_published_numbers_exist_and_fit(published):
    """Recipes that reproduce a number exist, prune as it was pruned, and train for the published epochs."""
    named = [number for number in published.numbers if number.recipe is not None]
    assert len(named) > 40
    for number in named:
        recipes = [load_recipe(name) for name in number.recipe.split("@") if name != PRETRAINED]
        methods = [method for recipe in recipes for method in recipe.methods]
        assert number.method in methods if number.method else not methods, number
        on_task = [recipe for recipe in recipes if recipe.stage not in ("upstream", "upstream_teacher")]
        if number.epochs is not None:  # as is stated of all but one-shot pruning and Table 7
            assert sum(recipe.training.epochs for recipe in on_task) == number.epochs, number
        assert all(recipe.is_one_shot for recipe in on_task) == (number.table == "4" and number.epochs is None), number


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{paper: p, table: '1', task: t, metric: m, value: 1.0, sparsty: 0.9}", "Did you mean 'sparsity'"),
        ("{paper: q, table: '1', task: t, metric: m, value: 1.0}", "paper 'q' is not one of"),
        ("{paper: p, table: '1', task: t, metric: m, value: 1.0, sparsity: 0.9}", "none of them"),
        ("{paper: p, table: '1', task: t, metric: f1, value: 991.0}", "f1 is in percent, found 991"),
    ],
)
def test_mistake_in_the_file_is_named_with_its_key(tmp_path, line, message):
    path = tmp_path / "published.yaml"
    path.write_text(f"papers: {{p: {{title: a, reference: b, model: c}}}}\nnumbers:\n- {line}\n")
    with pytest.raises(UserError, match=message):
        load_published(path)


def test_two_numbers_for_one_cell_are_refused(tmp_path):
    line = "{paper: p, table: '1', task: t, metric: m, value: 1.0}"
    path = tmp_path / "published.yaml"
    path.write_text(f"papers: {{p: {{title: a, reference: b, model: c}}}}\nnumbers: [{line}, {line}]\n")
    with pytest.raises(UserError, match="two numbers for one cell"):
        load_published(path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"values": [900.0, "chance"]}, "key 'curves.0': Value error, accuracy is in percent, found 900"),
        ({"values": ["~900", "chance"]}, "key 'curves.0': Value error, accuracy is in percent, found ~900"),
        ({"values": [-1.0, "chance"]}, "key 'curves.0': Value error, accuracy is in percent, found -1"),
        ({"sparsities": [0.2, 0.2]}, "key 'curves.0': Value error, a sparsity appears twice"),
        ({"sparsities": [0.0, 0.2]}, "key 'curves.0.sparsities.0': Input should be greater than 0"),
        ({"sparsities": [], "values": []}, "key 'curves.0.sparsities': Tuple should have at least 1 item"),
        ({"values": [50.0]}, "key 'curves.0': Value error, 1 values for 2 sparsities"),
    ],
)
def test_a_mistake_in_a_curve_is_told_with_its_place(tmp_path, changes, problem):
    curve = {"paper": "p", "table": "t", "task": "a", "metric": "accuracy", "method": "magnitude", "label": "GMP"}
    curve |= {"sparsities": [0.2, 0.5], "values": [50.0, "chance"], "reading_error": 0.3} | changes
    content = {"papers": {"p": {"title": "x", "reference": "x", "model": "x"}}, "numbers": [], "curves": [curve]}
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=re.escape(problem)):
        load_published(path)


@pytest.mark.parametrize("chance", [0, 100, 250])
def test_chance_is_a_percentage(tmp_path, chance):
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump({"papers": {}, "numbers": [], "chance": {"race": chance}}))
    with pytest.raises(UserError, match=r"key 'chance\.race': Input should be"):
        load_published(path)
