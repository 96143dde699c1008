"""What methods share that look at what the linear layers are given: which tokens, and one part of the model after the
other."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from obert.foundation.errors import UserError
from obert.masks.patterns import AnyPattern, LayerPatterns
from obert.pruning import Context, Method
from obert.second_order.gradients import exact_float32

BATCH = 32  # examples of a pass; padding is left out, so that their company makes no difference
MASK = "attention_mask"


class InputBased(Method):
    """A method that passes examples through the model without gradients and looks at the inputs of the linear layers.

    Tokens that the model's attention mask leaves out are no inputs.
    """

    small_settings: ClassVar = {"examples": 16}

    examples: int = Field(1024, gt=0, description="training examples that pass through the model")

    def forward_examples(self) -> int:
        """As many as asked for, each time from the first."""
        return self.examples

    def sees_inputs(self) -> bool:
        """Of linear layers alone."""
        return True

    def check_pattern(self, pattern: AnyPattern) -> None:
        """Groups of weights must lie in a row, which is a sum of a layer's inputs."""
        if isinstance(pattern, LayerPatterns) or pattern.rows > 1:
            raise UserError(f"methods that look at inputs prune groups inside rows (1xG, N:M), not pattern {pattern}")

    def see_inputs(self, context: Context, names: Iterable[str], see: Callable[[str, Tensor], None]) -> None:
        """Pass the examples through the model, and show the inputs of some layers.

        Args:
            see: called with the weight's name and its inputs [tokens, in], float32 at least, at each call of its layer.

        Raises:
            UserError: fewer examples than asked for, or a layer that is not called with a tensor.
        """
        if context.model is None:
            raise ValueError("the context has no model, whose attention mask says which tokens count")
        device = next(iter(context.layers.values())).weight.device
        done = 0
        with torch.no_grad(), exact_float32(device), ExitStack() as stack:
            mask = stack.enter_context(_attention_mask(context.model))
            for name in names:
                stack.enter_context(_shown(name, context.layers[name], mask, see))
            for batch in context.data.examples(self.examples, BATCH, context.draw):
                mask.clear()
                done += len(context.losses(batch))
                if done >= self.examples:
                    return
        raise UserError(f"examples {self.examples}: the data gave {done}. Give it more, or ask for fewer")

    def products(self, context: Context, names: Iterable[str]) -> dict[str, Tensor]:
        """The mean of x x' over the tokens x of each layer's input, float64 [in, in], by the name of the weight: half
        the Hessian of the layer's mean squared error, which is the same for each of its rows."""
        sums, counts = {}, dict.fromkeys(names, 0)
        for name in counts:
            weight = context.layers[name].weight
            sums[name] = weight.new_zeros(weight.shape[1], weight.shape[1], dtype=torch.float64)

        def see(name: str, inputs: Tensor) -> None:
            sums[name] += inputs.T @ inputs
            counts[name] += len(inputs)

        self.see_inputs(context, counts, see)
        for name, count in counts.items():
            if not count:
                raise UserError(f"layer of '{name}' is given no token by the examples. Leave it out")
        return {name: total / counts[name] for name, total in sums.items()}


def dampened(products: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """A Hessian that has an inverse, as in the codes of Optimal Brain Compression and SparseGPT.

    Args:
        products: [in, in].
        share: of the mean of the diagonal, added to it.

    Returns:
        The Hessian [in, in], and True for the inputs that are always zero [in], which get a one on the diagonal first.
    """
    unused = products.diagonal() == 0
    diagonal = products.diagonal() + unused
    hessian = products.clone()
    hessian.diagonal().copy_(diagonal + share * diagonal.mean())
    return hessian, unused


def parts_in_order(names: Iterable[str]) -> list[list[str]]:
    """The weights by layer of the model, in its order: names that are the same up to their first number are of one.

    A weight without a number in its name is by itself.
    """
    parts: dict[str, list[str]] = {}
    for name in names:
        found = re.match(r"(.*?(?:^|\.)\d+)\.", name)
        parts.setdefault(found[1] if found else name, []).append(name)
    return list(parts.values())


@contextmanager
def restored(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Weights are as before when the block is over, whatever it sets them to meanwhile."""
    before = {name: weight.clone() for name, weight in weights.items()}
    try:
        yield
    finally:
        for name, weight in weights.items():
            weight.copy_(before[name])


@contextmanager
def _attention_mask(model: nn.Module) -> Iterator[list[Tensor]]:
    """A list that holds the attention mask [..., tokens] of the pass under way, or nothing where there is none.

    It is read where a module is called with it, so that it does not matter what a batch looks like. Modules inside a
    model may be called with larger ones, made of it.
    """
    held: list[Tensor] = []
    handles = []

    def see(module, arguments, named):
        value = inspect.signature(module.forward).bind_partial(*arguments, **named).arguments.get(MASK)
        if isinstance(value, Tensor) and value.dim() in (2, 3):
            held[:] = [value != 0]

    for module in model.modules():
        if MASK in inspect.signature(module.forward).parameters:
            handles.append(module.register_forward_pre_hook(see, with_kwargs=True))
    try:
        yield held
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _shown(name: str, layer: nn.Linear, mask: list[Tensor], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Inside the block, each call of a layer shows its inputs that are tokens.

    Inputs that are not one for each token of the mask, such as those of a pooler, all count.
    """

    def show(_module, arguments, named):
        inputs = arguments[0] if arguments else named.get("input")
        if not isinstance(inputs, Tensor):
            raise UserError(f"layer of '{name}' is called without a tensor: its inputs cannot be seen. Leave it out")
        rows = inputs.reshape(-1, inputs.shape[-1]).to(torch.promote_types(inputs.dtype, torch.float32))
        by_token = mask and inputs.dim() > 2 and len(rows) == mask[0].numel()
        see(name, rows[mask[0].flatten()] if by_token else rows)

    handle = layer.register_forward_pre_hook(show, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
