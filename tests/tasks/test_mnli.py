"""MNLI's two validation sets in one run: the mismatched one counts by itself, and only where the source has it."""

import json

import pytest

from obert.experiment.recipes import load_task

NAMES = ("entailment", "neutral", "contradiction")


def write(folder, split, count, label=lambda i: i % 3):
    rows = [{"premise": f"{split} {i}", "hypothesis": f"so {i}", "label": label(i), "idx": i} for i in range(count)]
    (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return rows


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "train", 12)
    write(tmp_path, "validation_matched", 6)
    return tmp_path


def scores(task, examples, wrong):
    lines = []
    for i, label in zip(examples["id"], examples["label"], strict=True):
        lines.append({"id": i, "prediction": NAMES[(label + (i in wrong)) % 3], "label": NAMES[label]})
    return task.score(lines, examples), lines


def test_without_a_mismatched_set_there_is_one_accuracy(folder):
    task = load_task("mnli", {"source": str(folder)}, "the test")
    examples = task.load()["validation"]
    assert task.classes(examples) == NAMES
    found, _ = scores(task, examples, {"validation-0"})
    assert {name: (score.value, score.count) for name, score in found.items()} == {
        "accuracy": (pytest.approx(500 / 6), 6)
    }


def test_both_sets_are_judged_in_one_run(folder):
    further = write(folder, "validation_mismatched", 4)
    with (folder / "train.jsonl").open("a") as file:
        file.write("\n" + json.dumps({**further[1], "idx": 99}))
    task = load_task("mnli", {"source": str(folder)}, "the test")
    splits = task.load()
    assert len(splits["train"]) == 12  # the one that stands in the mismatched set is left out
    examples = splits["validation"]
    assert examples["id"][5:8] == ["validation-5", "mismatched-validation-0", "mismatched-validation-1"]
    found, lines = scores(task, examples, {"mismatched-validation-0", "validation-0", "validation-1"})
    assert (found["accuracy"].value, found["accuracy"].count) == (pytest.approx(400 / 6), 6)
    assert (found["accuracy_mismatched"].value, found["accuracy_mismatched"].count) == (75, 4)
    assert [line["score"] for line in lines] == [0, 0, 100, 100, 100, 100, None, None, None, None]


def test_subsets_are_of_each_set_and_nothing_but_training_is_held_out(folder):
    write(folder, "validation_mismatched", 4)
    few = load_task("mnli", {"source": str(folder), "eval_examples": 2}, "the test").load()["validation"]
    assert [i.startswith("mismatched-") for i in few["id"]] == [False, False, True, True]
    held = load_task("mnli", {"source": str(folder), "held_out": 0.5}, "the test").load()["validation"]
    assert all(i.startswith("train-") for i in held["id"])
