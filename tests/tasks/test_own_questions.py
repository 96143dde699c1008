"""Own questions without Python: choices in one column or in several, answers that may be empty, columns of any name."""

import json

import pandas as pd
import pytest
from transformers import BertTokenizer

from obert.experiment.recipes import load_task
from obert.foundation.errors import UserError

CHOICES = ("tea", "milk", "iced water")
WORDS = ("what", "is", "cold", "he", "drinks", "much", "tea", "milk", "iced", "water", "and", "or")
COLD = "he drinks tea and milk and iced water"


@pytest.fixture(scope="module")
def tokenizer():
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?", *map(str, range(10)), *WORDS]
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)})


def quiz(labels, folder, suffix=".csv", several=True, **more):
    """A file with one question for each label, and columns of its own."""
    rows = []
    for number, label in enumerate(labels):
        choices = dict(zip("xyz", CHOICES, strict=True)) if several else {"options": list(CHOICES)}
        rows.append({"ask": f"what is cold {number} ?", **choices, "right": label, "seen": "2024-01-01"})
        rows[-1] |= {name: text.format(number=number) for name, text in more.items()}
    path = folder / f"all{suffix}"
    if suffix == ".csv":
        cells = [{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
        pd.DataFrame(cells).to_csv(path, index=False)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def quiz_task(path, **changes):
    chosen = {"kind": "multiple_choice", "source": str(path), "question": "ask", "choices": list("xyz")}
    return load_task("my_quiz", {**chosen, "label": "right", **changes}, "the test")


def everything(task):
    """All examples, in the order of their questions."""
    splits = task.load()
    rows = [row for split in splits.values() for row in split]
    return sorted(rows, key=lambda row: row["question"])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize(
    "labels",
    [[0, 1, 2, 2, 1, 0], list("ABCCBA"), list("abccba"), [CHOICES[i] for i in (0, 1, 2, 2, 1, 0)]],
    ids=["number", "letter", "small letter", "text"],
)
def test_choices_and_labels_in_every_form(tmp_path, suffix, several, labels):
    task = quiz_task(quiz(labels, tmp_path, suffix, several), choices=list("xyz") if several else "options")
    rows = everything(task)
    assert [row["label"] for row in rows] == [0, 1, 2, 2, 1, 0]
    assert all(row["choices"] == list(CHOICES) for row in rows)
    assert set(rows[0]) == {"id", "question", "choices", "label"}


def test_a_choice_is_a_pair_with_its_question(tmp_path, tokenizer):
    task = quiz_task(quiz([2, 0], tmp_path))
    row = task.encode(task.load()["train"], tokenizer)[0]
    first, _, third = map(tokenizer.decode, row["input_ids"])
    assert first.startswith("[CLS] what is cold") and first.endswith("? [SEP] tea [SEP]")
    assert third.endswith("? [SEP] iced water [SEP]")
    assert row["length"] == len(row["input_ids"][2])


def test_a_passage_comes_first_and_is_cut(tmp_path, tokenizer):
    task = quiz_task(quiz([2, 0], tmp_path, passage=f"{COLD} " * 9 + "{number}"), context="passage", max_length=24)
    row = task.encode(task.load()["train"], tokenizer)[0]
    text = tokenizer.decode(row["input_ids"][2])
    assert text.startswith(f"[CLS] {COLD} he drinks") and text.endswith("? iced water [SEP]")
    assert row["length"] == 24
    with pytest.raises(UserError, match="lacks column passage"):
        quiz_task(quiz([2, 0], tmp_path), context="passage").load()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 3], "line 3, column 'right': '3' is beyond the 3 choices. Allowed: the number of one of x, y, z from 0"),
        ([0, "juice"], "'juice' is none of the choices"),
        ([0, ""], "hides the answer"),
        ([0, -1], "'-1' is none of the choices"),
    ],
)
def test_labels_that_name_no_choice_are_refused(tmp_path, labels, message):
    with pytest.raises(UserError) as caught:
        quiz_task(quiz(labels, tmp_path)).load()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"choices": ["x", "x"]}, "'x' is named twice"),
        ({"choices": ["x"]}, "a list of one column"),
        ({"label": "ask"}, "'ask' is named twice"),
        ({"context": "x"}, "'x' is named twice"),
    ],
)
def test_mistakes_in_the_columns_are_told_before_any_data_is_read(changes, message):
    with pytest.raises(UserError, match=message):
        quiz_task("tests/data/nowhere", **changes)


def facts(answers, folder):
    rows = [
        {"passage": f"{COLD} {number}", "ask": "what is cold ?", "found": answer}
        for number, answer in enumerate(answers)
    ]
    path = folder / "facts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def facts_task(path, **changes):
    chosen = {"kind": "question_answering", "source": str(path), "max_length": 32, "doc_stride": 4}
    columns = {"context": "passage", "question": "ask", "answers": "found"}
    return load_task("my_facts", {**chosen, **columns, **changes}, "the test")


def test_answers_as_text_under_own_names(tmp_path, tokenizer):
    task = facts_task(facts(["iced water"] * 20, tmp_path))
    splits = task.load()
    assert {name: len(split) for name, split in splits.items()} == {"train": 18, "validation": 2}
    assert task.calibration() is None
    examples = splits["validation"]
    assert examples.column_names == ["id", "context", "question", "answers"]
    assert examples["answers"][0] == {"text": ["iced water"], "answer_start": [COLD.index("iced")]}
    (feature, _) = task.encode(examples, tokenizer)
    span = slice(feature["start_positions"], feature["end_positions"] + 1)
    assert tokenizer.decode(feature["input_ids"][span]) == "iced water"


def test_answers_that_may_be_empty_have_a_threshold_and_the_scores_of_squad_v2(tmp_path):
    path = facts(["iced water", ""] * 20, tmp_path)
    with pytest.raises(UserError, match="is without an answer, which this task does not allow"):
        facts_task(path).load()
    task = facts_task(path, unanswerable=True, threshold_examples=0.3)
    splits, held = task.load(), task.calibration()
    assert len(splits["train"]) + len(held) == 36 and not set(splits["train"]["id"]) & set(held["id"])
    examples = splits["validation"]
    predictions = [{"id": i, "prediction": ""} for i in examples["id"]]
    scores = task.score(predictions, examples)
    unanswered = sum(not answers["text"] for answers in examples["answers"])
    assert scores["exact_match"].value == pytest.approx(100 * unanswered / len(examples))


def test_squad_v2_itself_is_a_kind(tmp_path):
    row = {"id": "1", "context": COLD, "question": "what ?", "answers": {"text": [], "answer_start": []}}
    for split in ("train", "validation"):
        rows = [{**row, "id": str(i), "context": f"{COLD} {i}"} for i in range(40)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load_task("mine", {"kind": "squad_v2", "source": str(tmp_path), "threshold_examples": 0.2}, "the test")
    assert len(task.load()["train"]) < 40 and len(task.calibration()) > 0
