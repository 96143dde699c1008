"""The last two stages, from a trained model's record to timings. Training is replaced by a random model."""

import importlib.metadata
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from planned import at, make, results_in

from obert.deployment import timing
from obert.engines import EngineError
from obert.experiment import folders
from obert.experiment.plan import Plan
from obert.experiment.schema import Experiment
from obert.foundation import registry
from obert.foundation.errors import UserError
from obert.foundation.files import file_hash
from obert.masks.counts import count_zeros
from obert.models.encoders import load_pretrained, load_tokenizer, load_trained, prunable_weights, save
from obert.records.record import read_record
from obert.records.recording import Recording
from obert.tables import Results
from obert.tables._engines import engines_of
from obert.training.features import Features
from obert.training.prediction import predict_logits

TASKS = {
    "movie_reviews": {"source": "tests/data/movie_reviews", "max_length": 32},
    "squad": {"source": "tests/data/city_qa", "max_length": 48, "doc_stride": 16},
}
TIMING = {"batch_size": 2, "sequence_length": 16, "threads": 1, "warmup": 1, "iterations": 6}
TIMING |= {"engines": ["pytorch", "onnxruntime"]}


@pytest.fixture
def make_plan(root, monkeypatch, tmp_path):
    results_in(tmp_path / "results", monkeypatch)

    def make(**timing):
        experiment = Experiment.model_validate(
            {
                "name": "two_stages",
                "description": "Export and benchmark.",
                "model": {"source": "tests/data/tiny_bert"},
                "tasks": TASKS,
                "teacher": "smoke_finetune",
                "downstream": [{"recipes": ["smoke_gradual"], "methods": ["magnitude"], "sparsities": [0.75]}],
                "benchmark": TIMING | {"recipes": ["smoke_gradual"]} | timing,
            }
        )
        return Plan.of(experiment)

    return make


@pytest.fixture
def plan(make_plan):
    return make_plan()


def pruned_run(plan, task):
    return plan.find("downstream", task=task)


def write_trained(plan, run):
    """Model and record as the teacher and downstream stages leave them."""
    torch.manual_seed(0)
    network, tokenizer = load_pretrained(plan.experiment.model, run.task.head, ("0", "1"))
    weights = prunable_weights(network)
    if run.key.sparsity:
        with torch.no_grad():
            for weight in weights.values():
                weight.view(-1)[: int(weight.numel() * run.key.sparsity)] = 0
    save(network, tokenizer, run.folder / "model")
    sparsity = count_zeros(weights, run.key.sparsity) if run.key.sparsity else None
    recording = Recording(replace(run, sources={}))  # its teacher may not have been made
    return recording.finish(threads=1, files=("model",), sparsity=sparsity)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Where a task's exports are kept for the tests that time them."""
    return tmp_path_factory.mktemp("exported")


@pytest.fixture
def write_exports(exported):
    """Leaves teacher and pruned model of a task with their exports, which are made once."""

    def write(plan, task="movie_reviews"):
        runs, kept = (plan.teacher(task), pruned_run(plan, task)), exported / task
        if kept.exists():
            shutil.copytree(kept, folders.RESULTS)
        else:
            for run in runs:
                write_trained(plan, run)
                make(at(plan, run, "export"))
            shutil.copytree(folders.RESULTS, kept)
        return runs

    return write


@pytest.mark.parametrize("task", TASKS)
def test_export_of_a_pruned_model(plan, task):
    run = pruned_run(plan, task)
    source = write_trained(plan, run)
    record = make(at(plan, run, "export"))
    folder = plan[record.key].folder
    assert read_record(folder / "metrics.json") == record
    assert record.files == ("model.onnx",)
    assert record.details["onnx_sha256"] == file_hash(folder / "model.onnx")
    assert record.inputs == {str(run.key.path): file_hash(run.folder / "metrics.json")}
    for field in ("target", "measured", "layers"):
        assert getattr(record.sparsity, field) == getattr(source.sparsity, field)
    assert record.sparsity.encoder == record.sparsity.measured > record.sparsity.whole_model > 0
    assert record.sparsity.measured == 0.75
    assert record.metrics["parity_max_abs_difference"].value < 1e-5
    assert record.metrics["parity_max_abs_difference"].count > 0
    raw, compressed = (record.metrics[name].value for name in ("model_size_mb", "model_size_gzip_mb"))
    assert raw == (folder / "model.onnx").stat().st_size / 1e6
    assert 0 < compressed < raw


