"""Own data without Python: a task of any name whose `kind` says how it is read, with its own columns and labels."""

import csv
import json
from pathlib import Path

import pandas as pd
import pytest

from obert.experiment.plan import Plan
from obert.experiment.recipes import load_task
from obert.experiment.yaml_file import read_yaml
from obert.foundation import registry
from obert.foundation.code_identity import code_hash
from obert.foundation.errors import UserError
from obert.models import architectures

WORDS = ("dull", "fine", "grand")
REVIEWS = [{"review": f"film number {i} was {WORDS[i % 3]}", "stars": WORDS[i % 3], "seen": i} for i in range(30)]


def options(source, **changes):
    return {"kind": "classification", "source": str(source), "text": "review", "label": "stars", **changes}


def write(path, rows):
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_one_file_of_any_format_with_words_for_labels(tmp_path, suffix):
    task = load_task("my_reviews", options(write(tmp_path / f"all{suffix}", REVIEWS)), "the test")
    splits = task.load()
    assert {name: len(split) for name, split in splits.items()} == {"train": 27, "validation": 3}
    assert task.classes(splits["train"]) == WORDS
    stars = {row["review"]: row["stars"] for row in REVIEWS}
    for split in splits.values():
        assert split.column_names == ["id", "review", "stars"]
        assert [WORDS[row["stars"]] for row in split] == [stars[row["review"]] for row in split]


def test_a_folder_and_pairs_of_texts(tmp_path):
    for split in ("train", "validation"):
        pairs = [{"premise": f"{split} {i}", "hypothesis": f"that {i}", "label": i % 2} for i in range(6)]
        write(tmp_path / f"{split}.tsv", pairs)
    chosen = {"kind": "classification", "source": str(tmp_path), "text": ["premise", "hypothesis"]}
    splits = load_task("my_pairs", chosen, "the test").load()
    assert splits["validation"]["premise"] == [f"validation {i}" for i in range(6)]
    assert splits["validation"]["hypothesis"] == [f"that {i}" for i in range(6)]


def test_an_existing_task_under_another_name(tmp_path):
    write(tmp_path / "train.jsonl", [{"sentence": f"s {i}", "label": i % 2} for i in range(4)])
    write(tmp_path / "validation.jsonl", [{"sentence": f"v {i}", "label": i % 2} for i in range(4)])
    task = load_task("their_sst2", {"kind": "sst2", "source": str(tmp_path)}, "the test")
    assert isinstance(task, registry.load("tasks", "sst2"))
    assert task.classes(task.load()["train"]) == ("negative", "positive")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "clasification"}, ["tasks.my_reviews.kind", "Did you mean 'classification'?"]),
        ({"kind": ["mnli"]}, ["tasks.my_reviews.kind"]),
        ({"text": ["a", "b", "c"]}, ["tasks.my_reviews", "'text'", "3 columns"]),
        ({"text": ["review", "review"]}, ["'review' is named twice"]),
        ({"text": "stars"}, ["'stars' is named twice"]),
        ({"text": "id"}, ["'id' is named twice"]),
        ({"texts": "review"}, ["'texts'", "Did you mean 'text'?"]),
    ],
)
def test_mistakes_in_the_options_are_told_before_any_data_is_read(changes, words):
    with pytest.raises(UserError) as error:
        load_task("my_reviews", options("tests/data/nowhere", **changes), "c.yaml, tasks.my_reviews")
    assert all(word in str(error.value) for word in words)


def test_runs_are_named_by_the_task_and_hashed_with_the_file_of_its_kind(tmp_path):
    content = read_yaml(Path("configs/smoke.yaml"))
    content = {name: content[name] for name in ("description", "model", "teacher")}
    content |= {"name": "own", "tasks": {"my_reviews": options(write(tmp_path / "all.csv", REVIEWS))}}
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps(content))
    run = Plan.load(path).of_stage("teacher")[0]
    assert run.key.path.parts[:2] == ("teacher", "my_reviews")
    assert run.code_hash == code_hash(stages="teacher", tasks="classification", **architectures.code())
    assert run.specification["task"]["kind"] == "classification"
    assert run.specification["task"]["label"] == "stars"


def test_numbers_and_tags_in_one_csv_file(tmp_path):
    numbers = [{"review": f"film {i}", "score": f"{i / 4:.2f}", "note": ""} for i in range(30)]
    chosen = {"kind": "regression", "source": str(write(tmp_path / "numbers.csv", numbers)), "label": "score"}
    splits = load_task("my_scores", {**chosen, "text": "review"}, "the test").load()
    scores = {row["review"]: float(row["score"]) for row in numbers}
    assert all(scores[row["review"]] == row["score"] for split in splits.values() for row in split)

    tagged = [{"words": f"Ann met Bo {i}", "names": "B-PER O B-PER O"} for i in range(30)]
    chosen = {"kind": "tagging", "source": str(write(tmp_path / "names.csv", tagged)), "text": "words"}
    task = load_task("my_names", {**chosen, "label": "names"}, "the test")
    splits = task.load()
    assert task.classes(splits["train"]) == ("B-PER", "O")
    assert {name: len(split) for name, split in splits.items()} == {"train": 27, "validation": 3}
    assert all(row["words"][:3] == ["Ann", "met", "Bo"] for row in splits["train"])
    assert all(row["names"] == [0, 1, 0, 1] for row in splits["train"])


@pytest.mark.parametrize(("split", "word"), [("train", "train_examples"), ("validation", "eval_examples")])
def test_numbers_that_are_all_the_same_are_refused(tmp_path, split, word):
    for name in ("train", "validation"):
        rows = [{"review": f"{name} {i}", "score": 2 if name == split else i} for i in range(4)]
        write(tmp_path / f"{name}.jsonl", rows)
    task = load_task("r", {"kind": "regression", "source": str(tmp_path), "text": "review", "label": "score"}, "test")
    with pytest.raises(UserError, match=f"score is 2 in all 4 {split} examples.*raise {word}"):
        task.load()
