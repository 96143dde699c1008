from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from obert.records.record import Score
from obert.tables._labels import PointLabel
from obert.tables._pareto import is_on_front
from obert.tables._separation import separated
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
    assert any("deepsparse was not timed" in note.text for note in table.notes(make_results(runs)))


def intervals(middles, half):
    return [(middle - half, middle + half) for middle in middles]


def joined(gains, scores, half_gain, half_score):
    """Points by their intervals, most gain first: which are joined."""
    gain, score = intervals(gains, half_gain), intervals(scores, half_score)
    return separated(
        range(len(gains)),
        is_better=lambda i, j: score[i][0] > score[j][1],
        has_more=lambda i, j: gain[i][0] > gain[j][1],
    )


@pytest.mark.parametrize(
    ("gains", "scores", "found"),
    [
        ((3, 2, 1), (60, 70, 80), [0, 1, 2]),
        ((3, 2, 1), (60, 61, 80), [0, 2]),  # the second is not certainly better than the first, which has more
        ((3, 2, 1), (60, 61, 62.5), [0, 2]),  # nor the third than the second; but than the first
        ((3, 2.95, 1), (60, 70, 80), [0, 2]),  # the first has not certainly more than the second
        ((3, 2.95, 2.9), (60, 61, 62), [0]),  # nothing tells them apart
        ((2,), (70,), [0]),
    ],
)
def test_the_line_joins_what_the_intervals_separate(gains, scores, found):
    assert joined(gains, scores, half_gain=0.1, half_score=1) == found


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 30)),
        min_size=1,
        max_size=8,
        unique_by=(lambda p: p[0], lambda p: p[1]),
    )
)
def test_no_more_points_of_a_front_could_be_joined(points):
    """Of all subsets, none that is longer has neighbours that differ by more than their intervals."""
    front = [p for p in points if not any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in points)]
    gains, scores = zip(*sorted(front, reverse=True), strict=True)
    every = range(len(gains))

    def is_chain(chosen):
        return all(gains[i] - gains[j] > 4 and scores[j] - scores[i] > 6 for i, j in pairwise(chosen))

    longest = max(n for n in range(1, len(gains) + 1) if any(map(is_chain, combinations(every, n))))
    kept = joined(gains, scores, half_gain=2, half_score=3)
    assert is_chain(kept) and len(kept) == longest


def test_models_that_the_examples_cannot_tell_apart_are_not_joined(make_results):
    """At 50 % one of 40 examples more is right than at 70 %, at 90 % only half of them: 70 and 90 % are joined."""
    runs = []
    for sparsity, wrong in ((0.5, 0), (0.7, 1), (0.9, 20)):
        value = 100 * (40 - wrong) / 40
        runs.append((record("downstream", value, method="obert", sparsity=sparsity), wrong, 0))
    results = make_results([(made, None, steps) for made, _, steps in runs])
    for made, wrong, _ in runs:
        lines = [f'{{"id": "{i}", "prediction": 1, "score": {100 * (i >= wrong)}}}\n' for i in range(40)]
        (results.folder / made.key.path / "predictions.jsonl").write_text("".join(lines))
    table = ParetoSparsity()
    found = table.build(results)
    assert found["on_front"].tolist() == [True, True, True]
    assert found["joined"].tolist() == [False, True, True]
    axis = table.draw(found).axes[0]
    assert axis.lines[0].get_xdata().tolist() == [70.0, 90.0]
    labels = [child.get_text() for child in axis.get_children() if isinstance(child, PointLabel)]
    assert labels == ["gradual (one seed)"] * 3


def test_models_without_predictions_are_not_joined(make_results):
    runs = [
        (record("downstream", v, method="obert", sparsity=s, seed=k), None, 0)
        for s, v in ((0.5, 75.0), (0.9, 60.0))
        for k in (0, 1)
    ]
    found = ParetoSparsity().build(make_results(runs))
    assert found["on_front"].tolist() == [True, True] and found["joined"].sum() == 1


@pytest.mark.parametrize(("low", "joined"), [(1.1, [True, True]), (0.9, [False, True])])
def test_speeds_are_joined_where_their_intervals_lie_apart(make_results, low, joined):
    """The dense one is at 1, and right where the other is wrong; a line of one point has no length."""
    chosen = {"method": "obert", "sparsity": 0.9}
    details = {"engines": {"onnxruntime": {"speedup_interval": (low, 3.0)}}}
    metrics = {f"onnxruntime_{name}": Score(value=2.0, count=20) for name in ("speedup", "throughput")}
    runs = [
        (record("teacher", 100.0), (100,) * 4, 0),
        (record("downstream", 0.0, **chosen), (0,) * 4, 0),
        (record("benchmark", metrics=metrics, details=details, **chosen), None, 0),
    ]
    found = ParetoSpeed().build(make_results(runs))
    assert found["on_front"].tolist() == [True, True]
    assert found["joined"].tolist() == joined
