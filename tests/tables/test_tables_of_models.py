"""Tables 6, 8 and 17 and Figure 2: exported models beside the published ones they stand for."""

import math
from dataclasses import replace

import pytest

from obert.experiment.keys import RunKey
from obert.masks.counts import Sparsity
from obert.records.record import Score
from obert.tables._deployed import Deployed, Speed, relative_to
from obert.tables.figure2 import Figure2
from obert.tables.table6 import Table6
from obert.tables.table8 import Table8
from obert.tables.table17 import Table17
from tables.examples import record

MODEL = {"source": "example", "layers": 12, "parameters": 9_000_000, "prunable_parameters": 2_000_000}
BLOCK = {"recipe": {"training": {"epochs": 1.0}, "pattern": "1x4"}}


def deployed(stage, value, size, speedup=None, zeros=0.0, **chosen):
    """A trained model, its export of `size` MB, half of that after gzip, and its timing."""
    chosen |= {"task": "squad"}
    made = record(stage, value, model=MODEL, **chosen)
    chosen |= {"recipe": made.key.recipe, "spec": {}}
    sizes = {"model_size_mb": Score(value=size, count=1), "model_size_gzip_mb": Score(value=size / 2, count=1)}
    export = record("export", metrics=sizes, **chosen)
    found = Sparsity(target=zeros, measured=zeros, layers={})
    speeds = {"throughput": 10.0 * (speedup or 1), "f1": value - 1} | ({"speedup": speedup} if speedup else {})
    timed = {f"onnxruntime_{name}": Score(value=number, count=20) for name, number in speeds.items()}
    said = {"speedup_over": "dense", "dense": {"throughput": 10.0}} if speedup else {}
    timing = record("benchmark", metrics=timed, details={"engines": {"onnxruntime": said}}, **chosen)
    return [made, export.model_copy(update={"sparsity": found}), timing]


@pytest.fixture
def runs():
    """Dense; 80 % unstructured; 80 % in blocks, which is exported only once quantised, with more zeros in integers."""
    pruned = {"method": "obert", "sparsity": 0.8}
    return [
        *deployed("teacher", 80.0, 40.0),
        *deployed("downstream", 72.0, 20.0, 1.5, zeros=0.8, recipe="gradual", **pruned),
        record("downstream", 71.0, task="squad", recipe="block", model=MODEL, spec=BLOCK, **pruned),
        *deployed("quantize", 70.0, 8.0, 3.0, zeros=0.84, recipe="quantize@block", **pruned),
    ]


QUANTIZED = RunKey("quantize", "squad", "quantize@block", 0, "obert", 0.8)
ORIGINS = {QUANTIZED: RunKey("downstream", "squad", "block", 0, "obert", 0.8)}


@pytest.fixture
def results(make_results, runs):
    return make_results([(made, None, 0) for made in runs], origins=ORIGINS)


def row_of(content, layers, sparsity, compression, task="squad"):
    place = (task, layers, sparsity, compression)
    names = ("task", "layers", "sparsity", "compression")
    (found,) = [row for _, row in content.iterrows() if tuple(row["row", name] for name in names) == place]
    return found


def test_table_6_counts_remaining_weights_of_unquantised_models(results):
    """A fifth of 2 M weights is 0.4 M, a fifth of the dense model's; 72 of 80 is 90 %; 72 - 89.04 = -17.04."""
    content = Table6().build(results)
    assert len(content) == 8
    row = row_of(content, 12, 0.8, "unstructured")
    assert row["published"].tolist() == [17.0, 5.0, 89.04]
    assert row["measured"].tolist() == pytest.approx([0.4, 5.0, 72.0, -17.04, 0.0, 90.0])
    assert (row["published, each on its device", "speedup"], row["onnxruntime", "speedup"]) == (3.38, 1.5)
    assert row["row", "model"] == "gradual: obert"
    rival = row_of(content, 6, 0.0, "DistilBERT")
    assert rival["published", "weights_millions"] == 42.5 and rival["measured"].isna().all()