def test_export_of_a_teacher_counts_zeros_too(plan):
    run = plan.teacher("movie_reviews")
    write_trained(plan, run)
    record = make(at(plan, run, "export"))
    assert (record.sparsity.target, record.sparsity.measured) == (0, 0)
    costs, sizes = record.details["components"], {part: x.size for part, x in record.sparsity.parts.items()}
    assert costs["multiply_adds"]["encoder"] == costs["length"] * sizes["encoder"]
    assert all(0 < costs["gzip_bytes"][part] < 4.1 * size for part, size in sizes.items())


def test_export_of_a_model_that_changed_after_its_record(plan):
    run = pruned_run(plan, "movie_reviews")
    write_trained(plan, run)
    trained = run.folder / "model"
    teacher = plan.teacher("movie_reviews")
    write_trained(plan, teacher)
    shutil.copy(teacher.folder / "model" / "model.safetensors", trained / "model.safetensors")
    with pytest.raises(UserError, match=r"0\.000000 sparsity, the record of downstream.*0\.750000.*Run that stage"):
        make(at(plan, run, "export"))
    assert not (at(plan, run, "export").folder / "metrics.json").exists()


def test_a_file_is_not_replaced_under_the_record_of_the_run_before(plan, monkeypatch):
    """Else the mirror, or a benchmark, would take the new file for what the old record is of."""
    run = plan.teacher("movie_reviews")
    write_trained(plan, run)
    exported = at(plan, run, "export")
    make(exported)
    assert (exported.folder / "metrics.json").exists()

    def stop(*_):
        assert not (exported.folder / "metrics.json").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr("obert.deployment.export.export_onnx", stop)
    with pytest.raises(KeyboardInterrupt):
        make(exported)


def test_export_before_training_names_the_missing_record(plan):
    with pytest.raises(UserError, match="is missing: run the stage that makes it first"):
        make(at(plan, pruned_run(plan, "movie_reviews"), "export"))


@pytest.mark.parametrize("task", TASKS)
def test_benchmark_of_a_pruned_model(make_plan, write_exports, task):
    baselines = {"pytorch": "reference", "onnxruntime": "dense", "sparse": "reference"}
    plan = make_plan(engines=list(baselines))
    teacher, pruned = write_exports(plan, task)
    record = make(at(plan, pruned, "benchmark"))
    assert set(record.inputs) == {str(at(plan, run, "export").key.path) for run in (teacher, pruned)}
    assert record.sparsity.measured == 0.75
    assert record.threads == 1
    assert record.details["skipped"] == {}

    raw = json.loads((plan[record.key].folder / "latencies.json").read_text(encoding="utf-8"))
    assert raw["unit"] == "s"
    # The engines score what the model scores: predictions of the same logits, from padded batches of one shape.
    own = _scores_of_the_model(plan, pruned)
    for engine, baseline in baselines.items():
        assert set(raw["engines"][engine]) == {"dense", "candidate", baseline}
        dense, candidate = (raw["engines"][engine][role] for role in (baseline, "candidate"))
        assert len(dense) == len(candidate) == 6
        median = np.median(candidate)
        expected = {
            "throughput": 2 / median,
            "latency_p50_ms": median * 1e3,
            "latency_p90_ms": np.percentile(candidate, 90) * 1e3,
            "latency_p99_ms": np.percentile(candidate, 99) * 1e3,
            "speedup": np.median(dense) / median,
        }
        for name, value in expected.items():
            score = record.metrics[f"{engine}_{name}"]
            assert (score.value, score.count) == (pytest.approx(value), 6)
        for name, value in own.items():
            assert record.metrics[f"{engine}_{name}"].value == pytest.approx(value)
        details = record.details["engines"][engine]
        assert details["threads"] == {"dense": 1, "candidate": 1}
        low, high = details["speedup_interval"]
        assert low <= expected["speedup"] <= high
    assert len(record.metrics) == 3 * (5 + len(own))
    assert set(record.details["engines"]["sparse"]["linear_seconds"]) == {"dense", "candidate"}


