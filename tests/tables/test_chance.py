"""Chance by the tasks' own scores of every answer that may be the same for all examples, and recovery from it."""

import json
import math

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from obert.records.record import Score
from obert.tables._chance import Scale, chance_of
from obert.tables.leaderboard import Leaderboard
from obert.tasks.cola import CoLA
from obert.tasks.mrpc import MRPC
from obert.tasks.squad_v2 import SquadV2
from obert.tasks.stsb import STSB
from tables.examples import record

LABELS = [1] * 7 + [0] * 3


def scored(task, predictions, examples):
    """What a task says of predictions: its scores and the predictions with what it adds to them."""
    return {name: score.value for name, score in task.score(predictions, examples).items()}


def classes(task, labels):
    features = Features({"id": Value("string"), "label": ClassLabel(names=list(task.labels))})
    return Dataset.from_dict({"id": [str(i) for i in range(len(labels))], "label": labels}, features)


def always(answer, labels, names):
    return [{"id": str(i), "prediction": answer, "label": names[label]} for i, label in enumerate(labels)]


def with_run(make_results, name, metrics, predictions=None, **fields):
    primary = next(iter(metrics))
    made = record("teacher", task="a_task", spec={"task": {"kind": name}}, primary_metric=primary, **fields)
    made = made.model_copy(update={"metrics": {n: Score(value=v, count=10) for n, v in metrics.items()}})
    results = make_results([(made, None, 0)])
    if predictions is not None:
        folder = results.folder / made.key.path
        (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in predictions))
    return results


@pytest.mark.parametrize(("kind", "name"), [(CoLA, "cola"), (MRPC, "mrpc")])
@pytest.mark.parametrize("labels", [LABELS, [1 - label for label in LABELS]])
def test_chance_is_the_best_score_of_any_class_given_to_all(make_results, kind, name, labels):
    task = kind()
    examples = classes(task, labels)
    best = {}
    for answer in task.labels:
        predictions = always(answer, labels, task.labels)
        for metric, value in scored(task, predictions, examples).items():
            best[metric] = max(best.get(metric, -math.inf), value)
    results = with_run(make_results, name, best, predictions)
    assert {metric: chance_of(results, "a_task", metric) for metric in best} == pytest.approx(best)


def test_chance_of_a_correlation_is_that_of_one_number_for_all(make_results):
    predictions = [{"id": str(i), "prediction": 2.5, "label": float(i)} for i in range(10)]
    found = scored(STSB(), predictions, None)
    results = with_run(make_results, "stsb", {"pearson": 80.0, "spearman": 80.0})
    assert {metric: chance_of(results, "a_task", metric) for metric in found} == found


def test_chance_of_questions_is_that_of_no_answer(make_results):
    answers = [{"text": ["Paris"], "answer_start": [0]}] * 4 + [{"text": [], "answer_start": []}] * 6
    examples = Dataset.from_dict({"id": [str(i) for i in range(10)], "answers": answers})
    scores = SquadV2(source="x").score([{"id": str(i), "prediction": ""} for i in range(10)], examples)
    results = with_run(make_results, "squad_v2", {"f1": 0.0})
    made = results.records[0].model_copy(update={"metrics": scores})
    results = make_results([(made, None, 0)])
    found = {metric: chance_of(results, "a_task", metric) for metric in scores}
    assert found == {metric: score.value for metric, score in scores.items()} and found["f1"] == 60.0


def test_chance_of_records_is_the_share_of_the_most_frequent_answer(make_results):
    results = with_run(make_results, "commonsense_qa", {"accuracy": 60.0}, details={"majority_rate": 20.9})
    assert chance_of(results, "a_task") == 20.9


def test_a_task_may_say_the_chance_of_a_metric_of_its_own(make_results):
    details = {"chance": {"my_metric": 12.5}}
    results = with_run(make_results, "my_task", {"my_metric": 50.0, "other": 1.0}, details=details)
    assert chance_of(results, "a_task") == 12.5 and math.isnan(chance_of(results, "a_task", "other"))
    assert Scale.of(results, "a_task").recovery(31.25) == pytest.approx(50.0)


def test_chance_that_no_record_tells_is_not_guessed(make_results):
    results = with_run(make_results, "sst2", {"accuracy": 60.0})
    assert math.isnan(chance_of(results, "a_task"))
    assert math.isnan(Leaderboard().build(results)["recovery"].iloc[0])


def test_a_dead_classifier_recovers_nothing(make_results):
    """It had 61.6 % of the dense model's accuracy."""
    details = {"majority_rate": 50.9}
    dead = record("downstream", 50.9, method="random", sparsity=0.9, details=details)
    results = make_results([(record("teacher", 82.6, details=details), None, 0), (dead, None, 0)])
    rows = Leaderboard().build(results).set_index("method")
    assert rows.loc["random", ["chance", "recovery"]].tolist() == [50.9, 0.0]
    assert Scale(82.6, 50.9).recovery(82.6) == 100.0
