"""Products of two computed tensors, as attention has them: found by running a model, rounded while it runs.

No model's code is copied, so those of any model are found, whatever its modules are called: of queries and keys, of
probabilities and values, and DeBERTa's further ones of contents and positions.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from obert.foundation.errors import UserError
from obert.quantization.quantizers import ActivationQuantizer

SOFTMAX = {functional.softmax, torch.softmax, Tensor.softmax}
PRODUCTS = {torch.matmul, torch.bmm, Tensor.matmul, Tensor.bmm, Tensor.__matmul__}
# They multiply computed tensors too, in forms whose operands are not rounded.
OTHERS = {torch.einsum, torch.baddbmm, Tensor.baddbmm, functional.linear, functional.scaled_dot_product_attention}
PROBABILITIES = "probabilities"
Pairs = tuple[tuple[str, str], ...]


def find_products(network: PreTrainedModel) -> tuple[dict[nn.Module, Pairs], set[nn.Module]]:
    """The modules of an encoder that multiply computed tensors.

    The encoder runs once, on two tokens, in evaluation mode.

    Returns:
        By module, the names of both operands of each product, in the order in which they are made; and all modules
        that ran.

    Raises:
        UserError: a product is made in a form whose operands cannot be rounded.
    """
    encoder = network.base_model
    search = _Search({module: name for name, module in network.named_modules()})
    hooks = [module.register_forward_pre_hook(search.enter) for module in encoder.modules()]
    hooks += [module.register_forward_hook(search.leave) for module in encoder.modules()]
    training = network.training
    tokens = torch.zeros((1, 2), dtype=torch.long, device=network.device)
    try:
        with torch.no_grad(), search:
            network.eval().base_model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    return search.found, search.ran


class _Search(TorchFunctionMode):
    """Notes which module makes which products."""

    def __init__(self, names: dict[nn.Module, str]):
        super().__init__()
        self._names = names
        self._running: list[tuple[nn.Module, list[str]]] = []
        self.found: dict[nn.Module, Pairs] = {}
        self.ran: set[nn.Module] = set()

    def enter(self, module: nn.Module, *_: Any) -> None:
        """Called before a module runs."""
        self._running.append((module, []))
        self.ran.add(module)

    def leave(self, module: nn.Module, *_: Any) -> None:
        """Called after a module has run; one that runs several times makes the same products each time."""
        _, operations = self._running.pop()
        if "product" not in operations:
            return
        pairs = _pairs(operations)
        if self.found.setdefault(module, pairs) != pairs:
            raise UserError(
                f"'{self._names[module]}' does not make the same products each time: it cannot be quantised"
            )

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in PRODUCTS and not any(isinstance(operand, nn.Parameter) for operand in args[:2]):
            self._running[-1][1].append("product")
        elif function in SOFTMAX:
            self._running[-1][1].append("softmax")
        elif function in OTHERS and not any(isinstance(operand, nn.Parameter) for operand in args[1:2]):
            name = self._names[self._running[-1][0]]
            raise UserError(
                f"'{name}' calls {function.__name__}, whose operands cannot be rounded to 8 bits: this model cannot be "
                "quantised"
            )
        return function(*args, **(kwargs or {}))


def _pairs(operations: list[str]) -> Pairs:
    """Names of operands: the first product is that of a query and a key, what follows a softmax has probabilities."""
    pairs, after_softmax = [], False
    for operation in operations:
        if operation == "product":
            number = f"_{len(pairs)}" if pairs else ""
            pairs.append((PROBABILITIES, "value") if after_softmax else (f"query{number}", f"key{number}"))
        after_softmax = operation == "softmax"
    return tuple(pairs)


def round_products(module: nn.Module, pairs: Pairs) -> None:
    """Make a module round the operands of its products to 8 bits, in place.

    Probabilities are rounded as softmax gives them, before dropout.
    """
    module.__class__ = _rounding(type(module))
    module.pairs = pairs
    module.product_fake_quants = nn.ModuleDict({name: ActivationQuantizer() for pair in pairs for name in pair})


@cache
def _rounding(kind: type[nn.Module]) -> type[nn.Module]:
    """A kind of module whose products are rounded."""

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        with _Rounding(self.pairs, self.product_fake_quants):
            return kind.forward(self, *args, **kwargs)

    return type(f"Quantized{kind.__name__}", (kind,), {"forward": forward})


class _Rounding(TorchFunctionMode):
    """Rounds the operands of one run of a module."""

    def __init__(self, pairs: Pairs, quantizers: nn.ModuleDict):
        super().__init__()
        self._pairs, self._quantizers = iter(pairs), quantizers

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in PRODUCTS and not any(isinstance(operand, nn.Parameter) for operand in args[:2]):
            args = tuple(
                operand if name == PROBABILITIES else self._quantizers[name](operand)
                for name, operand in zip(next(self._pairs), args, strict=True)
            )
        result = function(*args, **(kwargs or {}))
        return self._quantizers[PROBABILITIES](result) if function in SOFTMAX else result
