"""Gradients of linear layers' weights, per example from one batched pass, or as means over minibatches."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.utils import parametrize

from obert.foundation.errors import UserError

# Two ways to the same sum differ by rounding, at most this many times the precision of a number and this fraction.
ROUNDING, LARGEST_TOLERANCE = 1000, 0.05


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


class _HandedOn(torch.autograd.Function):
    """The same values as a tensor of its own: what is edited in place behind it leaves the graph before it alone."""

    @staticmethod
    def forward(ctx, output: Tensor) -> Tensor:
        return output.detach()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient


@dataclass(frozen=True)
class _Call:
    """One call of a layer.

    Attributes:
        inputs: x, detached, [..., in].
        version: counts the edits in place of x up to the call.
        edge: where the gradient of the output arrives, before any hook and any edit.
        shape: of the output.
        dtype: of the output.
    """

    inputs: Tensor
    version: int
    edge: GradientEdge
    shape: torch.Size
    dtype: torch.dtype

    @property
    def rows(self) -> int:
        """The first dimension of x."""
        return self.inputs.shape[0] if self.inputs.dim() > 1 else 1


@contextmanager
def _captured(layers: Mapping[str, nn.Linear]):
    """The calls of each layer inside the block that are part of a graph.

    Raises:
        UserError: a call with keyword arguments, or an output that is no tensor.
    """
    captured: dict[str, list[_Call]] = {name: [] for name in layers}
    handles = []
    for name, layer in layers.items():

        def keep(_module, arguments, output, name=name):
            if not (arguments and isinstance(arguments[0], Tensor)):
                raise UserError(
                    f"layer of '{name}' is called without a tensor as first positional argument: per-example gradients "
                    "need layer(x), not layer(input=x). Or use gradients: minibatch"
                )
            if not isinstance(output, Tensor):
                raise UserError(
                    f"layer of '{name}' returns a {type(output).__name__}: per-example gradients need a tensor. Use "
                    "gradients: minibatch"
                )
            if not output.requires_grad:
                return None
            inputs = arguments[0].detach()
            edge = get_gradient_edge(output)
            captured[name].append(_Call(inputs, inputs._version, edge, output.shape, output.dtype))
            return _HandedOn.apply(output)

        handles.append(layer.register_forward_hook(keep, prepend=True))  # before hooks that change the output
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def per_example_gradients(
    layers: Mapping[str, nn.Linear], losses: Callable[[], Tensor], check: bool = False
) -> Iterator[tuple[str, Gradients]]:
    """Gradient of each example's own loss with respect to each layer's weight.

    One forward and one backward pass serve the whole batch: with x the layer's input and d the gradient of its output,
    the gradient of example n is the sum over tokens t of d[n, t] x[n, t]'. A layer that is called several times in a
    pass adds its calls as further tokens. Where a call has one row for all examples, such as DeBERTa's embeddings of
    relative positions, its d is taken by a backward pass for each example.

    Args:
        layers: linear layers by the name of their weight; their input's first dimension is the example, or 1.
        losses: called without arguments, runs the model on a batch and returns the losses [batch].
        check: compare with autograd's own gradients of the weights, by one more backward pass: a sum over examples with
            different factors, so that it shows both a wrong sum and a gradient that is given to a wrong example.

    Yields:
        The weight's name and its gradients, one layer at a time, so that only one is unfolded in memory.

    Raises:
        UserError: a layer's gradients cannot be had in this way; it is named. Where only autograd's own show it, only
            with `check`.
    """
    with _captured(layers) as captured, parametrize.cached(), torch.enable_grad():
        values = losses()
        count = len(values)
        by_layer = {name: list(calls) for name, calls in captured.items()}  # a backward pass may call layers again
        for name, calls in by_layer.items():
            _check_calls(name, calls, count, check)
        every = [call for calls in by_layer.values() for call in calls]
        own = partial(torch.autograd.grad, allow_unused=True)
        factors = (2.0 ** (torch.arange(count, device=values.device) % 3)).to(values.dtype)  # scale without rounding
        weights = [layer.weight for layer in layers.values()]
        expected = own(values @ factors, weights, retain_graph=True) if check else ()
        in_turn = _in_turn([call for call in every if call.rows == 1 < count], values)
        gradients = iter(own(values.sum(), [call.edge for call in every]))
    for index, (name, calls) in enumerate(by_layer.items()):
        parts = [(call, next(gradients)) for call in calls]
        if not parts:
            continue
        result = _by_example([(call, in_turn.get(call.edge, gradient)) for call, gradient in parts], count)
        if check:
            dtypes = {torch.float32, *(dtype for call in calls for dtype in (call.inputs.dtype, call.dtype))}
            precision = max(torch.finfo(dtype).eps for dtype in dtypes)  # parts of float64 models may be float32
            _compare(name, result, factors, expected[index], precision)
        yield name, result


def _check_calls(name: str, calls: list[_Call], count: int, check: bool) -> None:
    """Raise UserError unless each call can be told apart by example, and, in a batch that is checked, there is one."""
    if check and not calls:
        raise UserError(
            f"layer of '{name}' is not called in the first batch, or only without gradients, so its per-example "
            "gradients cannot be seen. Use gradients: minibatch, or leave it out"
        )
    for call in calls:
        if call.inputs._version != call.version:
            raise UserError(
                f"layer of '{name}': its input is edited in place after the call, so its gradient is lost. Edit a copy"
            )
        if call.shape[:-1] != call.inputs.shape[:-1]:
            raise UserError(
                f"layer of '{name}' makes {list(call.shape)} of {list(call.inputs.shape)}: per-example gradients need "
                "one output for each input. Use gradients: minibatch"
            )
        if not count or (call.rows % count and call.rows != 1):
            raise UserError(
                f"layer of '{name}' has inputs of first dimension {call.rows} where the loss has {count} values: "
                "per-example gradients need the example first. Or use gradients: minibatch"
            )


def _in_turn(calls: list[_Call], values: Tensor) -> dict[GradientEdge, Tensor]:
    """The gradients [batch, ...] of outputs that all examples share, from one backward pass for each of the losses."""
    if not calls:
        return {}
    edges = [call.edge for call in calls]
    found = [torch.autograd.grad(value, edges, retain_graph=True, allow_unused=True) for value in values]
    return {
        call.edge: torch.stack(
            [call.inputs.new_zeros(call.shape, dtype=call.dtype) if d is None else d for d in column]
        )
        for call, column in zip(calls, zip(*found, strict=True), strict=True)
    }


def _by_example(parts: list[tuple[_Call, Tensor | None]], count: int) -> Gradients:
    """A layer's gradients from its calls, each with the gradient of its output, None if the loss does not see it."""
    inputs, output_gradients = [], []
    for call, gradient in parts:
        x = call.inputs
        if gradient is None:
            gradient = x.new_zeros(call.shape, dtype=call.dtype)
        common = torch.promote_types(x.dtype, gradient.dtype)  # they differ under autocast
        rows = x.reshape(min(call.rows, count), -1, x.shape[-1])
        inputs.append(rows.expand(count, -1, -1).to(common))
        output_gradients.append(gradient.reshape(count, -1, gradient.shape[-1]).to(common))
    return Gradients(torch.cat(inputs, dim=1), torch.cat(output_gradients, dim=1))