def _scores_of_the_model(plan, run):
    task = run.task
    folder = run.folder / "model"
    data = Features.encode(task, task.load()["validation"], load_tokenizer(folder))
    logits = predict_logits(load_trained(folder, task.head), data, 8)
    return {
        n: s.value for n, s in task.score(task.predict(logits, data.features, data.examples), data.examples).items()
    }


def test_further_scenarios_are_timed_and_named(make_plan, write_exports):
    plan = make_plan(also=[{"batch_size": 1, "sequence_length": 8, "threads": 2}])
    _, pruned = write_exports(plan)
    record = make(at(plan, pruned, "benchmark"))
    assert record.metrics["onnxruntime_batch1_length8_threads2_throughput"].count == 6
    assert record.details["engines"]["onnxruntime_batch1_length8_threads2"]["threads"] == {"dense": 2, "candidate": 2}
    assert "onnxruntime_batch1_length8_threads2_accuracy" not in record.metrics
    assert engines_of(Results("e", "d", "c", (record,), (record.key,), None, None)) == ["onnxruntime", "pytorch"]


def test_the_teacher_has_a_speedup_in_engines_other_than_the_reference(plan, write_exports):
    teacher, _ = write_exports(plan)
    record = make(at(plan, teacher, "benchmark"))
    assert list(record.inputs) == [str(at(plan, teacher, "export").key.path)]
    assert [name for name in record.metrics if "speedup" in name] == ["pytorch_speedup"]
    said = record.details["engines"]["pytorch"]
    assert "dense" not in said
    ratio = said["candidate"]["throughput"] / said["reference"]["throughput"]
    assert record.metrics["pytorch_speedup"].value == pytest.approx(ratio)
    assert "onnxruntime_throughput" in record.metrics


def test_an_engine_with_hardware_of_its_own_is_compared_with_itself(plan, write_exports, monkeypatch):
    _, pruned = write_exports(plan)
    monkeypatch.setattr(registry.load("engines", "pytorch"), "hardware", "a GPU that is not asked for")
    said = make(at(plan, pruned, "benchmark")).details["engines"]["pytorch"]
    assert said["speedup_over"] == "dense" and "reference" not in said


def test_unavailable_engine_is_skipped_with_its_reason(plan, write_exports, monkeypatch):
    teacher, _ = write_exports(plan)
    monkeypatch.setattr(registry.load("engines", "onnxruntime"), "library", "a_library_that_is_not_there")
    record = make(at(plan, teacher, "benchmark"))
    assert "'a_library_that_is_not_there'" in record.details["skipped"]["onnxruntime"]
    assert {name.split("_")[0] for name in record.metrics} == {"pytorch"}
    assert not [name for name in record.metrics if "speedup" in name], "over its own dense model, it would flatter"

    monkeypatch.setattr(registry.load("engines", "pytorch"), "library", "nor_is_this_one")
    with pytest.raises(UserError, match=r"no engine .* runs here: .*nor_is_this_one.*a_library_that_is_not_there"):
        make(at(plan, teacher, "benchmark"))
    with pytest.raises(UserError, match="export checks its file with ONNX Runtime"):
        make(at(plan, teacher, "export"))


def crash(*_):
    raise EngineError("the worker ended by SIGABRT.\nIt wrote last:\nAssertion")


def no_memory(*_):
    raise MemoryError("std::bad_alloc")


