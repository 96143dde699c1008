"""The losses of each head against their definitions, one example and one token at a time."""

import math

import pytest
import torch
from samples import EXPORTED, HEADS
from transformers import AutoConfig, AutoTokenizer

from obert.experiment.schema import Model
from obert.heads.regression import Regression
from obert.heads.token_classification import TokenClassification
from obert.models.encoders import load_pretrained, load_trained, save

TINY = "tests/data/tiny_bert"
TAGS = ("B-LOC", "B-PER", "O")


def divergence(own, taught, temperature):
    p = [math.exp(x / temperature) for x in taught]
    q = [math.exp(x / temperature) for x in own]
    pairs = zip(p, q, strict=True)
    return temperature**2 * sum(a / sum(p) * (math.log(a / sum(p)) - math.log(b / sum(q))) for a, b in pairs)


def test_regression_learns_and_distils_by_squared_errors():
    head, own, taught = Regression(), torch.tensor([[1.0], [4.0]]), torch.tensor([[3.0], [4.5]])
    batch = {"labels": torch.tensor([0.5, 2.0])}
    assert head.losses((own,), batch).tolist() == [0.25, 4.0]
    for temperature in (1.0, 5.5):
        assert head.distillation_losses((own,), (taught,), temperature, batch).tolist() == [4.0, 0.25]


def test_distilling_a_number_moves_the_student():
    """A divergence of distributions over one class is 0, and so is its gradient."""
    own = torch.tensor([[1.0]], requires_grad=True)
    Regression().distillation_losses((own,), (torch.tensor([[3.0]]),), 2.0, {}).sum().backward()
    assert own.grad.item() == -4


def test_tags_are_learned_and_distilled_at_labelled_tokens_alone():
    generator = torch.Generator().manual_seed(0)
    own, taught = torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([[-100, 2, -100, 0, -100], [1, -100, -100, -100, -100], [-100] * 5])
    head, batch = TokenClassification(), {"labels": labels}
    hard, soft = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    for i, places in enumerate(([1, 3], [0], [])):
        for place in places:
            row = own[i, place].tolist()
            of_classes = [math.exp(x) for x in row]
            hard[i] -= math.log(of_classes[labels[i, place]] / sum(of_classes)) / len(places)
            soft[i] += divergence(row, taught[i, place].tolist(), 2.0) / len(places)
    assert head.losses((own,), batch).tolist() == pytest.approx(hard)
    assert head.distillation_losses((own,), (taught,), 2.0, batch).tolist() == pytest.approx(soft)
    elsewhere = torch.where((labels == -100).unsqueeze(-1), torch.full_like(own, 1e4), own)
    assert head.losses((elsewhere,), batch).tolist() == pytest.approx(hard)
    assert head.distillation_losses((elsewhere,), (taught,), 2.0, batch).tolist() == pytest.approx(soft)


def test_batches_of_tags_are_padded_beside_their_tokens():
    collator = TokenClassification().collator(AutoTokenizer.from_pretrained(TINY))
    rows = [{"input_ids": [2, 5, 3], "labels": [-100, 1, -100]}, {"input_ids": [2, 3], "labels": [-100, -100]}]
    batch = collator([{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows])
    assert batch["labels"].tolist() == [[-100, 1, -100], [-100, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


@pytest.mark.parametrize("name", EXPORTED)
def test_classes_are_in_the_configuration_of_a_saved_model(name, tmp_path):
    head = EXPORTED[name]
    network, tokenizer = load_pretrained(Model(source=TINY), head, TAGS)
    save(network, tokenizer, tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    if name in ("sequence_classification", "token_classification"):
        assert config.id2label == dict(enumerate(TAGS))
        assert config.label2id == {tag: number for number, tag in enumerate(TAGS)}
    if name == "regression":
        assert (config.num_labels, config.problem_type) == (1, "regression")
    batch = {"input_ids": torch.tensor([[2, 5, 6, 3]]), "attention_mask": torch.ones(1, 4, dtype=torch.int64)}
    shape = {"sequence_classification": (1, 3), "regression": (1, 1), "token_classification": (1, 4, 3)}
    for output in head.forward(load_trained(tmp_path, head), batch):
        assert output.shape == shape.get(name, (1, 4))


def test_distributions_of_a_feature_are_those_that_are_distilled():
    """Without padding, where outputs are of tokens, and of tags at labelled tokens alone."""
    row, tokens = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.0, torch.finfo(torch.float32).min])
    feature = {"length": 3}
    assert EXPORTED["sequence_classification"].distributions((row,), feature) == {"logits": [[1.0, 2.0, 3.0]]}
    found = EXPORTED["question_answering"].distributions((tokens, tokens * 2), feature)
    assert found == {"start_logits": [[1.0, 2.0, 3.0]], "end_logits": [[2.0, 4.0, 6.0]]}
    tags = torch.arange(8.0).reshape(4, 2)
    found = TokenClassification().distributions((tags,), {"length": 4, "labels": [-100, 1, -100, 0]})
    assert found == {"logits": [[2.0, 3.0], [6.0, 7.0]]}
    assert Regression().distributions((torch.tensor([1.0]),), feature) == {}
    assert HEADS["masked_language_model"].distributions((torch.tensor(3),), feature) == {}
