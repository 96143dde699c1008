import numpy as np
import pytest

from obert.records.record import Score
from obert.tables._pareto import is_on_front
from obert.tables.pareto_sparsity import ParetoSparsity
from obert.tables.pareto_speed import ParetoSpeed
from tables.examples import DENSE_RECIPE, record


@pytest.mark.parametrize(
    ("gains", "scores", "front"),
    [
        ([0, 1, 2], [3, 2, 1], [True, True, True]),
        ([0, 1, 2], [1, 2, 3], [False, False, True]),
        ([1, 1, 0], [2, 1, 2], [True, False, False]),  # as good in one, behind in the other
        ([1, 1], [2, 2], [True, True]),  # neither of two equal points is better
        ([0, 1, 1, 3], [80, 81, 70, 60], [False, True, False, True]),
    ],
)
def test_front_holds_the_points_that_no_other_dominates(gains, scores, front):
    assert is_on_front(np.array(gains), np.array(scores)).tolist() == front


def test_sparsity_front_spans_all_recipes_and_the_dense_model(make_results):
    """Dense 80; 75 at 50 % beats the 70 of the other recipe there, and 60 at 90 % is the sparsest."""
    runs = [(record("teacher", 80.0), None, 0)]
    for recipe, method, sparsity, value in [
        ("gradual", "obert", 0.5, 75.0),
        ("one_shot", "obert", 0.5, 70.0),
        ("gradual", "magnitude", 0.9, 60.0),
        ("gradual", "obert", 0.7, 55.0),
    ]:
        runs.append((record("downstream", value, method=method, sparsity=sparsity, recipe=recipe), None, 0))
    found = ParetoSparsity().build(make_results(runs))
    assert found["method"].tolist() == ["dense", "obert", "obert", "magnitude", "obert"]
    assert found["on_front"].tolist() == [True, True, False, True, False]


def test_speed_has_one_front_for_each_engine(make_results):
    """Twice as fast in one engine, slower in the other, where the dense one is slower still; not timed in the third."""
    speeds = {"onnxruntime": 2.0, "pytorch": 0.9}
    metrics = {f"{engine}_speedup": Score(value=value, count=20) for engine, value in speeds.items()}
    metrics |= {f"{engine}_throughput": Score(value=100 * value, count=20) for engine, value in speeds.items()}
    details = {"skipped": {"deepsparse": "not here"}}
    chosen = {"method": "obert", "sparsity": 0.9}
    runs = [
        (record("teacher", 80.0), None, 0),
        (record("downstream", 70.0, **chosen), None, 0),
        (record("benchmark", metrics=metrics, details=details, **chosen), None, 0),
        (record("benchmark", recipe=DENSE_RECIPE, metrics={"pytorch_speedup": Score(value=0.5, count=20)}), None, 0),
    ]
    table = ParetoSpeed()
    found = table.build(make_results(runs))
    rows = found[["engine", "method", "speedup", "on_front"]].to_numpy().tolist()
    assert rows == [
        ["onnxruntime", "dense", 1.0, True],
        ["onnxruntime", "obert", 2.0, True],
        ["pytorch", "dense", 0.5, True],
        ["pytorch", "obert", 0.9, True],
    ]
    assert "deepsparse was not timed" in table.notes(make_results(runs))[0].text
