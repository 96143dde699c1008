"""Labels become numbers of classes with names, or are refused."""

import io
import json
import logging

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from obert.data.columns import Label, Tags, Words
from obert.data.splits import load_splits
from obert.foundation.errors import UserError


@pytest.fixture
def read(tmp_path):
    """Labels of both splits (the same unless said otherwise), and the names of their classes."""

    def load(train, validation=None, classes=None):
        for split, labels in (("train", train), ("validation", train if validation is None else validation)):
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps({"label": x}) + "\n" for x in labels))
        found = load_splits(str(tmp_path), {"label": Label(classes)})
        return list(found["train"]["label"]), list(found["validation"]["label"]), found["train"].features["label"].names

    return load


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        (["pos", "neg", "pos"], [1, 0, 1], ["neg", "pos"]),
        (["0", "1"], [0, 1], ["0", "1"]),
        ([1.0, 0.0], [1, 0], ["0", "1"]),
        ([1, 0], [1, 0], ["0", "1"]),
        ([True, False], [1, 0], ["false", "true"]),
        ([2, 0, 1], [2, 0, 1], ["0", "1", "2"]),
        ([str(i) for i in range(12)], list(range(12)), [str(i) for i in range(12)]),
    ],
)
def test_words_and_whole_numbers_in_any_form_are_classes(read, caplog, labels, numbers, names):
    with caplog.at_level(logging.WARNING):
        assert read(labels) == (numbers, numbers, names)
    assert not caplog.records
    assert all(type(number) is int for number in read(labels)[0])


@pytest.mark.parametrize("labels", [[1, 2], [10, 2], ["5", "1", "3"]])
def test_numbers_with_a_gap_are_numbered_anew_and_it_is_said(read, caplog, labels):
    with caplog.at_level(logging.WARNING):
        numbers, _, names = read(labels)
    order = sorted(map(int, labels))
    assert numbers == [order.index(int(label)) for label in labels]
    assert names == [str(label) for label in order]
    assert "numbered anew: " + ", ".join(f"{x} is class {i}" for i, x in enumerate(order)) in caplog.text


@pytest.mark.parametrize(
    ("train", "validation", "expected"),
    [
        ([0, 1], [0, 1, -1], "validation.jsonl, line 3, column 'label': '-1' is no class: -1 stands for a hidden"),
        ([0, 1], [0, 2, 2], "validation.jsonl, line 2, column 'label': '2' is no class of the training data"),
        ([0, 1], [0, 2, 2], "Allowed: 0, 1. 1 more label is so."),
        ([0, 1], ["0", "pos"], "validation.jsonl, line 2, column 'label': 'pos' is no class"),
        ([-100] * 4, None, "train.jsonl, line 1, column 'label': '-100' is no class"),
        ([-100] * 4, None, "3 more labels are so"),
        ([-1, 1], None, "'-1' is no class"),
        (["a", "b"], ["a", "c"], "'c' is no class of the training data. Allowed: a, b."),
        ([1, 1, 1], None, "at least two classes are needed, and all rows have '1'"),
        (["pos", 1], None, "line 1, column 'label': 'pos' is a word, and other labels are whole numbers"),
    ],
)
def test_labels_that_are_no_classes_are_refused(read, train, validation, expected):
    with pytest.raises(UserError) as error:
        read(train, validation)
    assert expected in str(error.value)


NLI = ("entailment", "neutral", "contradiction")


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        ([0, 2, 1], [0, 2, 1], NLI),
        (["neutral", "entailment", "contradiction"], [1, 0, 2], NLI),
        (["neutral", 0], [1, 0], NLI),
        ([2, 0], [2, 0], NLI),
        (["yes", "no", "maybe"], [2, 1, 0], ("maybe", "no", "yes")),
        ([1, 2, 3], [0, 1, 2], ("1", "2", "3")),
    ],
)
def test_a_tasks_own_classes_are_met_by_name_or_number(read, caplog, labels, numbers, names):
    with caplog.at_level(logging.WARNING):
        assert read(labels, classes=NLI) == (numbers, numbers, list(names))
    assert ("numbered anew" in caplog.text) == (names != NLI)


