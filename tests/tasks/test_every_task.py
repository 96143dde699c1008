"""What holds for every task. A new task is found by its file name and runs on the small data of its kind."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, DataCollatorWithPadding

from obert import registry
from obert.config import load_task
from obert.errors import UserError

DATA = Path(__file__).parent.parent / "data"
SOURCES = {"sequence_classification": "movie_reviews", "question_answering": "city_qa"}
MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(DATA / "tiny_bert")


def make(name, **options):
    source = DATA / SOURCES[registry.load("tasks", name).head]
    return load_task(name, {"source": str(source), "max_length": 96, "train_examples": None, **options}, "the test")


@pytest.fixture(scope="module", params=registry.names("tasks"))
def task(request):
    options = {"doc_stride": 16} if registry.load("tasks", request.param).head == "question_answering" else {}
    return make(request.param, **options)


@pytest.fixture(scope="module")
def splits(task):
    return task.load()


def content(example):
    return " ".join((example.get("sentence") or example["context"] + example["question"]).lower().split())


def gold_logits(task, features):
    """Logits that put all weight on the labels, as tensors padded to one length."""
    if task.head == "sequence_classification":
        return (torch.nn.functional.one_hot(torch.tensor(features["labels"]), task.num_labels).float(),)
    rows, width = torch.arange(len(features)), max(features["length"])
    logits = torch.zeros(2, len(features), width)
    logits[0, rows, torch.tensor(features["start_positions"])] = 1
    logits[1, rows, torch.tensor(features["end_positions"])] = 1
    return tuple(logits)


def test_splits_are_disjoint_and_ids_unique(splits):
    assert set(splits) == {"train", "validation"}
    train, validation = ({content(e) for e in splits[name]} for name in ("train", "validation"))
    assert not train & validation
    for split in splits.values():
        assert len(split) > 0
        assert all(isinstance(i, str) for i in split["id"])
        assert len(set(split["id"])) == len(split)
    assert not set(splits["train"]["id"]) & set(splits["validation"]["id"])


def test_subsets_are_fixed_and_in_order(task, splits):
    small = task.model_copy(update={"train_examples": 10, "eval_examples": 5})
    first, second = small.load(), small.load()
    assert (len(first["train"]), len(first["validation"])) == (10, 5)
    assert first["train"]["id"] == second["train"]["id"]
    everything = list(splits["train"]["id"])
    assert list(first["train"]["id"]) == sorted(first["train"]["id"], key=everything.index)
    assert len(task.model_copy(update={"train_examples": 10**6}).load()["train"]) == len(everything)


def test_features_are_complete_and_deterministic(task, splits, tokenizer):
    features = task.encode(splits["train"], tokenizer)
    assert task.encode(splits["train"], tokenizer).to_list() == features.to_list()
    assert features["length"] == [len(row) for row in features["input_ids"]]
    assert max(features["length"]) <= task.max_length
    assert set(MODEL_INPUTS) <= set(features.column_names)
    assert "length" in features.column_names


def test_length_beyond_the_model(task, splits, tokenizer):
    with pytest.raises(UserError, match="max_length 129"):
        task.model_copy(update={"max_length": 129}).encode(splits["train"], tokenizer)


def test_losses_are_per_feature(task, splits, tokenizer):
    features = task.encode(splits["validation"].select(range(4)), tokenizer)
    labels = [c for c in features.column_names if c in ("labels", "start_positions", "end_positions")]
    batch = DataCollatorWithPadding(tokenizer)(features.select_columns([*MODEL_INPUTS, *labels]).to_list())
    generator = torch.Generator().manual_seed(0)
    if task.head == "sequence_classification":
        logits = (torch.randn(len(features), task.num_labels, generator=generator),)
        expected = -logits[0].log_softmax(-1)[range(len(features)), batch["labels"]]
    else:
        logits = tuple(torch.randn(*batch["input_ids"].shape, generator=generator) for _ in range(2))
        rows = range(len(features))
        expected = -logits[0].log_softmax(-1)[rows, batch["start_positions"]]
        expected = (expected - logits[1].log_softmax(-1)[rows, batch["end_positions"]]) / 2
    losses = task.losses(logits, batch)
    assert losses.shape == (len(features),)
    torch.testing.assert_close(losses, expected)


def test_gold_logits_give_a_full_score(task, splits, tokenizer):
    examples = splits["validation"]
    features = task.encode(examples, tokenizer)
    predictions = task.predict(gold_logits(task, features), features, examples)
    scores = task.score(predictions, examples)
    assert [p["id"] for p in predictions] == list(examples["id"])
    assert task.primary_metric in scores
    assert {score.value for score in scores.values()} == {100.0}
    assert {score.count for score in scores.values()} == {len(examples)}
    json.dumps(predictions)


def test_the_score_is_the_mean_of_its_examples(task, splits, tokenizer):
    examples = splits["validation"]
    features = task.encode(examples, tokenizer)
    generator = torch.Generator().manual_seed(0)
    logits = tuple(torch.randn(x.shape, generator=generator) for x in gold_logits(task, features))
    predictions = task.predict(logits, features, examples)
    value = task.score(predictions, examples)[task.primary_metric].value
    assert value < 100
    assert value == pytest.approx(sum(p["score"] for p in predictions) / len(predictions))
