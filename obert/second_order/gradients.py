"""Gradients of linear layers' weights, per example from one batched pass, or as means over minibatches."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Gradients:
    """n gradients of one weight [out, in] in factors: gradient i is the sum over tokens t of d[i, t] x[i, t]'.

    Attributes:
        inputs: x, [n, tokens, in].
        output_gradients: d, [n, tokens, out].
    """

    inputs: Tensor
    output_gradients: Tensor

    @property
    def row_size(self) -> int:
        """Weights of a row of the weight."""
        return self.inputs.shape[-1]

    def __len__(self) -> int:
        return self.inputs.shape[0]

    def first(self, count: int) -> "Gradients":
        """The first `count` gradients, or all if there are fewer."""
        return Gradients(self.inputs[:count], self.output_gradients[:count])

    def rows(self, start: int, stop: int) -> Tensor:
        """The gradients of some of the weight's rows, flattened: [n, (stop - start) * in]."""
        chosen = self.output_gradients[:, :, start:stop].transpose(1, 2)
        return torch.bmm(chosen, self.inputs).flatten(1)


@dataclass(frozen=True)
class DenseGradients:
    """n gradients of one weight as they are, [n, out, in]."""

    values: Tensor

    @property
    def row_size(self) -> int:
        """Weights of a row of the weight."""
        return self.values.shape[-1]

    def __len__(self) -> int:
        return self.values.shape[0]

    def first(self, count: int) -> "DenseGradients":
        """The first `count` gradients, or all if there are fewer."""
        return DenseGradients(self.values[:count])

    def rows(self, start: int, stop: int) -> Tensor:
        """The gradients of some of the weight's rows, flattened: [n, (stop - start) * in]."""
        return self.values[:, start:stop].flatten(1)


def row_slabs(gradients: Gradients | DenseGradients, rows: int, budget: int) -> Iterator[tuple[slice, Tensor]]:
    """The gradients of a weight, some of its rows at a time, so that factors are never unfolded as a whole.

    Args:
        rows: of the weight.
        budget: bytes of a slab.

    Yields:
        The rows, and their gradients flattened, float32 [n, rows of the slab * in].
    """
    step = max(1, budget // (4 * len(gradients) * gradients.row_size))
    for start in range(0, rows, step):
        chosen = slice(start, min(start + step, rows))
        yield chosen, gradients.rows(chosen.start, chosen.stop).float()


@contextmanager
def exact_float32(device: torch.device):
    """Inside the block, products are float32: neither autocast nor TF32, whatever the caller has allowed."""
    settings = torch.backends.cuda.matmul
    allowed, settings.allow_tf32 = settings.allow_tf32, False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        settings.allow_tf32 = allowed


@contextmanager
def _captured(layers: Mapping[str, nn.Linear]):
    """Inputs [batch, tokens, in] and outputs [batch, tokens, out] of each call of each layer inside the block."""
    captured: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}
    handles = []
    for name, layer in layers.items():

        def keep(_module, inputs, output, name=name):
            captured[name].append((inputs[0].detach(), output))

        handles.append(layer.register_forward_hook(keep))
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def per_example_gradients(
    layers: Mapping[str, nn.Linear], losses: Callable[[], Tensor]
) -> Iterator[tuple[str, Gradients]]:
    """Gradient of each example's own loss with respect to each layer's weight.

    One forward and one backward pass serve the whole batch: with x the layer's input and d the gradient of its output,
    the gradient of example n is the sum over tokens t of d[n, t] x[n, t]'. A layer that is called several times in a
    pass adds its calls as further tokens.

    Args:
        layers: linear layers by the name of their weight; their input's first dimension is the example.
        losses: called without arguments, runs the model on a batch and returns the losses [batch].

    Yields:
        The weight's name and its gradients, one layer at a time, so that only one is unfolded in memory.
    """
    with _captured(layers) as captured, torch.enable_grad():
        values = losses()
        calls = [(name, inputs, output) for name, kept in captured.items() for inputs, output in kept]
        gradients = torch.autograd.grad(
            values.sum(), [output for _, _, output in calls], allow_unused=True, materialize_grads=True
        )
    count = len(values)
    for name in layers:
        parts = [
            (x.reshape(count, -1, x.shape[-1]), d.reshape(count, -1, d.shape[-1]))
            for (own, x, _), d in zip(calls, gradients, strict=True)
            if own == name
        ]
        if parts:
            yield name, Gradients(*(torch.cat(factor, dim=1) for factor in zip(*parts, strict=True)))


def minibatch_gradients(
    layers: Mapping[str, nn.Linear], losses: Callable[[], Tensor]
) -> Iterator[tuple[str, DenseGradients]]:
    """Gradient of the batch's mean loss, as in the reference implementation: one gradient of each weight."""
    with torch.enable_grad():
        mean = losses().mean()
    weights = [layer.weight for layer in layers.values()]
    for name, gradient in zip(
        layers, torch.autograd.grad(mean, weights, allow_unused=True, materialize_grads=True), strict=True
    ):
        yield name, DenseGradients(gradient.unsqueeze(0))