def test_table_8_shows_dense_and_quantised_models_with_both_sizes(results):
    """The quantised file is 8 MB, 4 after gzip, a fifth of the dense one's 20."""
    content = Table8().build(results)
    assert content["row", "compression"].tolist() == ["dense", *2 * ["4-block and QAT"], "dense", "4-block and QAT"]
    large = row_of(content, 24, 0.95, "4-block and QAT", "squad_bert_large")
    assert large["published", "size_mb"] == 38.2 and math.isnan(large["published", "size_gzip_mb"])
    assert large["published", "recall"] == pytest.approx(99.27, abs=0.01)
    own = row_of(content, 12, 0.8, "4-block and QAT")
    assert own["measured", "size_mb"] == 8.0 and own["measured", "size_gzip_mb"] == 4.0
    assert own["measured", "compression_ratio"] == pytest.approx(5.0)
    assert "BERT-large" in Table8().notes(results)[0].text


# By task: layers, sparsity, and of the dense and the quantised model score, size and speed at batch 128, length 384.
MLPERF = {
    "squad_bert_large": (24, 0.95, (90.0, 100.0, 10.0), (89.0, 5.0, 50.0)),
    "squad_mobilebert": (14, 0.5, (88.0, 10.0, 20.0), (81.0, 2.0, 80.0)),
}


def timed(task, throughput, speedup, **chosen):
    """A timing in two scenarios, the second with the given speed."""
    speeds = {"throughput": 7.0, "batch128_length384_threads8_throughput": throughput}
    speeds |= {"batch128_length384_threads8_speedup": speedup} if speedup else {}
    metrics = {f"onnxruntime_{name}": Score(value=number, count=20) for name, number in speeds.items()}
    scenarios = [{"batch_size": b, "sequence_length": n, "threads": 8} for b, n in ((32, 128), (128, 384))]
    return record("benchmark", metrics=metrics, details={"scenarios": scenarios}, task=task, **chosen)


@pytest.fixture
def mlperf(make_results, runs):
    """BERT-large and MobileBERT beside the others, dense and quantised, with a further scenario."""
    made, origins = [*runs], dict(ORIGINS)
    for task, (layers, sparsity, dense, small) in MLPERF.items():
        for (value, size, throughput), pruned in ((dense, {}), (small, {"method": "obert", "sparsity": sparsity})):
            quantized = {**pruned, "recipe": "quantize@block"} if pruned else {}
            trained, export, _ = deployed("quantize" if pruned else "teacher", value, size, **quantized)
            trained, export = (r.model_copy(update={"key": replace(r.key, task=task)}) for r in (trained, export))
            made += [trained.model_copy(update={"model": {**MODEL, "layers": layers}}), export]
            made.append(timed(task, throughput, throughput / dense[2] if pruned else None, **quantized))
            if pruned:
                made.append(record("downstream", 70.0, task=task, recipe="block", spec=BLOCK, **pruned))
                origins[trained.key] = made[-1].key
    return make_results([(one, None, 0) for one in made], origins=origins, other_encoders=frozenset(MLPERF))


def test_table_8_is_relative_to_bert_large_in_its_own_scenario(mlperf):
    """MobileBERT: 81 of 90 is 90 %; 50 MB after gzip over 1; 80 items/s over 10. BERT-large: 50 over 10."""
    content = Table8().build(mlperf)
    assert set(content["row", "task"]) == {"squad_bert_large", "squad_mobilebert"} and len(content) == 4
    mobile = row_of(content, 14, 0.5, "4-block and QAT", "squad_mobilebert")
    assert mobile["published", "score"] == 90.32 and mobile["measured", "score"] == 81.0
    assert mobile["measured", "recall"] == pytest.approx(90.0)
    assert mobile["measured", "compression_ratio"] == pytest.approx(50.0)
    assert mobile["onnxruntime"].tolist()[:2] == pytest.approx([80.0, 8.0])
    large = row_of(content, 24, 0.95, "4-block and QAT", "squad_bert_large")
    assert large["published", "score"] == 90.21
    assert large["onnxruntime"].tolist()[:2] == pytest.approx([50.0, 5.0])
    dense = row_of(content, 24, 0.0, "dense", "squad_bert_large")
    assert dense["published", "score"] == 90.87 and dense["onnxruntime", "speedup"] == 1.0


