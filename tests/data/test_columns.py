"""What each kind of column takes, what it makes of it, and what it refuses."""

import json
from decimal import Decimal

import pytest

from obert.data.columns import (
    Answers,
    Choice,
    Identifier,
    Label,
    Number,
    Remark,
    Tags,
    Text,
    Texts,
    Words,
)
from obert.data.values import Mended, Unfit

CONTEXT = "the cat sat on the mat"
ROW = {"context": CONTEXT, "options": ["tea", "2", "milk"], "tokens": ["a", "cat", "sat"]}
BOTH = {"text": ["cat", "mat"], "answer_start": [4, 19]}


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        (Text(), " a film ", " a film "),
        (Text(may_be_blank=True), "", ""),
        (Remark(), None, ""),
        (Remark(), "note", "note"),
        (Identifier(), 7, "7"),
        (Identifier(), "q-7", "q-7"),
        (Number(), 3, 3.0),
        (Number(), " 2.50", 2.5),
        (Number(), "-1e3", -1000.0),
        (Number(), Decimal("4.25"), 4.25),
        (Label(), "pos ", "pos"),
        (Label(), 1, "1"),
        (Label(), "1", "1"),
        (Label(), 1.0, "1"),
        (Label(), "1.0", "1"),
        (Label(), "-1", "-1"),
        (Label(), True, "true"),
        (Label(), "1.5 stars", "1.5 stars"),
        (Texts(), ["x"], ["x"]),
        (Texts(at_least=2), '["x", "y"]', ["x", "y"]),
        (Words(), " a  cat sat", ["a", "cat", "sat"]),
        (Words(), '["a", "cat"]', ["a", "cat"]),
        (Words(), "[ a cat", ["[", "a", "cat"]),
        (Tags(), ["O", "B", "O"], ["O", "B", "O"]),
        (Tags(), "O B O", ["O", "B", "O"]),
        (Tags(), [0, 1, 0], ["0", "1", "0"]),
        (Choice("options"), 0, 0),
        (Choice("options"), "1", 1),
        (Choice("options"), 2.0, 2),
        (Choice("options"), "C", 2),
        (Choice("options"), "b", 1),
        (Choice("options"), "milk", 2),
        (Choice("options"), "2", 1),  # a choice's own text comes first
        (Answers(), BOTH, BOTH),
        (Answers(), json.dumps(BOTH), BOTH),
        (Answers(), [{"text": "cat", "answer_start": 4}], {"text": ["cat"], "answer_start": [4]}),
        (Answers(), "cat", {"text": ["cat"], "answer_start": [4]}),
        (Answers(), {"text": "the", "answer_start": 15}, {"text": ["the"], "answer_start": [15]}),
        (Answers(), {"text": ["cat"]}, {"text": ["cat"], "answer_start": [4]}),
        (Answers(may_be_empty=True), {"text": [], "answer_start": []}, {"text": [], "answer_start": []}),
        (Answers(may_be_empty=True), "", {"text": [], "answer_start": []}),
    ],
)
def test_values_are_converted(column, value, expected):
    found = column.convert(value, ROW)
    assert found == expected and type(found) is type(expected)
    column.feature()


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        (Text(), "", "is blank"),
        (Text(), "\u2003", "is blank"),
        (Text(), None, "is null"),
        (Text(), 1, "is a number"),
        (Text(), True, "is a truth value"),
        (Text(), b"x", "is bytes"),
        (Text(may_be_blank=True), None, "is null"),
        (Remark(), 5, "is a number"),
        (Identifier(), 1.0, "is a number"),
        (Number(), None, "is null"),
        (Number(), True, "is a truth value"),
        (Number(), "", "is blank"),
        (Number(), "three", "is not a number"),
        (Number(), "nan", "is not finite"),
        (Number(), float("inf"), "is not finite"),
        (Number(), 10**400, "is not a number"),
        (Number(), {}, "is an object"),
        (Label(), None, "is null"),
        (Label(), " ", "is blank"),
        (Label(), 0.5, "is a number that is not whole"),
        (Label(), float("inf"), "is a number that is not whole"),
        (Label(), ["x"], "is a list"),
        (Texts(), [], "has 0 entries"),
        (Texts(at_least=2), ["x"], "has 1 entries"),
        (Texts(), ["x", ""], "has an entry that is blank"),
        (Texts(), ["x", None], "has an entry that is null"),
        (Texts(), "x y", "is text"),
        (Words(), None, "is null"),
        (Words(), "", "has 0 entries"),
        (Tags(), ["O", "B"], "has not as many entries as 'tokens'"),
        (Tags(), ["O", None, "B"], "has an entry that is null"),
        (Choice("options"), 3, "is beyond the 3 choices"),
        (Choice("options"), -1, "is none of the choices"),
        (Choice("options"), "D", "is beyond the 3 choices"),
        (Choice("options"), "coffee", "is none of the choices"),
        (Choice("options"), None, "is null"),
        (Answers(), None, "is null"),
        (Answers(), 3, "is a number"),
        (Answers(), {"answer": "cat"}, "has no 'text'"),
        (Answers(), {"text": [], "answer_start": []}, "is without an answer"),
        (Answers(), "", "is without an answer"),
        (Answers(), {"text": ["cat", "mat"], "answer_start": [4]}, "has not as many starts as texts"),
        (Answers(), {"text": ["cat"], "answer_start": ["4"]}, "has a start that is not a whole number"),
        (Answers(), {"text": [" "], "answer_start": [3]}, "has an entry that is blank"),
        (Answers(), "dog", "has an answer that does not stand in the context"),
        (Answers(), "the", "has an answer without a start that stands in the context more than once"),
        (Answers(), {"text": ["the"], "answer_start": [3]}, "whose start is wrong that stands in the context more"),
        (Answers(), {"text": ["the"], "answer_start": [-7]}, "whose start is wrong"),
        (Answers(may_be_empty=True), {"text": ["dog"], "answer_start": [0]}, "does not stand in the context"),
    ],
)
def test_values_are_refused_with_the_reason(column, value, expected):
    with pytest.raises(Unfit) as error:
        column.convert(value, ROW)
    assert expected in str(error.value)
    assert column.allowed


def test_the_text_of_several_choices_is_refused():
    with pytest.raises(Unfit, match="several choices"):
        Choice("options").convert("x", {"options": ["x", "x"]})


def test_a_wrong_start_is_found_again_where_the_answer_stands_once():
    found = Answers().convert({"text": ["cat", "the"], "answer_start": [9, 15]}, ROW)
    assert found == Mended({"text": ["cat", "the"], "answer_start": [4, 15]}, found.how)
    assert "found again" in found.how
