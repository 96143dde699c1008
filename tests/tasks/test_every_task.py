"""What holds for every task. A new task is found by its file name and runs on the small data of its kind."""

import importlib
import json
import pkgutil
from pathlib import Path

import numpy as np
import pytest
import questions_with_choices
import torch
from samples import write_tagged
from torch.nn.functional import one_hot
from transformers import AutoTokenizer

from obert import heads
from obert.experiment.recipes import load_task
from obert.foundation import registry
from obert.foundation.errors import UserError
from obert.heads.masked_choice import MARGIN, WEIGHT, MaskedChoice
from obert.tasks._multiple_choice import MultipleChoice
from obert.tasks._own_columns import OwnColumns
from obert.tasks._question_answering import QuestionAnswering
from obert.tasks._regression import Regression
from obert.tasks._sentences import Sentences
from obert.tasks._unanswerable import Unanswerable
from obert.tasks.mlm import MaskedLanguageModelling
from obert.tasks.tagging import Tagging

DATA = Path(__file__).parent.parent / "data"
SOURCES = {
    "AutoModelForQuestionAnswering": "city_qa",
    "AutoModelForMaskedLM": "mlm",
}
MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(DATA / "tiny_bert")


def write_sentences(schema, folder):
    """Reviews under the column names of a task on sentences or pairs, its splits named as it names them."""
    sentences = ("sentence",) if issubclass(schema, OwnColumns) else schema.sentences
    for split, name in (("train", "train"), ("validation", schema.validation_split)):
        rows = [json.loads(line) for line in (DATA / "movie_reviews" / f"{split}.jsonl").read_text().splitlines()]
        texts = [row["sentence"] for row in rows]
        pairs = [dict(zip(sentences, pair, strict=False)) for pair in zip(texts, [*texts[1:], "."], strict=True)]
        labels = [i % 11 / 2 if issubclass(schema, Regression) else row["label"] for i, row in enumerate(rows)]
        labelled = [
            {**pair, "label": label, "idx": row["id"]} for pair, label, row in zip(pairs, labels, rows, strict=True)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, labelled)))
    return folder


# A task with a choice of heads is tested with each: what its options are beside those of the task as it is.
CASES = {name: (name, {}) for name in registry.names("tasks")}
CASES |= {"winogrande, a new head": ("winogrande", {"scoring": "head", "format": "hf"})}


@pytest.fixture(scope="module", params=CASES)
def task(request, tmp_path_factory):
    name, chosen = CASES[request.param]
    schema = registry.load("tasks", name)
    options = {"doc_stride": 16} if issubclass(schema, QuestionAnswering) else {}
    if issubclass(schema, Unanswerable):
        options["threshold_examples"] = 0.2
    if issubclass(schema, MultipleChoice):
        source = questions_with_choices.write(name, tmp_path_factory.mktemp("choices"))
    elif issubclass(schema, Sentences):
        source = write_sentences(schema, tmp_path_factory.mktemp("sentences"))
    elif issubclass(schema, Tagging):
        source = write_tagged(tmp_path_factory.mktemp("tagged"))
    else:
        source = DATA / SOURCES[schema.head.auto_model]
    options |= {"source": str(source), "max_length": 96, "train_examples": None, **chosen}
    return load_task(name, options, "the test")


def test_every_head_is_that_of_a_task_that_is_tested():
    modules = [importlib.import_module(f"obert.heads.{file.name}") for file in pkgutil.iter_modules(heads.__path__)]
    defined = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, heads.Head) and value.__module__ == module.__name__
    }
    schemas = [(registry.load("tasks", name), chosen) for name, chosen in CASES.values()]
    found = {
        type(schema.head if isinstance(schema.head, heads.Head) else schema(**chosen).head)
        for schema, chosen in schemas
    }
    assert found == defined


@pytest.fixture(scope="module")
def splits(task):
    return task.load()


def content(example):
    values = [example[name] for name in sorted(example) if name not in ("id", "answers")]
    text = " ".join(str(value) for value in values if isinstance(value, str | list))
    return " ".join(text.lower().split())


def prepared(task, features, tokenizer):
    """All features in one batch, as a model is to see them."""
    columns = [c for c in features.column_names if c in (*MODEL_INPUTS, *task.head.labels)]
    batch = task.head.collator(tokenizer)(features.select_columns(columns).to_list())
    return task.prepare_batch(batch, tokenizer, torch.Generator().manual_seed(0))


def gold_logits(task, batch, tokenizer, examples):
    """Logits that put all weight on the labels."""
    if isinstance(task, QuestionAnswering):
        width = batch["input_ids"].shape[1]
        return tuple(20 * one_hot(batch[f"{end}_positions"], width).float() for end in ("start", "end"))
    if isinstance(task, Regression):
        return (batch["labels"].unsqueeze(-1),)
    if isinstance(task, MultipleChoice):
        return (20 * one_hot(batch["labels"], batch["input_ids"].shape[1]).float(),)
    classes = len(tokenizer) if isinstance(task, MaskedLanguageModelling) else len(task.classes(examples))
    return (20 * one_hot(batch["labels"].clamp(min=0), classes).float(),)


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


def longest(tokens):
    """Tokens of a feature, or of the longest of its sequences."""
    return max(map(longest, tokens)) if isinstance(tokens[0], list) else len(tokens)