@pytest.mark.parametrize("classes", [("1", "2"), ("0", "1")])
def test_numbers_that_are_names_are_met_by_name_first(read, classes):
    assert read(list(map(int, classes)), classes=classes) == ([0, 1], [0, 1], list(classes))
    assert read([0, 1], classes=classes) == ([0, 1], [0, 1], list(classes))


@pytest.mark.parametrize(
    ("train", "validation", "expected"),
    [
        ([0, 1, 3], None, "'3' is no class of the task. Allowed: entailment, neutral, contradiction, or 0 to 2"),
        ([0, 1], [2], "'2' is a class that no training example has"),
        (["yes", "no"], None, "line 1, column 'label': 'yes' is no class of the task"),
        ([0, 0], None, "at least two classes are needed"),
    ],
)
def test_labels_that_a_tasks_classes_lack_are_refused(read, train, validation, expected):
    with pytest.raises(UserError) as error:
        read(train, validation, NLI)
    assert expected in str(error.value)


def write_parquet(folder, split, names, labels):
    features = Features({"label": ClassLabel(names=names)})
    file = io.BytesIO()
    Dataset.from_dict({"label": labels}, features=features).to_parquet(file)
    (folder / f"{split}.parquet").write_bytes(file.getvalue())


def test_a_source_that_names_its_classes_keeps_them(tmp_path):
    for split in ("train", "validation"):
        write_parquet(tmp_path, split, ["z", "a"], [0, 1, 1])
    found = load_splits(str(tmp_path), {"label": Label()})["train"]
    assert (list(found["label"]), found.features["label"].names) == ([0, 1, 1], ["z", "a"])
    stated = load_splits(str(tmp_path), {"label": Label(("a", "z"))})["train"]
    assert (list(stated["label"]), stated.features["label"].names) == ([1, 0, 0], ["a", "z"])
    other = load_splits(str(tmp_path), {"label": Label(("bad", "good"))})["train"]
    assert (list(other["label"]), other.features["label"].names) == ([0, 1, 1], ["z", "a"])
    with pytest.raises(UserError, match="is of 2 classes; the task has 3: entailment, neutral, contradiction"):
        load_splits(str(tmp_path), {"label": Label(NLI)})
    write_parquet(tmp_path, "validation", ["a", "z"], [0, 1])
    with pytest.raises(UserError, match="the splits name their classes differently"):
        load_splits(str(tmp_path), {"label": Label()})
    write_parquet(tmp_path, "validation", ["z", "a"], [0, -1])
    with pytest.raises(UserError, match=r"validation.parquet, row 2, column 'label': '-1' is no class"):
        load_splits(str(tmp_path), {"label": Label()})


def write_tags(folder, split, rows):
    lines = ({"tokens": ["w"] * len(tags), "tags": tags} for tags in rows)
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_tags_are_numbered_as_labels_are(tmp_path):
    columns = {"tokens": Words(), "tags": Tags(words="tokens")}
    write_tags(tmp_path, "train", [["O", "B-LOC", "O"], ["I-LOC"]])
    write_tags(tmp_path, "validation", [["O"], ["B-LOC", "O"]])
    found = load_splits(str(tmp_path), columns)
    assert found["train"].features["tags"] == List(ClassLabel(names=["B-LOC", "I-LOC", "O"]))
    assert list(found["train"]["tags"]) == [[2, 0, 2], [1]]
    assert list(found["validation"]["tags"]) == [[2], [0, 2]]
    write_tags(tmp_path, "validation", [["O"], ["B-LOC", "B-PER"]])
    with pytest.raises(UserError, match=r"validation.jsonl, line 2, column 'tags': 'B-PER' is no class"):
        load_splits(str(tmp_path), columns)


def test_tags_of_a_source_that_names_them_keep_their_order(tmp_path):
    features = Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=["O", "B"]))})
    for split in ("train", "validation"):
        rows = Dataset.from_dict({"tokens": [["a", "b"], ["c"]], "tags": [[0, 1], [0]]}, features=features)
        rows.to_parquet(str(tmp_path / f"{split}.parquet"))
    found = load_splits(str(tmp_path), {"tokens": Words(), "tags": Tags(words="tokens")})["train"]
    assert found.features["tags"] == List(ClassLabel(names=["O", "B"]))
    assert list(found["tags"]) == [[0, 1], [0]]