@pytest.mark.parametrize(
    ("method", "failure", "reason"),
    [
        ("run", crash, "the worker ended by SIGABRT.\nIt wrote last:\nAssertion"),
        ("__init__", no_memory, "MemoryError: std::bad_alloc"),
    ],
)
def test_an_engine_that_fails_leaves_the_timings_of_the_others(
    plan, write_exports, monkeypatch, method, failure, reason
):
    teacher, _ = write_exports(plan)
    monkeypatch.setattr(registry.load("engines", "pytorch"), method, failure)
    record = make(at(plan, teacher, "benchmark"))
    assert record.details["failed"] == {"pytorch": reason}
    assert record.details["skipped"] == {}
    assert {name.split("_")[0] for name in record.metrics} == {"onnxruntime"}
    raw = json.loads((plan[record.key].folder / "latencies.json").read_text(encoding="utf-8"))
    assert list(raw["engines"]) == ["onnxruntime"]

    monkeypatch.setattr(registry.load("engines", "onnxruntime"), method, failure)
    with pytest.raises(UserError, match=r"no engine of benchmark\.engines could be timed: ") as caught:
        make(at(plan, teacher, "benchmark"))
    assert reason.splitlines()[0] in str(caught.value)


def test_an_engine_with_other_threads_is_no_failure_of_the_engine(plan, write_exports, monkeypatch):
    teacher, _ = write_exports(plan)
    monkeypatch.setattr(registry.load("engines", "pytorch"), "threads", lambda _: 7)
    with pytest.raises(UserError, match="PyTorch runs with 7 threads"):
        make(at(plan, teacher, "benchmark"))


def test_what_an_engine_leaves_to_a_fallback_is_recorded(plan, write_exports, monkeypatch, caplog):
    _, pruned = write_exports(plan)
    monkeypatch.setattr(registry.load("engines", "pytorch"), "unsupported", lambda _: "Sin '/odd/Sin'")
    details = make(at(plan, pruned, "benchmark")).details["engines"]
    assert details["pytorch"]["unsupported"] == {"dense": "Sin '/odd/Sin'", "candidate": "Sin '/odd/Sin'"}
    assert details["onnxruntime"]["unsupported"] == {}
    assert details["onnxruntime"]["version"] == importlib.metadata.version("onnxruntime")
    assert "pytorch leaves a part of the candidate model to a fallback: Sin '/odd/Sin'" in caplog.text


def test_times_that_cannot_be_summarised_leave_those_of_the_others(plan, write_exports, monkeypatch):
    teacher, _ = write_exports(plan)
    speeds, engines = timing.speeds, iter(["pytorch"])

    def first_fails(*arguments):
        if next(engines, None):
            raise ZeroDivisionError("no time at all")
        return speeds(*arguments)

    monkeypatch.setattr(timing, "speeds", first_fails)
    record = make(at(plan, teacher, "benchmark"))
    assert record.details["failed"] == {"pytorch": "ZeroDivisionError: no time at all"}
    assert {name.split("_")[0] for name in record.metrics} == {"onnxruntime"}


def test_an_engine_in_an_environment_of_its_own_is_timed_where_there_is_one(make_plan, write_exports):
    plan = make_plan(engines=["onnxruntime", "deepsparse"])
    _, pruned = write_exports(plan)
    record = make(at(plan, pruned, "benchmark"))
    reason = registry.load("engines", "deepsparse").unavailable_reason()
    assert record.details["skipped"] == ({"deepsparse": reason} if reason else {})
    assert ("deepsparse_speedup" in record.metrics) == (reason is None)
    assert record.details["failed"] == {}
    if reason:
        pytest.skip(reason)
    assert record.details["engines"]["deepsparse"]["threads"] == {"dense": 1, "candidate": 1}


def test_benchmark_refuses_too_many_threads_before_any_work(make_plan):
    plan = make_plan(threads=100_000)
    with pytest.raises(UserError, match=r"benchmark\.threads 100000"):
        make(at(plan, pruned_run(plan, "movie_reviews"), "benchmark"))


def test_benchmark_refuses_a_length_the_model_has_no_positions_for(make_plan, write_exports):
    plan = make_plan(also=[{"sequence_length": 129}])
    teacher, _ = write_exports(plan)
    with pytest.raises(UserError, match=r"benchmark\.sequence_length 129: the model has positions for 128"):
        make(at(plan, teacher, "benchmark"))
