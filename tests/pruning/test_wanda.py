"""Wanda by hand, and from one layer of a model to the next."""

import pytest
import torch
from torch import nn

from obert.contracts.small_network import Indices
from obert.foundation.errors import UserError
from obert.masks.patterns import Pattern
from obert.masks.selection import dense_masks
from obert.pruning import Context, TrainingHook, prune_event
from obert.pruning.wanda import Wanda

WEIGHT = torch.tensor([[1.0, -2, 3], [4, 0.5, -1]])
TOKENS = torch.tensor([[[3.0, 0, 1], [100, 100, 100]], [[4, 1, 0], [100, 100, 100]]])
REAL = torch.tensor([[1, 0], [1, 0]])


def test_rows_by_hand_with_padding(layer_on):
    """Norms of the inputs that are tokens: 5, 1 and 1. The lowest of each row goes, not the two lowest of all."""
    context = layer_on(WEIGHT, TOKENS, REAL, sparsity=1 / 3)
    method = Wanda(examples=2)
    assert method.score(context)["w"].tolist() == [[5, 2, 3], [20, 0.5, 1]]
    masks = prune_event(method, context, 1 / 3).masks
    assert masks["w"].tolist() == [[True, False, True]] * 2
    assert context.weights["w"].tolist() == [[1, 0, 3], [4, 0, -1]]


def test_padding_would_have_changed_the_masks(layer_on):
    masks = prune_event(Wanda(examples=2), layer_on(WEIGHT, TOKENS), 1 / 3).masks
    assert masks["w"].tolist() == [[False, True, True], [True, False, True]]


def test_two_of_four_weights_of_each_row(layer_on):
    """Norms 1, 2, 3, 4: scores 4, 6, 6, 4 and 1, 4, 9, 16. The rows' groups keep their two largest."""
    weight = torch.tensor([[4.0, 3, 2, 1], [-1, 2, -3, 4]])
    context = layer_on(weight, torch.diag(torch.arange(1.0, 5))[None], pattern=Pattern.parse("2:4"))
    masks = prune_event(Wanda(examples=1), context, 0.5).masks
    assert masks["w"].tolist() == [[False, True, True, False], [False, False, True, True]]


class Blocks(nn.Module):
    """Two blocks of two layers that see the same inputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"left": nn.Linear(6, 6), "right": nn.Linear(6, 6)}) for _ in range(2)
        )

    def forward(self, x):
        for block in self.blocks:
            x = torch.tanh(block["left"](x)) * block["right"](x)
        return x


def test_a_block_sees_what_the_pruned_blocks_before_it_give():
    model, inputs = Blocks(), torch.randn(16, 5, 6, generator=torch.Generator().manual_seed(1))
    layers = {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    dense = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    context = Context(
        TrainingHook(layers), dense_masks(dense), Indices(16), lambda i: model(inputs[i]).sum((1, 2)),
        torch.Generator(), targets=dict.fromkeys(layers, 0.5), model=model,
    )  # fmt: skip
    with torch.no_grad():
        scores = Wanda(examples=16).score(context)
    assert all(torch.equal(layers[name].weight, weight) for name, weight in dense.items())
    norm = inputs.flatten(0, 1).norm(dim=0)
    for name in ("blocks.0.left.weight", "blocks.0.right.weight"):
        torch.testing.assert_close(scores[name], dense[name].abs() * norm)
        row_cut = scores[name].sort(dim=1).values[:, 2:3]
        layers[name].weight.data[scores[name] <= row_cut] = 0
    with torch.no_grad():
        norm = (
            (torch.tanh(model.blocks[0]["left"](inputs)) * model.blocks[0]["right"](inputs)).flatten(0, 1).norm(dim=0)
        )
    for name in ("blocks.1.left.weight", "blocks.1.right.weight"):
        torch.testing.assert_close(scores[name], dense[name].abs() * norm)


def test_groups_over_several_rows_are_refused():
    with pytest.raises(UserError, match="prune groups inside rows"):
        Wanda().check_pattern(Pattern.parse("4x4"))
