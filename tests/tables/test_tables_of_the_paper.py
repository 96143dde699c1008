"""Tables 2, 3 and 14 from hand-made records: what belongs into them, and where."""

import math

import pytest

from obert.records.record import Score
from obert.tables.table2 import Table2
from obert.tables.table3 import Table3
from obert.tables.table14 import Table14
from tables.examples import record

SMALL = {"source": "example", "layers": 1, "parameters": 1000, "prunable_parameters": 200}
LARGE = {**SMALL, "layers": 2}


def spec(epochs):
    return {"recipe": {"training": {"epochs": epochs}, "distillation": {"hardness": 1.0}}}


def row_of(table, **wanted):
    (found,) = [row for _, row in table.iterrows() if all(row["row", name] == value for name, value in wanted.items())]
    return found


@pytest.fixture
def transferred(make_results):
    """Two seeds of a transfer and of the dense one on SQuAD, pruning on the task for as long and for longer."""
    source = "transfer_8_epochs@upstream_obert_3_epochs"
    runs = [record("teacher", 80.0, task="squad", model=LARGE)]
    for seed, value in enumerate((70.0, 74.0)):
        chosen = {"task": "squad", "seed": seed, "model": LARGE}
        runs.append(record("transfer", value, recipe=source, method="obert", sparsity=0.9, spec=spec(8.0), **chosen))
        runs.append(record("transfer", value + 4, recipe="transfer_8_epochs@dense", spec=spec(8.0), **chosen))
        alone = {"recipe": {"training": {"epochs": 9.0}}}
        runs.append(
            record("transfer", value, recipe="alone@pruned", method="obert", sparsity=0.9, spec=alone, **chosen)
        )
    chosen = {"task": "squad", "method": "magnitude", "sparsity": 0.9, "model": LARGE}
    runs.append(record("downstream", 60.0, recipe="as_long", spec=spec(8.0), **chosen))
    runs.append(record("downstream", 65.0, recipe="longer", spec=spec(9.0), **chosen))
    return make_results([(made, None, 0) for made in runs])


def test_table_2_takes_transfers_and_downstream_runs_of_as_many_epochs(transferred):
    """Mean 72 of 70 and 74, sample deviation sqrt(8); 72 - 88.49 = -16.49; 72 of 80 is 90 %."""
    table = Table2().build(transferred)
    row = row_of(table, task="squad", sparsity=0.9)
    group = row["oBERT, 8 epochs"]
    assert (group["published"], group["published_std"], group["published_n"]) == (88.49, 0.13, 4)
    assert (group["measured"], group["measured_n"]) == (72.0, 2)
    assert group["measured_std"] == pytest.approx(math.sqrt(8))
    assert group["difference"] == pytest.approx(-16.49)
    assert group["recovery"] == pytest.approx(90.0)
    assert row["as_long: magnitude, 8 epochs, 2 layers", "measured"] == 60.0
    assert not any("longer" in label or "alone" in label for label, _ in table.columns)
    dense = row_of(table, task="squad", sparsity=0.0)
    assert dense["transfer_8_epochs@dense: dense, 8 epochs, 2 layers", "measured"] == 76.0
    assert math.isnan(dense["oBERT, 8 epochs", "measured"])


def test_table_2_without_records_keeps_the_columns_and_tasks_of_the_paper(no_results):
    table = Table2().build(no_results)
    labels = list(dict.fromkeys(label for label, _ in table.columns))
    assert labels == ["row", "dense", "LT-BERT", "Prune OFA, 8 epochs", "oBERT, 8 epochs"]
    assert list(dict.fromkeys(table["row", "task"])) == ["squad", "mnli", "qqp", "sst2", "qnli"]


@pytest.fixture
def fewer_layers(make_results):
    """A teacher of 2 layers; models of 1 layer, dense and pruned for 3 epochs; one of 2 layers for as long."""
    both = {"f1": Score(value=50.0, count=4), "exact_match": Score(value=40.0, count=4)}
    common = {"task": "city_qa", "metrics": both, "primary_metric": "f1"}
    runs = [record("teacher", None, model=LARGE, **common)]
    runs.append(record("transfer", None, recipe="dense@keep_1", spec=spec(3.0), model=SMALL, **common))
    pruned = {"method": "obert", "sparsity": 0.9, **common}
    runs.append(record("downstream", None, recipe="gradual@keep_1", spec=spec(3.0), model=SMALL, **pruned))
    runs.append(record("downstream", None, recipe="gradual", spec=spec(3.0), model=LARGE, **pruned))
    runs.append(record("downstream", None, recipe="short", spec=spec(0.5), model=LARGE, **pruned))
    runs.append(record("quantize", None, recipe="quantize@gradual@keep_1", spec=spec(0.2), model=SMALL, **pruned))
    return make_results([(made, None, 0) for made in runs])


@pytest.mark.parametrize(("table", "value"), [(Table3, 50.0), (Table14, 40.0)])
def test_tables_3_and_14_have_a_row_for_each_number_of_layers(fewer_layers, table, value):
    content = table().build(fewer_layers)
    shallow = row_of(content, task="city_qa", layers=1, sparsity=0.9)
    assert shallow["gradual@keep_1: obert, 3 epochs", "measured"] == value
    assert shallow["quantize@gradual@keep_1: obert, 0.2 epochs", "measured"] == value
    assert row_of(content, task="city_qa", layers=1, sparsity=0.0)["dense@keep_1: dense, 3 epochs", "measured"] == value
    assert row_of(content, task="city_qa", layers=2, sparsity=0.9)["gradual: obert, 3 epochs", "measured"] == value
    assert not any("short" in label for label, _ in content.columns)
    published = {Table3: 84.08, Table14: 75.62}[table]
    assert row_of(content, task="squad", layers=3, sparsity=0.8)["unstructured, 30 epochs", "published"] == published


def test_table_14_leaves_out_tasks_without_a_second_metric(make_results):
    chosen = {"method": "obert", "sparsity": 0.9, "spec": spec(3.0), "model": SMALL}
    runs = [record("teacher", 80.0, model=LARGE), record("downstream", 70.0, recipe="gradual@keep_1", **chosen)]
    results = make_results([(made, None, 0) for made in runs])
    assert "movie_reviews" in set(Table3().build(results)["row", "task"])
    assert "movie_reviews" not in set(Table14().build(results)["row", "task"])
