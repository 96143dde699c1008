import pytest

from obert.statistics.collapse import collapse
from obert.tasks.cola import CoLA
from obert.tasks.mnli import MNLI


def outcome(answers, labels):
    return collapse(answers, labels, [a == b for a, b in zip(answers, labels, strict=True)])


def test_one_answer_to_everything_is_collapsed_however_often_it_is_right():
    assert outcome("aaaa", "aaab") == {"majority_rate": 75.0, "constant_rate": 100.0, "collapsed": True}


@pytest.mark.parametrize(("right", "collapsed"), [(10, True), (11, False), (2, True)])
def test_chance_is_one_half_of_two_even_classes(right, collapsed):
    """16 examples, 8 of each class: one standard error is sqrt(0.25 / 16) = 12.5 %, two examples."""
    labels = "ab" * 8
    answers = labels[:right] + labels[right:].translate(str.maketrans("ab", "ba"))
    assert outcome(answers, labels)["collapsed"] is collapsed


@pytest.mark.parametrize(("right", "collapsed"), [(88, True), (89, False)])
def test_chance_of_uneven_classes_is_the_share_of_the_most_frequent(right, collapsed):
    """85 of 100: one standard error is sqrt(0.85 0.15 / 100) = 3.57 %. An answer to half of the classes would be 50."""
    labels = "a" * 85 + "b" * 15
    answers = "a" * 85 + "b" * (right - 85) + "a" * (100 - right)
    found = outcome(answers, labels)
    assert (found["majority_rate"], found["collapsed"]) == (85.0, collapsed)


def test_chance_of_questions_is_the_most_frequent_position():
    """Four choices, 100 questions, the first right in 40: 40 % and one standard error of 4.90 points."""
    labels = [0] * 40 + [1] * 20 + [2] * 20 + [3] * 20
    answers = [3] * 70 + [2] * 30
    for count, collapsed in ((44, True), (45, False)):
        assert collapse(answers, labels, [i < count for i in range(100)])["collapsed"] is collapsed


def remarks(task, pairs, **of_each):
    return task().remarks([{"prediction": p, "label": label, **of_each} for p, label in pairs], None)


def test_classification_tasks_say_whether_the_model_has_collapsed():
    """7 of 10 sentences are acceptable; 0.7 and one standard error, sqrt(0.21 / 10), are 84.5 %: nine are needed."""
    right = [("acceptable", "acceptable")] * 7 + [("unacceptable", "unacceptable")] * 2
    assert remarks(CoLA, [*right, ("acceptable", "unacceptable")], terms=[1, 0, 0, 0]) == {
        "majority_rate": 70.0,
        "constant_rate": 80.0,
        "collapsed": False,
    }
    assert remarks(CoLA, [*right[:-1], *[("acceptable", "unacceptable")] * 2], terms=[1, 0, 0, 0])["collapsed"]


def test_mismatched_examples_do_not_count():
    matched = [{"prediction": "neutral", "label": c, "score": 100.0} for c in ("neutral", "entailment")]
    further = [{"prediction": "entailment", "label": "entailment", "score": None}] * 8
    found = MNLI().remarks([*matched, *further], None)
    assert found == {"majority_rate": 50.0, "constant_rate": 100.0, "collapsed": True}
