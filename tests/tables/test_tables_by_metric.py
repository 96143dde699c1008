"""Tables 4, 5, 7, 12, 13, 15 and 16 from hand-made records: which runs belong there, and rows of each metric."""

import math

import pytest

from obert.records.record import Score
from obert.tables.table1 import Table1
from obert.tables.table4 import Table4
from obert.tables.table5 import Table5
from obert.tables.table7 import Table7
from obert.tables.table12 import Table12
from obert.tables.table13 import Table13
from obert.tables.table15 import Table15
from obert.tables.table16 import Table16
from tables.examples import record

MODEL = {"source": "example", "layers": 2, "parameters": 1000, "prunable_parameters": 400}
LARGE = {**MODEL, "layers": 24}


def answers(stage, f1, exact_match, epochs=10.0, task="squad", **fields):
    """A record of a question-answering run with both its metrics; of a task's teacher without a method."""
    training = None if epochs is None else {"epochs": epochs}
    spec = {"recipe": {"training": training, **fields.pop("spec", {})}}
    metrics = {"exact_match": Score(value=exact_match, count=4), "f1": Score(value=f1, count=4)}
    return record(stage, task=task, metrics=metrics, primary_metric="f1", spec=spec, **fields)


def rows_of(table, make_results, *records):
    content = table().build(make_results([(made, None, 0) for made in records]))
    names = [name for name in ("task", "metric", "sparsity") if ("row", name) in content]
    return {tuple(row["row", name] for name in names): row for _, row in content.iterrows()}


def labels_of(rows):
    return list(dict.fromkeys(label for label, _ in next(iter(rows.values())).index))


def test_table_4_has_both_metrics_of_what_is_pruned_n_of_m(make_results):
    chosen = {"task": "city_qa", "sparsity": 0.5, "epochs": None}
    rows = rows_of(
        Table4,
        make_results,
        answers("teacher", 80.0, 64.0, task="city_qa"),
        answers("downstream", 60.0, 48.0, method="obert", recipe="one_shot_n_m", spec={"pattern": "2:4"}, **chosen),
        answers("downstream", 70.0, 50.0, method="obert", recipe="one_shot", **chosen),
    )
    own = "one_shot_n_m: obert, one-shot, 2 layers"
    assert labels_of(rows) == ["row", "dense", "magnitude", "oBERT", "oBERT, 1 epoch", own]
    assert [key[:2] for key in rows] == [(t, m) for t in ("squad", "city_qa") for m in ("f1", "exact_match")]
    assert rows["squad", "exact_match", 0.5]["magnitude", "published"] == 35.24
    assert rows["squad", "f1", 0.5]["oBERT, 1 epoch", "published"] == 88.58
    found = rows["city_qa", "exact_match", 0.5]
    assert (found["dense", "measured"], found[own, "measured"]) == (64.0, 48.0)
    assert found[own, "recovery"] == pytest.approx(75.0)  # 48 of 64; of F1, too, 60 of 80
    assert rows["city_qa", "f1", 0.5][own, "recovery"] == pytest.approx(75.0)


def test_table_5_lists_models_trained_without_distillation(make_results):
    chosen = {"task": "city_qa", "method": "obert", "sparsity": 0.9}
    distilled = {"distillation": {"hardness": 1.0}}
    rows = rows_of(
        Table5,
        make_results,
        answers("downstream", 60.0, 50.0, recipe="alone", **chosen),
        answers("downstream", 61.0, 51.0, recipe="distilled", spec=distilled, **chosen),
        answers("downstream", 62.0, 52.0, recipe="untrained", epochs=None, **chosen),
        answers("transfer", 63.0, 53.0, recipe="transfer@alone", **chosen),
        answers("transfer", 64.0, 54.0, recipe="transfer@dense", task="city_qa"),
    )
    own = [label for label in labels_of(rows) if ":" in label]
    assert own == ["transfer@alone: obert, 10 epochs, 2 layers", "alone: obert, 10 epochs, 2 layers"]
    assert rows["stsb", "spearman", 0.9]["oBERT", "published"] == 87.6
    assert rows["city_qa", "exact_match", 0.9][own[0], "measured"] == 53.0


