"""The weights that a forward pass really multiplies by, seen as it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from obert.foundation.errors import UserError
from obert.masks.selection import Masks

PRODUCTS = (torch.matmul, torch.mm, Tensor.matmul, Tensor.__matmul__, Tensor.mm)


class _Products(TorchFunctionMode):
    """Sees the products inside the layers' calls.

    Attributes:
        used: by the name of the weight, what was used in its place, and of several calls that with fewest zeros.
    """

    def __init__(self, layers: Mapping[str, nn.Linear]):
        super().__init__()
        self.used: dict[str, Tensor] = {}
        self._layers = layers
        self._open: list[tuple[str, list[Tensor]]] = []  # the calls that are going on, the innermost last

    def begin(self, name: str) -> None:
        """A layer is called."""
        self._open.append((name, []))

    def end(self) -> None:
        """The layer's call is over. Of several factors of the weight's shape, such as a gate, one must be pruned."""
        name, factors = self._open.pop()
        factors = factors or [self._layers[name].weight.detach()]
        counts = [int(factor.count_nonzero()) for factor in factors]
        used = factors[counts.index(min(counts))]
        if name not in self.used or used.count_nonzero() > self.used[name].count_nonzero():
            self.used[name] = used

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """Keep the second factor if it has the weight's shape."""
        kwargs = kwargs or {}
        if self._open and (func is nn.functional.linear or func in PRODUCTS):
            name, factors = self._open[-1]
            factor = (*args, *kwargs.values())[1]
            if isinstance(factor, Tensor) and factor.dim() == 2:
                factor = factor.detach() if func is nn.functional.linear else factor.detach().T
                if factor.shape == self._layers[name].weight.shape:
                    factors.append(factor)
        return func(*args, **kwargs)


def used_weights(layers: Mapping[str, nn.Linear], forward: Callable[[], Any]) -> dict[str, Tensor]:
    """What a forward pass multiplies by, by the name of the weight; of a layer that it does not call, the weight."""
    products, handles = _Products(layers), []
    for name, layer in layers.items():
        handles.append(layer.register_forward_pre_hook(lambda *_, name=name: products.begin(name), prepend=True))
        handles.append(layer.register_forward_hook(lambda *_: products.end(), prepend=True))
    try:
        with products, torch.enable_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return {name: products.used.get(name, layer.weight.detach()) for name, layer in layers.items()}


def check_pruned(layers: Mapping[str, nn.Linear], used: Mapping[str, Tensor], masks: Masks) -> None:
    """Raise UserError if a forward pass uses fewer zeros than the masks prune."""
    for name, layer in layers.items():
        zeros, pruned = int((used[name] == 0).sum()), int((~masks[name]).sum())
        if zeros < pruned:
            raise UserError(
                f"weight '{name}': {pruned} of {masks[name].numel()} values were pruned, but the forward pass used "
                f"weights with {zeros} zeros. A hook, or the forward() of {type(layer).__name__}, computes others from "
                "it. Make these the layer's weight, or leave it out of `scope`; the weights are as they were before"
            )
