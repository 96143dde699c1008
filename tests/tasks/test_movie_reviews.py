"""Rated sentences become labels; no sentence is in both splits."""

import json

import pytest

from obert.experiment.recipes import load_task
from obert.foundation.errors import UserError
from obert.tasks.movie_reviews import FILE


def load(tmp_path, lines, **options):
    text = "id\tsentiment\ttext\r\n" + "".join(f"{i}\t{r}\t{t}\r\n" for i, (r, t) in enumerate(lines))
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    splits = load_task("movie_reviews", {"source": str(tmp_path), **options}, "test").load()
    return splits["train"].to_list() + splits["validation"].to_list()


def test_ratings_become_labels_and_neutral_ones_are_left_out(tmp_path):
    lines = [(rating, f"sentence {i} about the {rating}") for i, rating in enumerate([-3.2, -0.4, 0.0, 0.5, 2.0] * 12)]
    rows = load(tmp_path, lines)
    assert len(rows) == 36
    assert {(row["sentence"].split()[-1], row["label"]) for row in rows} == {("-3.2", 0), ("0.5", 1), ("2.0", 1)}
    assert len(load(tmp_path, lines, neutral_band=0)) == 48  # a rating of exactly zero has no label


def test_duplicates_are_dropped_whatever_their_case(tmp_path):
    ratings = [1.5, -1.5] * 20
    lines = [(rating, f"Fine film {i}") for i, rating in enumerate(ratings)]
    rows = load(tmp_path, lines + [(-rating, text.upper().replace(" ", "  ")) for rating, text in lines])
    assert sorted((row["label"], row["sentence"]) for row in rows) == sorted((int(r > 0), text) for r, text in lines)


def test_training_sentences_of_the_validation_split_are_removed(tmp_path):
    rows = {"train": ("seen", "Unseen", "third"), "validation": ("SEEN ", "other")}
    for split, sentences in rows.items():
        lines = [f'{{"sentence": "{s}", "label": {i % 2}, "idx": {i}}}\n' for i, s in enumerate(sentences)]
        (tmp_path / f"{split}.jsonl").write_text("".join(lines))
    splits = load_task("sst2", {"source": str(tmp_path)}, "test").load()
    assert splits["train"]["id"] == ["train-1", "train-2"]
    assert splits["validation"]["id"] == ["validation-0", "validation-1"]


def write_reviews(folder, train, validation):
    for split, rows in (("train", train), ("validation", validation)):
        lines = [json.dumps({"sentence": text, "label": label}) + "\n" for text, label in rows]
        (folder / f"{split}.jsonl").write_text("".join(lines))
    return load_task("sst2", {"source": str(folder)}, "test")


def test_training_data_of_which_duplicates_leave_too_little_is_refused(tmp_path):
    held_out = [("a", 1), ("b", 0)]
    with pytest.raises(UserError, match="nothing is left to train on: all 2 training examples are in the validation"):
        write_reviews(tmp_path, [("A ", 1), ("b", 0)], held_out).load()
    with pytest.raises(UserError, match=r"at least two classes are needed, and the 2 training .* have label negative"):
        write_reviews(tmp_path, [("A ", 1), ("c", 0), ("d", 0)], held_out).load()
    task = write_reviews(tmp_path, [(f"{i} x", i // 5) for i in range(10)], held_out)
    with pytest.raises(UserError, match="Raise train_examples"):
        task.model_copy(update={"train_examples": 1}).load()


def test_a_task_refuses_more_classes_than_it_has(tmp_path):
    with pytest.raises(UserError, match="'2' is no class of the task"):
        write_reviews(tmp_path, [("a", 0), ("b", 1), ("c", 2)], [("d", 0)]).load()
