"""Questions with choices and without answers through the stages: what records say, and that engines score the same."""

import json
from pathlib import Path

import pytest
import questions_with_choices
from planned import at, made, results_in

from obert.experiment.plan import Plan

DATA = Path(__file__).parents[1] / "data"
TASKS = ("commonsense_qa", "winogrande", "squad_v2")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder for each task: the small questions, of squad_v2 every third without an answer."""
    folders = {name: tmp_path_factory.mktemp(name) for name in TASKS}
    for name in TASKS[:2]:
        questions_with_choices.write(name, folders[name])
    for split in ("train", "validation"):
        rows = [json.loads(line) for line in (DATA / "city_qa" / f"{split}.jsonl").read_text().splitlines()]
        empty = {"answers": {"text": [], "answer_start": []}}
        moved = [
            {**row, "context": rows[i - 10]["context"], **empty} if i % 3 == 0 else row for i, row in enumerate(rows)
        ]
        (folders["squad_v2"] / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in moved))
    return folders


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def plan(root, monkeypatch, results, sources, tmp_path):
    results_in(results, monkeypatch)
    tasks = {name: {"source": str(folder), "max_length": 96} for name, folder in sources.items()}
    tasks["squad_v2"] |= {"doc_stride": 16, "threshold_examples": 0.2}
    content = {
        "name": "questions",
        "description": "Questions of each kind.",
        "model": {"source": "tests/data/tiny_bert"},
        "tasks": tasks,
        "seeds": [0],
        "threads": 1,
        "teacher": "smoke_finetune",
        "downstream": [{"recipes": ["smoke_one_shot"], "methods": ["obert"], "sparsities": [0.5]}],
        "benchmark": {"recipes": ["smoke_one_shot"], "engines": ["onnxruntime"], "batch_size": 1, "sequence_length": 8}
        | {"threads": 1, "warmup": 1, "iterations": 5},
        "tables": ["leaderboard"],
    }
    path = tmp_path / "questions.yaml"
    path.write_text(json.dumps(content))
    return Plan.load(path)


@pytest.mark.parametrize("task", [pytest.param(t, marks=pytest.mark.slow) if t == "winogrande" else t for t in TASKS])
def test_pruned_models_are_exported_and_scored_alike_by_an_engine(plan, task):
    """Of squad_v2 the engine's score takes the threshold that the trained model decided, which its record has."""
    teacher = next(run for run in plan.of_stage("teacher") if run.key.task == task)
    pruned = next(run for run in plan.of_stage("downstream") if run.key.task == task)
    for run in (teacher, at(plan, teacher, "export")):
        made(run)
    record = made(pruned)
    exported, timed = (made(at(plan, pruned, stage)) for stage in ("export", "benchmark"))
    assert record.sparsity.measured == pytest.approx(0.5, abs=1e-3)
    for name, score in record.metrics.items():
        found = timed.metrics[f"onnxruntime_{name}"]
        assert (found.value, found.count) == (pytest.approx(score.value), score.count)
    if task == "squad_v2":
        assert set(record.details["decided"]) == {"null_threshold"}
        assert exported.details["decided"] == record.details["decided"]
    else:
        assert {"ties", "majority_rate", "constant_rate", "collapsed"} <= set(record.details)
        assert "decided" not in record.details
        lines = (pruned.folder / "predictions.jsonl").read_text().splitlines()
        assert len(lines) == record.metrics["accuracy"].count
        assert len(json.loads(lines[0])["scores"]) == {"commonsense_qa": 5, "winogrande": 2}[task]
