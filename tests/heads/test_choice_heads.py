"""Heads of multiple choice: one softmax over a question's choices, scored by a new head or a masked language model."""

import math
import random

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertTokenizer

from obert.heads.masked_choice import MaskedChoice
from obert.heads.multiple_choice import MultipleChoice
from obert.models.encoders import prunable_layers
from obert.second_order.gradients import per_example_gradients

WORDS = [f"word{i}" for i in range(40)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MASK = SPECIAL.index("[MASK]")
CHOICES = {"head": 5, "masked_lm": 2}
HEADS = {"head": MultipleChoice(), "masked_lm": MaskedChoice()}


@pytest.fixture(scope="module")
def tokenizer():
    return BertTokenizer(vocab={piece: i for i, piece in enumerate([*SPECIAL, *WORDS])})


@pytest.fixture(params=HEADS)
def scoring(request):
    return request.param


@pytest.fixture
def head(scoring):
    return HEADS[scoring]


@pytest.fixture
def network(scoring):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=45,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=1,
        initializer_range=0.2,  # at BERT's own 0.02 the choices' scores are all the same to five digits
    )
    kind = {"head": BertForSequenceClassification, "masked_lm": BertForMaskedLM}[scoring]
    return kind(config).eval()


def features(scoring, count, seed=0):
    """Questions whose choices have different lengths."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        row = {"input_ids": [], "attention_mask": [], "token_type_ids": [], "positions": [], "targets": []}
        for _ in range(CHOICES[scoring]):
            tokens = [2, *(rng.randrange(5, 45) for _ in range(rng.randrange(3, 9))), 3]
            places = sorted(rng.sample(range(1, len(tokens) - 1), rng.randrange(1, 4)))
            row["targets"].append([tokens[i] for i in places])
            row["positions"].append(places)
            row["input_ids"].append([MASK if i in places else token for i, token in enumerate(tokens)])
            row["attention_mask"].append([1] * len(tokens))
            row["token_type_ids"].append([0] * len(tokens))
        if scoring == "head":
            del row["positions"], row["targets"]
        rows.append({**row, "labels": rng.randrange(CHOICES[scoring])})
    return rows


def batch_of(head, rows, tokenizer):
    return head.collator(tokenizer)(rows)


def scores(network, scoring, row):
    """Scores of one question, sequence by sequence without padding, in float64."""
    found = []
    for choice, tokens in enumerate(row["input_ids"]):
        with torch.no_grad():
            logits = network(torch.tensor([tokens])).logits[0].double()
        if scoring == "head":
            found.append(logits.item())
        else:
            pairs = list(zip(row["positions"][choice], row["targets"][choice], strict=True))
            values = [logits[place] for place, _ in pairs]
            found.append(
                sum(
                    (value[target] - value.exp().sum().log()).item()
                    for value, (_, target) in zip(values, pairs, strict=True)
                )
                / len(pairs)
            )
    return np.array(found)


def softmax(values):
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def expected_loss(scoring, values, label):
    if scoring == "head":
        return -math.log(softmax(values)[label])
    right, wrong = values[label], values[1 - label]
    return -right + 5 * max(0.0, wrong - right + 0.4)


def test_a_batch_is_padded_by_question_choice_and_token(scoring, head, tokenizer):
    rows = features(scoring, 3)
    batch = batch_of(head, rows, tokenizer)
    width = max(len(tokens) for row in rows for tokens in row["input_ids"])
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert batch[name].shape == (3, CHOICES[scoring], width)
    for name, values in head.inputs(batch).items():
        assert values.shape == (3 * CHOICES[scoring], width)
        flat = [tokens for row in rows for tokens in row[name]]
        for found, tokens in zip(values.tolist(), flat, strict=True):
            assert found == tokens + [0] * (width - len(tokens))
    assert batch["labels"].tolist() == [row["labels"] for row in rows]


def test_scores_do_not_depend_on_padding_or_on_other_questions(scoring, head, network, tokenizer):
    rows = features(scoring, 6)
    with torch.no_grad():
        (together,) = head.forward(network, batch_of(head, rows, tokenizer))
    expected = np.stack([scores(network, scoring, row) for row in rows])
    assert together.shape == (6, CHOICES[scoring])
    np.testing.assert_allclose(together.numpy(), expected, atol=2e-6)


def test_permuting_the_choices_permutes_the_scores(scoring, head, network, tokenizer):
    rows = features(scoring, 4)
    order = list(range(CHOICES[scoring]))[::-1]
    turned = [
        {name: [values[i] for i in order] if isinstance(values, list) else values for name, values in row.items()}
        for row in rows
    ]
    with torch.no_grad():
        (straight,), (reversed_,) = (head.forward(network, batch_of(head, x, tokenizer)) for x in (rows, turned))
    torch.testing.assert_close(reversed_, straight[:, order])


def test_an_engines_outputs_are_arranged_to_the_same_scores(scoring, head, network, tokenizer):
    """An exported graph has the library's outputs, scores of all tokens where the model is a masked language model."""
    batch = batch_of(head, features(scoring, 4), tokenizer)
    with torch.no_grad():
        (expected,) = head.forward(network, batch)
        outputs = (network(**head.inputs(batch)).logits,)
    torch.testing.assert_close(head.arranged(outputs, batch)[0], expected)


