"""Per-example gradients against one backward pass an example."""

import pytest
import torch
from torch import nn

from obert.second_order.gradients import minibatch_gradients, per_example_gradients


@pytest.fixture
def setting():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    layers = {"0.weight": model[0], "2.weight": model[2]}
    inputs = torch.randn(6, 4, 5, dtype=torch.float64)  # six examples of four tokens
    labels = torch.randint(0, 3, (6,))

    def losses(chosen=slice(None)):
        return nn.functional.cross_entropy(model(inputs[chosen]).mean(1), labels[chosen], reduction="none")

    return model, layers, losses


def test_per_example_gradients_equal_one_backward_an_example(setting):
    model, layers, losses = setting
    found = dict(per_example_gradients(layers, losses))
    for index in range(6):
        model.zero_grad()
        losses(slice(index, index + 1)).sum().backward()
        for name, layer in layers.items():
            rows = found[name].rows(0, layer.out_features)[index].view_as(layer.weight)
            torch.testing.assert_close(rows, layer.weight.grad)


def test_minibatch_gradient_is_the_mean_of_the_examples_gradients(setting):
    _, layers, losses = setting
    single = dict(per_example_gradients(layers, losses))
    for name, mean in minibatch_gradients(layers, losses):
        rows = layers[name].out_features
        assert len(mean) == 1
        torch.testing.assert_close(mean.rows(1, rows)[0], single[name].rows(1, rows).mean(0))


def test_parameters_keep_no_gradient_afterwards(setting):
    model, layers, losses = setting
    for _ in per_example_gradients(layers, losses):
        pass
    assert all(p.grad is None for p in model.parameters())
    assert not any(layer._forward_hooks for layer in layers.values())
