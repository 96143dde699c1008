from collections import Counter

import pytest

from obert.config import RECIPES, load_recipe
from obert.errors import UserError
from obert.published import load_published


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


def test_recipes_and_methods_fit_the_numbers(published):
    """A recipe that exists is for the number's method, and its epochs are the published ones."""
    for number in published.numbers:
        path = RECIPES / f"{number.recipe}.yaml"
        if number.recipe is None or not path.is_file():
            continue
        recipe = load_recipe(number.recipe)
        assert list(recipe.methods) == [number.method], path
        assert recipe.training.epochs == number.epochs, path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{paper: p, table: '1', task: t, metric: m, value: 1.0, sparsty: 0.9}", "Did you mean 'sparsity'"),
        ("{paper: q, table: '1', task: t, metric: m, value: 1.0}", "paper 'q' is not one of"),
        ("{paper: p, table: '1', task: t, metric: m, value: 1.0, sparsity: 0.9}", "none of them"),
        ("{paper: p, table: '1', task: t, metric: m, value: 991.0}", "less than or equal to 100"),
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
