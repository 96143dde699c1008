"""SQuAD v2.0: questions without an answer, the threshold of none, and the official script's scores."""

import collections
import json
import math
import random
import re
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from obert.experiment.recipes import load_task
from obert.foundation.errors import UserError
from obert.tasks._unanswerable import best_threshold

DATA = Path(__file__).parent.parent / "data"
EMPTY = {"text": [], "answer_start": []}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(DATA / "tiny_bert")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The small questions, every third of them on the paragraph of another place."""
    folder = tmp_path_factory.mktemp("squad_v2")
    for split in ("train", "validation"):
        rows = [json.loads(line) for line in (DATA / "city_qa" / f"{split}.jsonl").read_text().splitlines()]
        moved = [
            {**row, "context": rows[i - 10]["context"], "answers": EMPTY} if i % 3 == 0 else row
            for i, row in enumerate(rows)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in moved))
    return folder


def make(source, **options):
    chosen = {"source": str(source), "max_length": 96, "doc_stride": 16, "threshold_examples": 0.3, **options}
    return load_task("squad_v2", chosen, "the test")


def logits_of(features, spans, none):
    """Scores of first and last tokens by feature: `spans` gives value, start and end, `none` that of the first token.

    Each is half of the sum that the task forms.
    """
    width = max(features["length"])
    logits = torch.full((2, len(features), width), -100.0)
    for row, ((value, start, end), first) in enumerate(zip(spans, none, strict=True)):
        logits[:, row, 0] = first / 2
        logits[0, row, start] = logits[1, row, end] = value / 2
    return tuple(logits)


def test_questions_without_an_answer_are_labelled_with_the_first_token(source, tokenizer):
    task = make(source)
    examples = task.load()["validation"]
    features = task.encode(examples, tokenizer)
    empty = {row["id"] for row in examples if not row["answers"]["text"]}
    assert 5 < len(empty) < len(examples)
    for row in features:
        unanswered = (row["start_positions"], row["end_positions"]) == (0, 0)
        assert unanswered == (row["example_id"] in empty)


def test_the_score_of_none_is_the_lowest_of_a_questions_features(tokenizer, tmp_path):
    context = " ".join(f"kelford has {number} inhabitants." for number in range(100, 140))
    answers = {"text": ["120"], "answer_start": [context.index("120")]}
    rows = [{"id": str(i), "context": context + f" {i}", "question": "how many?", "answers": answers} for i in range(9)]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = make(tmp_path, max_length=40, doc_stride=8, null_threshold=0.0)
    examples = task.load()["validation"].select([0])
    features = task.encode(examples, tokenizer)
    count, first = len(features), features["context_start"][0]
    spans = [(float(i), first, first) for i in range(count)]
    none = [10.0 + abs(i - 2) for i in range(count)]
    (found,) = task.predict(logits_of(features, spans, none), features, examples)
    assert count > 5
    assert found["null_difference"] == pytest.approx(10.0 - (count - 1), abs=1e-5)
    assert found["prediction"] == ("" if count < 11 else found["answer"])


@pytest.mark.parametrize(("threshold", "expected"), [(0.9, ""), (1.0, "kept"), (1.1, "kept")])
def test_an_answer_is_given_up_to_the_threshold(source, tokenizer, threshold, expected):
    task = make(source, null_threshold=threshold)
    examples = task.load()["validation"].select([1])
    features = task.encode(examples, tokenizer)
    start, end = features["start_positions"][0], features["end_positions"][0]
    (found,) = task.predict(logits_of(features, [(4.0, start, end)], [5.0]), features, examples)
    assert found["answer"] == examples["answers"][0]["text"][0]
    assert found["null_difference"] == 1.0
    assert found["prediction"] == (found["answer"] if expected else "")


def best_by_trying(differences, gains):
    """The highest total over all thresholds."""
    return max(sum(g for d, g in zip(differences, gains, strict=True) if d <= t) for t in [-math.inf, *differences])


@pytest.mark.parametrize("seed", range(30))
def test_the_threshold_is_the_best_of_all(seed):
    rng = random.Random(seed)
    differences = [float(rng.randrange(-5, 6)) if seed % 2 else rng.gauss(0, 3) for _ in range(rng.randrange(1, 40))]
    gains = [rng.choice((-100.0, 0.0, 100 * rng.random())) for _ in differences]
    threshold = best_threshold(differences, gains)
    reached = sum(gain for difference, gain in zip(differences, gains, strict=True) if difference <= threshold)
    assert reached == pytest.approx(best_by_trying(differences, gains))


def test_nothing_is_answered_where_every_answer_is_wrong():
    threshold = best_threshold([3.0, -7.0, 1.0], [-100.0, 0.0, -100.0])
    assert threshold < -7.0 and math.isfinite(threshold)


def test_the_threshold_is_found_on_training_questions_that_are_not_trained_on(source, tokenizer):
    task = make(source)
    splits, held = task.load(), task.calibration()
    everything = make(source, null_threshold=0.0)
    assert everything.calibration() is None
    ids = {name: set(split["id"]) for name, split in {**splits, "held": held}.items()}
    assert ids["train"] | ids["held"] == set(everything.load()["train"]["id"])
    assert not ids["train"] & ids["held"] and not ids["validation"] & ids["held"]
    assert not set(splits["train"]["context"]) & set(held["context"])
    assert 0.1 < len(held) / (len(held) + len(splits["train"])) < 0.5
    assert held.to_list() == task.calibration().to_list()
    features = task.encode(held, tokenizer)
    gold = zip(features["start_positions"], features["end_positions"], strict=True)
    spans = [(4.0, start, end) if start else (4.0, 20, 20) for start, end in gold]
    none = [5.0 if start else 8.0 for start in features["start_positions"]]
    decided = task.decide(logits_of(features, spans, none), features, held)
    assert decided == {"null_threshold": 1.0}
    sure = task.model_copy(update=decided)
    predictions = sure.predict(logits_of(features, spans, none), features, held)
    assert sure.score(predictions, held)["exact_match"].value == 100.0
    unsure = task.score(task.predict(logits_of(features, spans, none), features, held), held)
    assert unsure["has_answer_f1"].value == 0.0 and unsure["no_answer_f1"].value == 100.0


def test_too_few_questions_to_find_a_threshold_on_are_refused(source):
    with pytest.raises(UserError, match="threshold_examples 1e-09 of 64 training questions leaves one part empty"):
        make(source, threshold_examples=1e-9).load()


# What follows is written after the definitions of the official script, evaluate-v2.0.py, and uses nothing of obert.


def official_tokens(text):
    text = "".join(" " if c in string.whitespace else c for c in text.lower())
    text = "".join(c for c in text if c not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def official_f1(gold, given):
    gold, given = official_tokens(gold), official_tokens(given)
    if not gold or not given:
        return float(gold == given)
    same = sum((collections.Counter(gold) & collections.Counter(given)).values())
    if not same:
        return 0.0
    precision, recall = same / len(given), same / len(gold)
    return 2 * precision * recall / (precision + recall)


def official(rows):
    """Scores of (prediction, answers), as `make_eval_dict` names them."""
    exact, f1 = [], []
    for given, answers in rows:
        gold = [answer for answer in answers if official_tokens(answer)] or [""]
        exact.append(100 * max(float(official_tokens(answer) == official_tokens(given)) for answer in gold))
        f1.append(100 * max(official_f1(answer, given) for answer in gold))
    has = np.array([bool(answers) for _, answers in rows])
    names = {"": np.ones_like(has), "has_answer_": has, "no_answer_": ~has}
    return {
        f"{name}{kind}": (np.mean(np.array(values)[which]), which.sum())
        for name, which in names.items()
        for kind, values in (("exact_match", exact), ("f1", f1))
        if which.any()
    }


PIECES = ("The", "a", "an", "river", "Rhine", "rhine,", "in", "1990", "--", "!")


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("part", ["both", "answered", "unanswered"])
def test_scores_against_the_official_definitions(seed, part, source):
    rng = random.Random(seed)

    def text():
        return " ".join(rng.choice(PIECES) for _ in range(rng.randrange(1, 4)))

    rows = []
    for _ in range(50):
        answers = [text() for _ in range(rng.randrange(1, 4))]
        if part == "unanswered" or (part == "both" and rng.random() < 0.4):
            answers = []
        rows.append((rng.choice(["", text(), *answers]), answers))
    predictions = [{"id": str(i), "prediction": given} for i, (given, _) in enumerate(rows)]
    scores = make(source).score(predictions, {"answers": [{"text": answers} for _, answers in rows]})
    expected = official(rows)
    assert set(scores) == set(expected)
    for name, (value, count) in expected.items():
        assert (scores[name].value, scores[name].count) == (pytest.approx(value), count)
    assert sum(row["score"] for row in predictions) / 50 == pytest.approx(scores["f1"].value)
