"""What methods see of the layers' inputs: tokens, whatever a batch looks like, and as many as they ask for."""

from pathlib import Path

import pytest
import torch
from samples import with_new_head
from torch import nn

from obert import prune
from obert.foundation import registry
from obert.foundation.errors import UserError
from obert.heads.sequence_classification import SequenceClassification
from obert.masks.selection import dense_masks
from obert.models.encoders import prunable_layers, prunable_weights
from obert.pruning import Context, TrainingHook
from obert.pruning.shared.input_based import InputBased, parts_in_order
from obert.pruning.wanda import Wanda

TINY = Path(__file__).parents[1] / "data" / "tiny_bert"
METHODS = ("optimal_brain_compression", "sparsegpt", "wanda")


def batches(padding):
    """Two batches of sentences of up to nine tokens, with more padding behind them."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        lengths = torch.randint(4, 10, (8, 1), generator=generator)
        ids = torch.randint(5, 280, (8, 9), generator=generator)
        mask = (torch.arange(9) < lengths).long()
        pad = (0, padding)
        yield nn.functional.pad(ids * mask, pad), nn.functional.pad(mask, pad)


def loss(model, batch):
    ids, mask = batch
    return model(ids, mask).logits.sum(dim=1)  # the mask by its place, in a batch that does not name it


@pytest.mark.parametrize("name", METHODS)
def test_padding_makes_no_difference(name):
    method, found = registry.load("pruning", name)(examples=16, **({"dampening": 0.1} if name != "wanda" else {})), []
    for padding in (0, 13):
        model = with_new_head(TINY, SequenceClassification()).eval()
        layers = prunable_layers(model)

        class Data:
            def examples(self, count, batch_size, draw, padding=padding):
                return batches(padding)

        context = Context(
            TrainingHook(layers), dense_masks(prunable_weights(model)), Data(), lambda b, m=model: loss(m, b),
            torch.Generator(), targets=dict.fromkeys(layers, 0.5), model=model,
        )  # fmt: skip
        with torch.no_grad():
            found.append(method.propose(context).scores)
    for weight, scores in found[0].items():
        if name == "sparsegpt":  # it tells masks
            assert (scores != found[1][weight]).float().mean() < 0.005
        else:
            torch.testing.assert_close(scores, found[1][weight], rtol=1e-3, atol=1e-6)


def test_every_token_of_each_layer_is_seen_once(layer_on):
    """Also those of questions with choices, whose mask has a dimension more than the layer's inputs."""
    inputs = torch.arange(24.0).view(4, 3, 2)
    mask = torch.tensor([[[1, 1, 0], [1, 0, 0]], [[1, 1, 1], [0, 1, 0]]])
    context = layer_on(torch.ones(1, 2), inputs)
    model, seen = context.model, []
    choices = Context(
        context.hook, context.masks, context.data, lambda i: model(inputs, attention_mask=mask).sum((1, 2))[i],
        context.generator, model=model,
    )  # fmt: skip
    Wanda(examples=2).see_inputs(choices, ["w"], lambda _, rows: seen.append(rows))
    assert [rows.tolist() for rows in seen] == [inputs[mask.view(4, 3) == 1].tolist()]


def test_inputs_that_are_not_of_tokens_all_count(layer_on):
    """Such as a pooler's, one for each example."""
    seen = []
    context = layer_on(torch.ones(1, 2), torch.ones(4, 2, 2))
    model = context.model
    pooled = Context(
        context.hook, context.masks, context.data,
        lambda i: model(torch.ones(len(i), 2), attention_mask=torch.tensor([[1, 0]] * len(i))).sum(1),
        context.generator, model=model,
    )  # fmt: skip
    Wanda(examples=4).see_inputs(pooled, ["w"], lambda _, rows: seen.append(rows))
    assert [len(rows) for rows in seen] == [4]


def test_products_are_means_over_tokens(layer_on):
    inputs = torch.randn(40, 3, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(40, 3, generator=torch.Generator().manual_seed(1)) < 0.6
    (found,) = Wanda(examples=40).products(layer_on(torch.ones(2, 5), inputs, mask), ["w"]).values()
    tokens = inputs[mask].double()
    torch.testing.assert_close(found, tokens.T @ tokens / len(tokens), rtol=1e-6, atol=1e-6)


def test_too_few_examples_are_told(layer_on):
    context = layer_on(torch.ones(1, 2), torch.ones(4, 2, 2))

    class Few:
        def examples(self, count, batch_size, draw):
            return iter([torch.arange(3)])

    few = Context(context.hook, context.masks, Few(), context.losses, context.generator, model=context.model)
    with pytest.raises(UserError, match="examples 4: the data gave 3"):
        Wanda(examples=4).products(few, ["w"])


def test_a_layer_that_no_token_reaches_is_told(layer_on):
    context = layer_on(torch.ones(1, 2), torch.ones(4, 2, 2), torch.zeros(4, 2))
    with pytest.raises(UserError, match="layer of 'w' is given no token"):
        Wanda(examples=4).products(context, ["w"])


def test_parts_of_a_model_are_its_layers_in_order():
    names = [
        "bert.encoder.layer.0.attention.self.query.weight", "bert.encoder.layer.0.ffn.1.dense.weight",
        "bert.encoder.layer.1.attention.self.query.weight", "bert.encoder.layer.10.output.dense.weight",
        "bert.pooler.dense.weight", "0.weight", "2.weight",
    ]  # fmt: skip
    assert parts_in_order(names) == [names[:2], *([name] for name in names[2:])]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "1x4"])
def test_the_library_prunes_a_transformer_with_padding(name, pattern):
    """And once more, from the masks of the first time."""
    model = with_new_head(TINY, SequenceClassification())
    data = list(batches(3))
    settings = {"examples": 16} | ({"dampening": 0.1} if name != "wanda" else {})
    masks = None
    for sparsity in (0.3, 0.5):
        report = prune(model, data, loss, sparsity, method=name, pattern=pattern, masks=masks, **settings)
        if masks is not None:
            assert not any((report.masks[weight] & ~mask).any() for weight, mask in masks.items())
        masks = report.masks
        assert set(report.seconds) == {"forward passes", "solving", "total"}
        for layer in report.layers.values():
            assert layer.zeros == pytest.approx(sparsity * layer.size, abs=2)  # groups of four


def test_every_method_that_looks_at_inputs_is_here():
    kinds = {name: registry.load("pruning", name) for name in registry.names("pruning")}
    assert tuple(name for name, kind in kinds.items() if issubclass(kind, InputBased)) == METHODS
