"""Metrics against cases worked by hand and a second, independent reading of the SQuAD v1.1 script's definition."""

import random
import string

import pytest

from obert.tasks._metrics import Accuracy, AccuracyAndF1, SquadV1, exact_match, f1, normalise_answer


def tokens_by_the_book(text):
    """Lower case; punctuation characters deleted; the words a, an, the replaced by a space; split at white space."""
    kept = []
    for character in text.lower():
        if character not in set(string.punctuation):
            kept.append(character)
    return [word for word in "".join(kept).split() if word not in ("a", "an", "the")]


def f1_by_the_book(prediction, reference):
    given, rest = tokens_by_the_book(prediction), tokens_by_the_book(reference)
    total = len(rest)
    shared = 0
    for word in given:
        if word in rest:
            rest.remove(word)
            shared += 1
    if shared == 0:
        return 0.0
    precision, recall = shared / len(given), shared / total
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize(
    ("prediction", "references", "exact", "overlap"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 100, 100),
        ("Eiffel", ["the Eiffel Tower", "tower"], 0, 200 / 3),
        ("in Paris, France", ["Paris", "France Paris"], 0, 80),
        ("red red blue", ["red blue blue"], 0, 200 / 3),
        ("nothing", ["something"], 0, 0),
        ("", ["word"], 0, 0),
        ("the", ["a"], 100, 0),
        ("1,000", ["1000"], 100, 100),
        ("theatre", ["atre"], 0, 0),
        (" two\n spaces ", ["two  spaces"], 100, 100),
    ],
)
def test_exact_match_and_f1_of_examples_made_by_hand(prediction, references, exact, overlap):
    assert exact_match(prediction, references) == exact
    assert f1(prediction, references) == pytest.approx(overlap)


def test_exact_match_and_f1_agree_with_an_independent_implementation():
    rng = random.Random(0)
    words = ["a", "the", "an", "The", "cat", "dog", "U.S.", "1,000", "it's", "--", "été", "cat!", "\t"]

    def phrase():
        return " ".join(rng.choices(words, k=rng.randint(0, 6)))

    for _ in range(500):
        prediction, references = phrase(), [phrase() for _ in range(rng.randint(1, 3))]
        assert normalise_answer(prediction).split() == tokens_by_the_book(prediction)
        assert f1(prediction, references) == pytest.approx(100 * max(f1_by_the_book(prediction, r) for r in references))
        expected = any(tokens_by_the_book(prediction) == tokens_by_the_book(r) for r in references)
        assert exact_match(prediction, references) == 100 * expected


def test_metrics_average_over_examples_without_a_network():
    assert Accuracy().compute(predictions=[1, 0, 1, 1], references=[1, 1, 1, 1]) == {"accuracy": 75}
    values = SquadV1().compute(predictions=["Eiffel", "dog"], references=[["the Eiffel Tower", "tower"], ["a dog"]])
    assert values == {"exact_match": 50, "f1": pytest.approx(500 / 6)}


def test_f1_of_the_positive_label():
    """Two of three given 1s are right, two of four true 1s are found: precision 2/3, recall 1/2, F1 4/7."""
    given, expected = [1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 1, 0]
    found = AccuracyAndF1().compute(predictions=given, references=expected)
    assert found == {"accuracy": 50, "f1": pytest.approx(400 / 7)}
    assert AccuracyAndF1().compute(predictions=[0, 0], references=[0, 0]) == {"accuracy": 100, "f1": 0}