def test_features_are_complete_and_deterministic(task, splits, tokenizer):
    features = task.encode(splits["train"], tokenizer)
    assert task.encode(splits["train"], tokenizer).to_list() == features.to_list()
    assert features["length"] == [longest(row) for row in features["input_ids"]]
    assert max(features["length"]) <= task.max_length
    assert set(MODEL_INPUTS) <= set(features.column_names)
    assert "length" in features.column_names


def test_a_length_beyond_the_models_positions_is_refused(task, splits, tokenizer):
    with pytest.raises(UserError, match="max_length 129"):
        task.model_copy(update={"max_length": 129}).encode(splits["train"], tokenizer)


def test_losses_are_per_feature(task, splits, tokenizer):
    features = task.encode(splits["validation"], tokenizer)
    batch = prepared(task, features.select(range(4)), tokenizer)
    generator = torch.Generator().manual_seed(0)
    gold = gold_logits(task, batch, tokenizer, splits["validation"])
    logits = tuple(torch.randn(x.shape, generator=generator) for x in gold)
    losses = task.head.losses(logits, batch)
    assert losses.shape == (4,)
    torch.testing.assert_close(losses, losses_by_the_book(task, logits, batch))


def losses_by_the_book(task, logits, batch):
    if isinstance(task.head, MaskedChoice):
        right, wrong = (logits[0][range(4), batch["labels"] ^ other] for other in (0, 1))
        return -right + WEIGHT * (wrong - right + MARGIN).relu()
    if isinstance(task, Regression):
        return torch.tensor(
            [(x - y) ** 2 for x, y in zip(logits[0][:, 0].tolist(), batch["labels"].tolist(), strict=True)]
        )
    of_features = []
    for i in range(4):
        of_tokens = []
        for scores, name in zip(logits, task.head.labels, strict=True):
            rows, labels = scores[i].reshape(-1, scores.shape[-1]), batch[name][i].reshape(-1)
            of_tokens += [-row.log_softmax(-1)[y] for row, y in zip(rows, labels, strict=True) if y != -100]
        of_features.append(sum(of_tokens) / len(of_tokens))
    return torch.stack(of_features)


def predictions_of(task, splits, tokenizer, change=lambda logits: logits):
    examples = splits["validation"]
    features = task.encode(examples, tokenizer)
    batch = prepared(task, features, tokenizer)
    logits = change(gold_logits(task, batch, tokenizer, examples))
    predictions = task.predict(task.head.evidence(logits, batch), features, examples)
    return predictions, task.score(predictions, examples), (features if "text" in examples.column_names else examples)


def test_gold_logits_give_a_full_score(task, splits, tokenizer):
    predictions, scores, counted = predictions_of(task, splits, tokenizer)
    assert [p["id"] for p in predictions] == list(counted["id"])
    assert task.primary_metric in scores
    best = {"perplexity": pytest.approx(1, abs=1e-4)}
    assert all(score.value == best.get(name, pytest.approx(100)) for name, score in scores.items())
    json.dumps(predictions)


def test_the_score_is_made_of_its_stored_examples(task, splits, tokenizer):
    """What a paired comparison resamples: the mean of the scores, or what the task makes of the means of its terms."""
    generator = torch.Generator().manual_seed(0)
    predictions, scores, _ = predictions_of(
        task, splits, tokenizer, lambda gold: tuple(x + 15 * torch.randn(x.shape, generator=generator) for x in gold)
    )
    stored = json.loads(json.dumps(predictions))
    value = scores[task.primary_metric].value
    assert 0 < value < 100
    terms = np.array([p["terms"] if "terms" in p else [p["score"]] for p in stored])
    assert value == pytest.approx(float(task.from_terms(terms.mean(axis=0))))
    assert ("score" in stored[0]) == (terms.shape[1] == 1)
    assert all(score.count == sum(p.get("tokens", 1) for p in predictions) for score in scores.values())


def test_held_out_examples_are_of_training_and_share_nothing_with_the_rest(task, splits):
    """What sweeps judge by: a part of the training examples, never a validation example, the same every time."""
    held = task.model_copy(update={"held_out": 0.25})
    found, again = held.load(), held.load()
    parts = {name: set(found[name]["id"]) for name in ("train", "validation")}
    assert not parts["train"] & parts["validation"]
    assert parts["train"] | parts["validation"] == set(splits["train"]["id"])
    assert not (parts["train"] | parts["validation"]) & set(splits["validation"]["id"])
    units = {name: set(task.units(found[name])) for name in parts}
    assert not units["train"] & units["validation"]
    assert 0.05 < len(units["validation"]) / len(units["train"] | units["validation"]) < 0.4
    assert again["validation"]["id"] == found["validation"]["id"]
    small = held.model_copy(update={"eval_examples": 3}).load()
    assert set(small["validation"]["id"]) < parts["validation"] and len(small["validation"]) == 3
    with pytest.raises(UserError, match="leaves one part empty"):
        held.model_copy(update={"train_examples": 1}).load()


def test_a_task_that_holds_nothing_out_keeps_its_specification(task):
    assert "held_out" not in task.model_dump(mode="json")
    assert task.model_copy(update={"held_out": 0.25}).model_dump(mode="json")["held_out"] == 0.25
