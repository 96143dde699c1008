"""Tables 4, 5, 7, 12, 13, 15 and 16 from hand-made records: which runs belong there, and rows of each metric."""

import math

import pandas as pd
import pytest

from obert.records.record import Score
from obert.tables.figure1 import Figure1
from obert.tables.figure8 import Figure8
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


def test_table_4_shows_both_metrics_of_models_pruned_in_an_n_m_pattern(make_results):
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
    assert own == ["alone: obert, 10 epochs, 2 layers", "transfer@alone: obert, 10 epochs, 2 layers"]
    assert rows["stsb", "spearman", 0.9]["oBERT", "published"] == 87.6
    assert rows["city_qa", "exact_match", 0.9][own[1], "measured"] == 53.0


def test_table_4_puts_one_shot_models_and_their_epoch_beside_the_published_ones(make_results):
    chosen = {"sparsity": 0.5, "spec": {"pattern": "2:4"}}
    rows = rows_of(
        Table4,
        make_results,
        answers("teacher", 80.0, 64.0),
        answers("downstream", 40.0, 30.0, method="magnitude", recipe="one_shot_2_4", epochs=None, **chosen),
        answers("downstream", 60.0, 48.0, method="obert", recipe="one_shot_2_4", epochs=None, **chosen),
        answers("downstream", 76.0, 60.0, method="obert", recipe="one_shot_2_4_then_1_epoch", epochs=1.0, **chosen),
    )
    assert labels_of(rows) == ["row", "dense", "magnitude", "oBERT", "oBERT, 1 epoch"]
    assert list(rows) == [("squad", "f1", 0.5), ("squad", "exact_match", 0.5)]
    found = rows["squad", "exact_match", 0.5]
    for label, published, measured in (("magnitude", 35.24, 30), ("oBERT", 74.18, 48), ("oBERT, 1 epoch", 81.16, 60)):
        assert (found[label, "published"], found[label, "measured"]) == (published, measured)
        assert found[label, "difference"] == pytest.approx(measured - published)


def alone(task, epochs, value, seed=0):
    """A seed of oBERT's transfer to a task without distillation."""
    recipe = f"transfer_alone_{epochs}_epoch{'' if epochs == 1 else 's'}@upstream_obert_3_epochs"
    spec = {"recipe": {"training": {"epochs": float(epochs)}}}
    return record("transfer", value, task=task, recipe=recipe, method="obert", sparsity=0.9, spec=spec, seed=seed)


def test_table_5_takes_the_epochs_that_are_best_on_held_out_training_examples(make_results):
    """Two epochs on QNLI and one on SST-2, though validation would choose the other."""
    held_out = {("qnli", 1): 50.0, ("qnli", 2): 60.0, ("sst2", 1): 80.0, ("sst2", 2): 70.0}
    trials = pd.DataFrame(
        [
            {"trial": epochs, "state": "complete", "task": task, "score": score, "training.epochs": epochs}
            for (task, epochs), score in held_out.items()
        ]
    )
    runs = [alone("qnli", 1, 71.0), alone("qnli", 1, 73.0, seed=1), alone("qnli", 2, 60.0), alone("qnli", 2, 62.0, 1)]
    runs += [alone("sst2", 1, 81.0), alone("sst2", 2, 90.0)]
    records = [(made, None, 0) for made in runs]
    results = make_results(records, sweeps={"paper_transfer": trials})
    content = Table5().build(results)
    rows = {(row["row", "task"], row["row", "metric"]): row for _, row in content.iterrows()}
    qnli, sst2 = rows["qnli", "accuracy"], rows["sst2", "accuracy"]
    assert (qnli["oBERT", "published"], qnli["oBERT", "measured"], qnli["oBERT", "measured_n"]) == (89.3, 61.0, 2)
    assert (sst2["oBERT", "published"], sst2["oBERT", "measured"]) == (92.0, 81.0)
    others = {label: (qnli[label, "measured"], sst2[label, "measured"]) for label, _ in content.columns if ":" in label}
    one, two = (next(values for label, values in others.items() if f"alone_{n}" in label) for n in (1, 2))
    assert one[0] == 72.0 and math.isnan(one[1]) and math.isnan(two[0]) and two[1] == 90.0
    assert Table5().notes(results)[-1].text.endswith("chose: qnli 2, sst2 1.")


