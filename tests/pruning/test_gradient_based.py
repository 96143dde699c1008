"""Gradients as methods draw them: the first batch of a draw is compared with autograd, whatever the model is."""

import pytest
import torch
from torch import nn

from obert.foundation.errors import UserError
from obert.masks.selection import dense_masks
from obert.pruning import Context, TrainingHook, prune_event
from obert.pruning.obd import OptimalBrainDamage


class Scaling(nn.Linear):
    """Counts its calls."""

    calls, factor = 0, 3

    def forward(self, inputs):
        self.calls += 1
        return nn.functional.linear(inputs, self.weight * self.factor, self.bias)


class Data:
    """Four batches of eight rows."""

    def examples(self, count, batch_size, draw):
        generator = torch.Generator().manual_seed(draw)
        return (torch.randn(8, 4, generator=generator) for _ in range(4))


def draw_from(layer):
    method = OptimalBrainDamage(num_gradients=32, gradient_batch_size=8)
    masks = dense_masks({"weight": layer.weight})
    context = Context(
        TrainingHook({"weight": layer}), masks, Data(), lambda batch: layer(batch).square().sum(1), torch.Generator()
    )
    return prune_event(method, context, 0.5)


def test_a_model_whose_gradients_would_be_wrong_is_refused_on_its_first_batch():
    layer = Scaling(4, 4)
    before = layer.weight.detach().clone()
    with pytest.raises(UserError, match="layer of 'weight': the gradient from its inputs and outputs is not"):
        draw_from(layer)
    assert layer.calls == 1
    assert torch.equal(layer.weight, before)


def test_a_model_whose_gradients_are_right_is_run_once_a_batch():
    layer = Scaling(4, 4)
    layer.factor = 1
    assert not draw_from(layer).masks["weight"].all()
    assert layer.calls == 4