def test_losses_against_float64(scoring, head, network, tokenizer):
    rows = features(scoring, 16)
    batch = batch_of(head, rows, tokenizer)
    with torch.no_grad():
        losses = head.losses(head.forward(network, batch), batch)
    expected = [expected_loss(scoring, scores(network, scoring, row), row["labels"]) for row in rows]
    assert losses.shape == (16,)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_beyond_the_margin_only_the_right_option_counts():
    batch = {"labels": torch.tensor([0, 1, 1])}
    logits = (torch.tensor([[-1.0, -2.0], [-1.0, -1.0], [-1.0, -4.0]]),)
    expected = [1.0, 1.0 + 5 * 0.4, 4.0 + 5 * 3.4]
    torch.testing.assert_close(MaskedChoice().losses(logits, batch), torch.tensor(expected))


@pytest.mark.parametrize("temperature", [1.0, 5.5])
def test_distillation_is_one_kl_a_question(scoring, head, network, tokenizer, temperature):
    rows = features(scoring, 8)
    batch = batch_of(head, rows, tokenizer)
    with torch.no_grad():
        (own,) = head.forward(network, batch)
    taught = own.flip(1) * 3 + 0.5
    found = head.distillation_losses((own,), (taught,), temperature, batch)
    expected = []
    for row, teacher in zip(rows, taught.double().numpy(), strict=True):
        p = softmax(teacher / temperature)
        q = softmax(scores(network, scoring, row) / temperature)
        expected.append(temperature**2 * float((p * np.log(p / q)).sum()))
    assert found.shape == (8,)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert head.distillation_losses((own,), (own + 7,), temperature, batch).abs().max() < 1e-4


def test_distillation_does_not_depend_on_padding_or_on_other_questions(scoring, head, network, tokenizer):
    """Nor, where a masked language model scores, on the places that an option does not need."""
    rows = features(scoring, 6)

    def losses(chosen):
        batch = batch_of(head, chosen, tokenizer)
        with torch.no_grad():
            (own,) = head.forward(network, batch)
        return head.distillation_losses((own,), (20 * own,), 2.0, batch)

    together = losses(rows)
    assert (together > 1e-4).all()
    torch.testing.assert_close(together, torch.cat([losses([row]) for row in rows]), rtol=1e-3, atol=1e-5)


def test_a_question_is_one_example_of_per_example_gradients(scoring, head, network, tokenizer):
    rows = features(scoring, 4)
    layers = prunable_layers(network)

    def losses(chosen):
        batch = batch_of(head, chosen, tokenizer)
        return head.losses(head.forward(network, batch), batch)

    found = dict(per_example_gradients(layers, lambda: losses(rows)))
    for index, row in enumerate(rows):
        expected = torch.autograd.grad(losses([row]).sum(), [layer.weight for layer in layers.values()])
        for (name, layer), gradient in zip(layers.items(), expected, strict=True):
            own = found[name].rows(0, layer.out_features)[index].reshape(gradient.shape)
            torch.testing.assert_close(own, gradient, rtol=1e-3, atol=1e-5)


def test_a_network_learns_to_choose(scoring, head, network, tokenizer):
    batch = batch_of(head, features(scoring, 6), tokenizer)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(100):
        optimizer.zero_grad()
        head.losses(head.forward(network, batch), batch).mean().backward()
        optimizer.step()
    with torch.no_grad():
        (chosen,) = head.forward(network, batch)
    assert chosen.argmax(-1).equal(batch["labels"])