def test_table_5_measures_nothing_beside_the_paper_before_the_sweep(make_results):
    results = make_results([(alone("qnli", 1, 71.0), None, 0)], sweeps={"paper_transfer": pd.DataFrame()})
    assert Table5().build(results)["oBERT", "measured"].isna().all()
    assert Table5().notes(results)[-1].lines == ("python -m obert sweep --config configs/sweeps/paper_transfer.yaml",)


@pytest.mark.parametrize(("model", "measured"), [(LARGE, True), (MODEL, False)])
def test_table_7_takes_models_as_deep_as_bert_large(make_results, model, measured):
    chosen = {"method": "obert", "sparsity": 0.9, "recipe": "gradual", "model": model}
    block = {**chosen, "recipe": "block", "spec": {"pattern": "1x4"}}
    runs = (answers("downstream", 60.0, 50.0, **chosen), answers("downstream", 61.0, 51.0, **block))
    rows = rows_of(Table7, make_results, *runs)
    assert len(rows) == (6 if measured else 4)
    assert rows["squad_bert_large", "f1", 0.95]["oBERT", "published"] == 90.29
    own = [label for label in labels_of(rows) if ":" in label]
    assert own == (["gradual: obert, 10 epochs, 24 layers"] if measured else [])
    note = Table7().notes(make_results([]))[0]
    assert "BERT-large" in note.text and "BERT-base" not in note.text


def test_bert_large_beside_bert_base_is_in_table_7_alone(make_results):
    """The task with an encoder of its own meets BERT-large's published numbers, and is in no table of BERT-base."""
    task, recipe = "squad_bert_large", "obert_30_epochs"
    chosen = {"method": "obert", "sparsity": 0.9, "recipe": recipe, "epochs": 30.0}
    runs = [
        answers("teacher", 88.0, 81.0),
        answers("downstream", 80.0, 70.0, **chosen),
        answers("teacher", 91.0, 84.0, task=task, model=LARGE),
        answers("downstream", 90.0, 83.0, task=task, model=LARGE, **chosen),
    ]
    results = make_results([(made, None, 0) for made in runs], other_encoders=frozenset({task}))
    content = Table7().build(results)
    assert set(content["row", "task"]) == {task}
    found = content[(content["row", "metric"] == "f1") & (content["row", "sparsity"] == 0.9)].iloc[0]
    assert (found["dense", "published"], found["dense", "measured"]) == (91.22, 91.0)
    assert (found["oBERT", "published"], found["oBERT", "measured"]) == (91.07, 90.0)
    assert found["oBERT", "difference"] == pytest.approx(-1.07)
    base = Table1().build(results)
    assert task not in set(base["row", "task"])
    pruned = base[(base["row", "task"] == "squad") & (base["row", "sparsity"] == 0.9)].iloc[0]
    assert pruned["oBERT, 30 epochs", "measured"] == 80.0
    for table in (Table1, Table4, Table5, Table12, Table13, Table15, Table16, Figure1, Figure8):
        content = table().build(results)
        tasks = content["row", "task"] if ("row", "task") in content else content["task"]
        assert task not in set(tasks)


@pytest.fixture
def two_seeds():
    """Two seeds of a recipe of Table 1 and of one of Table 2, on SQuAD: exact match 70 and 74, F1 80 and 81."""
    runs = [answers("teacher", 90.0, 80.0)]
    for seed, (f1, exact_match) in enumerate(((80.0, 70.0), (81.0, 74.0))):
        chosen = {"method": "obert", "sparsity": 0.9, "seed": seed}
        runs.append(answers("downstream", f1, exact_match, recipe="obert_30_epochs", **chosen))
        source = "transfer_8_epochs@upstream_obert_3_epochs"
        distilled = {"distillation": {"hardness": 1.0}}
        runs.append(answers("transfer", f1, exact_match, epochs=8.0, recipe=source, spec=distilled, **chosen))
    return runs


@pytest.mark.parametrize(
    ("table", "label", "published"), [(Table12, "oBERT, 30 epochs", 81.12), (Table13, "oBERT, 8 epochs", 81.43)]
)
def test_tables_12_and_13_show_the_secondary_metrics(make_results, two_seeds, table, label, published):
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
def test_tables_15_and_16_show_standard_deviations(make_results, two_seeds, table, label, sparsities):
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


def test_table_15_has_no_measured_deviation_for_one_seed(make_results, two_seeds):
    rows = rows_of(Table15, make_results, two_seeds[0], two_seeds[1])
    group = rows["squad", "f1", 0.9]["oBERT, 30 epochs"]
    assert group["published_std"] == 0.13 and math.isnan(group["measured_std"])
