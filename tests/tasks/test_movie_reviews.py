"""Rated sentences become labels; no sentence is in both splits."""

from obert.experiment.recipes import load_task
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
    lines = [(1.5, f"Fine film {i}") for i in range(40)] + [(-1.5, f"fine  FILM {i}") for i in range(40)]
    rows = load(tmp_path, lines)
    assert sorted(row["sentence"] for row in rows) == sorted(f"Fine film {i}" for i in range(40))


def test_training_sentences_of_the_validation_split_are_removed(tmp_path):
    rows = {"train": ("seen", "Unseen"), "validation": ("SEEN ", "other")}
    for split, sentences in rows.items():
        lines = [f'{{"sentence": "{s}", "label": {i}, "idx": {i}}}\n' for i, s in enumerate(sentences)]
        (tmp_path / f"{split}.jsonl").write_text("".join(lines))
    splits = load_task("sst2", {"source": str(tmp_path)}, "test").load()
    assert splits["train"]["id"] == ["train-1"]
    assert splits["validation"]["id"] == ["validation-0", "validation-1"]
