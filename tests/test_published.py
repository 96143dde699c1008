from collections import Counter

import pytest

from obert.config import load_recipe
from obert.errors import UserError
from obert.published import load_published
from obert.schema import PRETRAINED


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


def test_values_that_are_easily_misread(published):
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


def test_recipes_and_methods_fit_the_numbers(published):
    """Recipes that reproduce a number exist, prune as it was pruned, and train for the published epochs."""
    named = [number for number in published.numbers if number.recipe is not None]
    assert len(named) > 40
    for number in named:
        recipes = [load_recipe(name) for name in number.recipe.split("@") if name != PRETRAINED]
        assert [m for recipe in recipes for m in recipe.methods] == ([number.method] if number.method else []), number
        on_task = [recipe for recipe in recipes if recipe.stage not in ("upstream", "upstream_teacher")]
        assert sum(recipe.training.epochs for recipe in on_task) == number.epochs, number


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{paper: p, table: '1', task: t, metric: m, value: 1.0, sparsty: 0.9}", "Did you mean 'sparsity'"),
        ("{paper: q, table: '1', task: t, metric: m, value: 1.0}", "paper 'q' is not one of"),
        ("{paper: p, table: '1', task: t, metric: m, value: 1.0, sparsity: 0.9}", "none of them"),
        ("{paper: p, table: '1', task: t, metric: f1, value: 991.0}", "f1 is in percent, found 991"),
    ],
)
def test_mistakes_are_named(tmp_path, line, message):
    path = tmp_path / "published.yaml"
    path.write_text(f"papers: {{p: {{title: a, reference: b, model: c}}}}\nnumbers:\n- {line}\n")
    with pytest.raises(UserError, match=message):
        load_published(path)


def test_a_cell_appears_once(tmp_path):
    line = "{paper: p, table: '1', task: t, metric: m, value: 1.0}"
    path = tmp_path / "published.yaml"
    path.write_text(f"papers: {{p: {{title: a, reference: b, model: c}}}}\nnumbers: [{line}, {line}]\n")
    with pytest.raises(UserError, match="two numbers for one cell"):
        load_published(path)