def _compare(name: str, gradients: Gradients, factors: Tensor, expected: Tensor | None, precision: float) -> None:
    """Raise UserError if gradients, times a factor each, do not sum to what autograd has, [out, in], None for zeros.

    `precision` is that of the coarsest type of number. No entry of the sum is larger than the product of the columns'
    norms, and rounding is in proportion to it.
    """
    x = gradients.inputs.flatten(0, 1)
    d = (gradients.output_gradients * factors.to(x.dtype)[:, None, None]).flatten(0, 1)
    difference = d.T @ x if expected is None else d.T @ x - expected
    wide = torch.promote_types(x.dtype, torch.float32)  # norms of halves may be too large for one
    largest = [torch.linalg.vector_norm(factor, dim=0, dtype=wide).max() for factor in (x, d)]
    if not torch.isfinite(difference).all():
        raise UserError(f"layer of '{name}': a gradient is not finite")
    if difference.abs().max() > min(ROUNDING * precision, LARGEST_TOLERANCE) * largest[0] * largest[1]:
        raise UserError(
            f"layer of '{name}': the gradient from its inputs and outputs is not what autograd has for its weight. Its "
            "forward pass does more than multiply by the weight, the weight is used elsewhere too or has a gradient "
            "hook, or the loss of one example depends on others. Use gradients: minibatch, or leave the layer out"
        )


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
