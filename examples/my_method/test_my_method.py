"""The method keeps the project's contract, and its scores are its formula's."""

import torch
from my_method import FirstOrderTaylor

from obert.contracts import check_method
from obert.contracts.small_network import SmallNetwork


def test_contract():
    check_method(FirstOrderTaylor)


def test_scores_are_the_weights_times_the_mean_absolute_gradient():
    network = SmallNetwork()
    context = network.context()
    scores = FirstOrderTaylor(num_gradients=20, gradient_batch_size=8).score(context)
    for name, layer in network.layers.items():
        total = torch.zeros_like(layer.weight)
        for example in range(20):
            (gradient,) = torch.autograd.grad(context.losses(torch.tensor([example])).sum(), [layer.weight])
            total += gradient.abs()
        torch.testing.assert_close(scores[name], layer.weight.detach().abs() * total / 20)