def test_speeds_relative_to_another_dense_model_are_over_it_in_the_reference():
    """8 items/s is 4 times the other dense model's 2 in this engine, where that runs at half the reference's speed."""
    model = Deployed("a", "f1", 3, 0.9, "1x4", speeds={"sparse": Speed(8.0, 3.0)})
    dense = Deployed("b", "f1", 24, 0.0, "dense", speeds={"sparse": Speed(2.0, 0.5)})
    speed = relative_to(model, dense).speeds["sparse"]
    assert (speed.speedup, speed.dense) == (2.0, 4.0)


@pytest.mark.parametrize("table", [Table6, Table17])
def test_tables_of_bert_base_leave_models_of_other_encoders_out(mlperf, table):
    assert set(table().build(mlperf)["row", "task"]) == {"squad"}
    assert set(Figure2().build(mlperf)["task"]) == {"squad"}


def test_table_17_puts_each_model_beside_its_published_one(results):
    content = Table17().build(results)
    assert len(content) == 10
    for sparsity, compression, published, model in (
        (0.0, "dense", 88.54, "dense: dense"),
        (0.8, "unstructured", 89.04, "gradual: obert"),
        (0.8, "4-block and QAT", 87.89, "quantize@block: obert"),
    ):
        row = row_of(content, 12, sparsity, compression)
        assert (row["published", "score"], row["row", "model"]) == (published, model)
    quantized = row_of(content, 12, 0.8, "4-block and QAT")
    assert quantized["onnxruntime"].tolist() == pytest.approx([30.0, 3.0, 10.0, 69.0, False])
    assert quantized["measured", "difference"] == pytest.approx(70 - 87.89)
    shown = Table17().display(content)
    assert shown["onnxruntime", "speedup"].tolist().count("3.00\N{MULTIPLICATION SIGN}") == 1


def test_figure_2_has_a_point_for_each_model_and_engine(results):
    content = Figure2().build(results).set_index("source")
    assert content.loc["published", "engine"].tolist() == 10 * ["deepsparse"]
    own = content.loc["measured"]
    assert own["recall"].tolist() == pytest.approx([100.0, 90.0, 87.5])
    assert own["speedup"].tolist() == [1.0, 1.5, 3.0] and own["compression_ratio"].tolist() == [1.0, 2.0, 5.0]
    assert set(own["dense_layers"]) == {12} and own["method"].tolist() == ["dense", "obert", "obert"]


def test_figure_2_is_over_the_dense_model_in_the_same_engine(make_results, runs):
    """In a second engine the dense model runs at half of the reference's speed and the pruned one at 1.2 times it,
    which is 2.4 times the dense one there. In a third, where the dense one was not timed, there is no speed-up."""
    speeds = {"teacher": {"pytorch": 0.5}, "downstream": {"pytorch": 1.2, "openvino": 2.0}}
    recipes = {runs[0].key.recipe: "teacher", "gradual": "downstream"}
    made = []
    for one in runs:
        more = speeds.get(recipes.get(one.key.recipe), {}) if one.key.stage == "benchmark" else {}
        found = {f"{engine}_speedup": Score(value=value, count=20) for engine, value in more.items()}
        found |= {f"{engine}_throughput": Score(value=10 * value, count=20) for engine, value in more.items()}
        made.append(one.model_copy(update={"metrics": one.metrics | found}))
    content = Figure2().build(make_results([(one, None, 0) for one in made], origins=ORIGINS))
    own = content[content["source"] == "measured"].set_index(["engine", "compression"])["speedup"]
    assert own["pytorch", "dense"] == 1.0 and own["pytorch", "unstructured"] == pytest.approx(2.4)
    assert math.isnan(own["openvino", "unstructured"])
    titles = [axis.get_title() for axis in Figure2().draw(content).axes]
    assert titles == ["squad, onnxruntime", "squad, pytorch", "squad, size"]


def test_notes_name_models_that_are_not_timed_yet(make_results, runs):
    missing = QUANTIZED.at("benchmark")
    left = [(made, None, 0) for made in runs if made.key != missing]
    results = make_results(left, planned=[missing], origins=ORIGINS)
    assert Table6().notes(results)[-1].text.startswith("Measured")
    for table in (Table8, Table17, Figure2):
        assert missing.path.as_posix() in table().notes(results)[-1].lines[-2]
