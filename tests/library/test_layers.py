"""Which layers are pruned, what counts as pruned already, and what the report says of the others."""

import pytest
import torch
from architectures.models import config
from torch import nn
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification, BertModel

from obert import prune
from obert.foundation.errors import UserError
from obert.models.encoders import prunable_weights

BERT = BertConfig(
    vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
    max_position_embeddings=20,
)  # fmt: skip


class Picture(nn.Module):
    """A convolution, a table, an attention and two linear layers."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.table = nn.Embedding(10, 8)
        self.attention = nn.MultiheadAttention(8, 2)
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 2)


def test_what_is_left_out_is_listed():
    report = prune(Picture(), (), None, 0.5, "magnitude", scope="first")
    assert {name: (left.kind, left.size) for name, left in report.left_out.items()} == {
        "convolution.weight": ("Conv2d", 108),
        "table.weight": ("Embedding", 80),
        "attention.in_proj_weight": ("MultiheadAttention", 192),
        "attention.out_proj.weight": ("NonDynamicallyQuantizableLinear", 64),
        "second.weight": ("Linear", 16),
    }
    assert "left out: Conv2d 1 (108 weights), Embedding 1 (80 weights)" in str(report)


def test_nothing_left_out_is_not_mentioned():
    assert "left out" not in str(prune(nn.Linear(8, 8), (), None, 0.5, "magnitude"))


@pytest.mark.parametrize(
    ("model", "scope"),
    [
        (BertForSequenceClassification, "encoder.*.dense"),
        (BertForSequenceClassification, "bert.encoder.*.dense"),
        (BertModel, "encoder.*.dense"),
        (BertModel, "bert.encoder.*.dense"),
    ],
)
def test_scope_matches_with_and_without_the_models_prefix(model, scope):
    report = prune(model(BERT), (), None, 0.5, "magnitude", scope=scope)
    layers = [name.removeprefix("bert.") for name in report.layers]
    assert layers == [
        f"encoder.layer.{layer}.{part}.dense.weight"
        for layer in range(2)
        for part in ("attention.output", "intermediate", "output")
    ]


def test_a_scope_that_matches_nothing_with_either_name_is_refused():
    with pytest.raises(UserError, match=r"unknown layer 'bert\.decoder\.\*'"):
        prune(BertForSequenceClassification(BERT), (), None, 0.5, "magnitude", scope="bert.decoder.*")


class Wrapped(nn.Module):
    """A model of Transformers inside another, as Lightning has it, with a layer of its own."""

    def __init__(self, *networks):
        super().__init__()
        self.towers = nn.ModuleList(networks)
        self.encoder = nn.Linear(16, 16)


@pytest.mark.parametrize("name", ["distilbert", "modernbert", "albert"])
def test_default_scope_is_the_architectures_where_it_is_inside_another_model(name):
    networks = [AutoModelForSequenceClassification.from_config(config(name)) for _ in range(2)]
    report = prune(Wrapped(*networks), (), None, 0.5, "magnitude")
    expected = [f"towers.{i}.{own}" for i, network in enumerate(networks) for own in prunable_weights(network)]
    assert list(report.layers) == expected


def test_zeros_count_as_pruned_and_are_told():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 8))
    first = prune(model, (), None, 0.5, "magnitude")
    assert (first.kept_zeros, "zero before" in str(first)) == (0, False)
    model[0].weight.data[first.masks["0.weight"]] += 1  # whatever is left is now ranked otherwise
    report = prune(model, (), None, 0.7, "random")
    assert report.kept_zeros == 288
    assert "288 weights were zero before: they count as pruned" in str(report)
    assert all(not (report.masks[name] & ~mask).any() for name, mask in first.masks.items())
    assert report.total.zeros == round(0.7 * 576)


@pytest.mark.parametrize(("pattern", "kept"), [("1x4", 92), ("2:4", 48), ("4x4", 80)])
def test_zeros_count_as_whole_groups_of_the_pattern(pattern, kept):
    torch.manual_seed(0)
    layer = nn.Linear(16, 16)
    layer.weight.data[:8, :12] = 0  # 24 groups of a row, or 6 blocks
    layer.weight.data[8:, ::4] = 0  # a weight in every other group, which makes no whole one
    layer.weight.data[0, 0] = 1  # a group and a block fewer, but three zeros are enough for two of four
    report = prune(layer, (), None, 0.45, "random", pattern=pattern)
    assert report.kept_zeros == kept
    pruned = ~report.masks["weight"]
    groups = pruned.view(16, 4, 4).sum(-1)
    assert set(groups.unique().tolist()) == ({0, 2} if pattern == "2:4" else {0, 4})
    assert (groups[1:8, :3] == (2 if pattern == "2:4" else 4)).all() or pattern == "4x4"


def test_fewer_zeros_than_there_are_is_refused_unless_masks_keep_them():
    model = nn.Linear(16, 16)
    model.weight.data[:12] = 0
    with pytest.raises(UserError, match=r"0\.5 is below the share of weights that are zero already, 0\.75: they count"):
        prune(model, (), None, 0.5, "magnitude")
    dense = {"weight": torch.ones(16, 16, dtype=torch.bool)}
    report = prune(model, (), None, 0.5, "magnitude", masks=dense)
    assert (report.layers["weight"].target, report.kept_zeros) == (0.5, 0)


def test_in_each_layer_no_more_may_be_zero_than_is_asked_for():
    """Wanda prunes each layer to the same sparsity."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[0].weight.data[:5] = 0
    batch = torch.randn(16, 8)
    with pytest.raises(UserError, match=r"sparsity 0\.5 is below the share .* in '0\.weight', 0\.625"):
        prune(model, [batch], lambda m, b: m(b).sum(1), 0.5, "wanda", examples=16)
    report = prune(model, [batch], lambda m, b: m(b).sum(1), 0.75, "wanda", examples=16)
    assert [layer.zeros for layer in report.layers.values()] == [48, 48]
