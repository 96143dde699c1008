"""Gradients of linear layers' weights, per example from one batched pass, or as means over minibatches."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def _captured(layers: Mapping[str, nn.Linear]):
    """Input [batch, tokens, in] and output [batch, tokens, out] of each layer in the forward pass of the block."""
    captured: dict[str, tuple[Tensor, Tensor]] = {}
    handles = []
    for name, layer in layers.items():

        def keep(_module, inputs, output, name=name):
            captured[name] = (inputs[0].detach(), output)

        handles.append(layer.register_forward_hook(keep))
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def per_example_gradients(layers: Mapping[str, nn.Linear], losses) -> Iterator[tuple[str, Tensor]]:
    """Gradient of each example's own loss with respect to each layer's weight.

    One forward and one backward pass serve the whole batch: with x the layer's input and d the gradient of its output,
    the gradient of example n is the sum over tokens t of d[n, t] x[n, t]'.

    Args:
        layers: linear layers by the name of their weight.
        losses: called without arguments, runs the model on a batch and returns the losses [batch].

    Yields:
        The weight's name and gradients [batch, out, in], one layer at a time, so that only one is in memory.
    """
    with _captured(layers) as captured, torch.enable_grad():
        total = losses().sum()
    outputs = [captured[name][1] for name in layers]
    output_gradients = torch.autograd.grad(total, outputs)
    for name, gradient in zip(layers, output_gradients, strict=True):
        inputs = captured.pop(name)[0]
        yield name, torch.bmm(gradient.flatten(1, -2).transpose(1, 2), inputs.flatten(1, -2))


def minibatch_gradients(layers: Mapping[str, nn.Linear], losses) -> Iterator[tuple[str, Tensor]]:
    """Gradient of the batch's mean loss, as in the reference implementation; yields shapes [1, out, in]."""
    with torch.enable_grad():
        mean = losses().mean()
    gradients = torch.autograd.grad(mean, [layer.weight for layer in layers.values()])
    for name, gradient in zip(layers, gradients, strict=True):
        yield name, gradient.unsqueeze(0)