@pytest.mark.parametrize(("model", "measured"), [(LARGE, True), (MODEL, False)])
def test_table_7_has_models_as_deep_as_bert_large(make_results, model, measured):
    chosen = {"method": "obert", "sparsity": 0.9, "recipe": "gradual", "model": model}
    rows = rows_of(Table7, make_results, answers("downstream", 60.0, 50.0, **chosen))
    assert len(rows) == 4 and rows["squad", "f1", 0.95]["oBERT", "published"] == 90.29
    assert any(label.startswith("gradual") for label in labels_of(rows)) == measured
    note = Table7().notes(make_results([]))[0]
    assert "BERT-large" in note.text and "BERT-base" not in note.text


@pytest.fixture
def two_seeds():
    """Two seeds of a recipe of Table 1 and of one of Table 2, on SQuAD: exact match 70 and 74, F1 80 and 81."""
    runs = [answers("teacher", 90.0, 80.0)]
    for seed, (f1, exact_match) in enumerate(((80.0, 70.0), (81.0, 74.0))):
        chosen = {"method": "obert", "sparsity": 0.9, "seed": seed}
        runs.append(answers("downstream", f1, exact_match, recipe="obert_30_epochs", **chosen))
        source = "transfer_8_epochs@upstream_obert_3_epochs"
        runs.append(answers("transfer", f1, exact_match, epochs=8.0, recipe=source, **chosen))
    return runs


@pytest.mark.parametrize(
    ("table", "label", "published"), [(Table12, "oBERT, 30 epochs", 81.12), (Table13, "oBERT, 8 epochs", 81.43)]
)
def test_tables_12_and_13_have_the_other_metrics(make_results, two_seeds, table, label, published):
    """Mean 72 of 70 and 74, which is 90 % of the own dense 80."""
    single = record("downstream", 60.0, task="movie_reviews", method="obert", sparsity=0.9)
    rows = rows_of(table, make_results, *two_seeds, single)
    assert {key[0] for key in rows} == {"squad", "mnli", "qqp"}
    group = rows["squad", "exact_match", 0.9][label]
    assert (group["published"], group["measured"], group["measured_n"]) == (published, 72.0, 2)
    assert group["difference"] == pytest.approx(72 - published)
    assert group["recovery"] == pytest.approx(90.0)
    assert ("squad", "exact_match", 0.9) not in rows_of(Table1, make_results, *two_seeds)


@pytest.mark.parametrize(
    ("table", "label", "sparsities"),
    [(Table15, "oBERT, 30 epochs", (0.8, 0.9, 0.97)), (Table16, "oBERT, 8 epochs", (0.9, 0.97))],
)
def test_tables_15_and_16_are_standard_deviations(make_results, two_seeds, table, label, sparsities):
    """Of F1: 1 / sqrt(2); of exact match: 4 / sqrt(2). At 90 % both tables print 0.13 for both."""
    rows = rows_of(table, make_results, *two_seeds)
    assert labels_of(rows) == ["row", label]
    squad = [key for key in rows if key[0] == "squad"]
    assert squad == [("squad", metric, sparsity) for metric in ("f1", "exact_match") for sparsity in sparsities]
    for metric, spread in (("f1", 1), ("exact_match", 4)):
        group = rows["squad", metric, 0.9][label]
        assert (group["published_std"], group["measured_n"]) == (0.13, 2)
        assert group["measured_std"] == pytest.approx(spread / math.sqrt(2))
        assert group["difference"] == pytest.approx(spread / math.sqrt(2) - 0.13)


def test_one_seed_has_no_standard_deviation(make_results, two_seeds):
    rows = rows_of(Table15, make_results, two_seeds[0], two_seeds[1])
    group = rows["squad", "f1", 0.9]["oBERT, 30 epochs"]
    assert group["published_std"] == 0.13 and math.isnan(group["measured_std"])
