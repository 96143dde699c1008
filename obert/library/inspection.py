"""What a layer must be for `prune` to change it, looked at before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from obert.foundation.errors import UserError

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
PLAIN = (Tensor, nn.Parameter, nn.Buffer)

# What replaces a layer's weight by one that each forward pass computes, and how to undo it.
UNDOING = {
    "torch.nn.utils.prune": "torch.nn.utils.prune.remove(layer, 'weight')",
    "torch.nn.utils.weight_norm": "torch.nn.utils.remove_weight_norm(layer)",
    "torch.nn.utils.spectral_norm": "torch.nn.utils.remove_spectral_norm(layer)",
}


def check_layers(model: nn.Module, layers: Mapping[str, nn.Linear]) -> None:
    """Look at the layers that are to be pruned, by the name of their weight.

    Raises:
        UserError: a layer's weight is not a parameter of its own, is not made of plain numbers in the memory of one
            device, is empty, is shared with another layer, or has a value that is not finite.
    """
    for name, layer in layers.items():
        _check_own(name, layer)
        _check_numbers(name, layer.weight)
    places = {name: layer.weight.device for name, layer in layers.items()}
    first = next(iter(places))
    for name, place in places.items():
        if place != places[first]:
            raise UserError(
                f"weight '{name}' is on {place}, '{first}' on {places[first]}: move the model to one device, or name "
                "the layers of one device in `scope`"
            )
    _check_shared(model, layers)
    broken = [name for name, layer in layers.items() if not torch.isfinite(layer.weight.detach()).all()]
    if broken:
        raise UserError(f"a weight is not finite in {', '.join(broken)}: load the model again, or leave the layers out")


def _check_own(name: str, layer: nn.Linear) -> None:
    if isinstance(layer._parameters.get("weight"), nn.Parameter):
        return
    undoing = next(
        (UNDOING[type(hook).__module__] for hook in layer._forward_pre_hooks.values()
         if type(hook).__module__ in UNDOING), None,
    )  # fmt: skip
    if parametrize.is_parametrized(layer, "weight"):
        undoing = "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')"
    raise UserError(
        f"weight '{name}' is no parameter of its layer: each forward pass computes it anew, and zeros in it would be "
        f"lost. Undo that first: {undoing or 'make it a torch.nn.Parameter'}"
    )


def _check_numbers(name: str, weight: nn.Parameter) -> None:
    problem = None
    if is_lazy(weight):
        problem = "has no shape before the first forward pass: run one"
    elif type(weight.data) is not Tensor:
        problem = (
            f"is a {type(weight).__name__}: sharded and quantised weights cannot be pruned. Gather it into a tensor"
        )
    elif weight.is_meta:
        problem = "is on the meta device and has no values: load the model first"
    elif weight.layout != torch.strided:
        problem = f"has layout {weight.layout}: make it dense, with to_dense()"
    elif weight.dtype not in FLOATS:
        allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOATS)
        problem = f"is {str(weight.dtype).removeprefix('torch.')}: allowed are {allowed}"
    elif weight.dim() != 2:
        problem = f"has shape {list(weight.shape)}: a matrix is needed, [out, in]"
    elif not weight.numel():
        problem = f"is empty, {list(weight.shape)}: leave its layer out of `scope`"
    elif weight.is_inference():
        problem = "was made in inference mode, and has no gradient: load the model outside of torch.inference_mode()"
    elif any(size > 1 and not stride for size, stride in zip(weight.shape, weight.stride(), strict=True)):
        problem = "is expanded, so that several of its elements are one number: clone it"
    if problem:
        raise UserError(f"weight '{name}' {problem}")


def _check_shared(model: nn.Module, layers: Mapping[str, nn.Linear]) -> None:
    """Raise UserError if a weight's memory is that of another module's parameter or buffer, in scope or not."""
    by_storage: dict[int, list[tuple[str, nn.Module, Tensor]]] = {}
    for stored in _stored(model):
        by_storage.setdefault(stored[2].untyped_storage().data_ptr(), []).append(stored)
    for name, layer in layers.items():
        own = _span(layer.weight)
        for other, module, tensor in by_storage[layer.weight.untyped_storage().data_ptr()]:
            start, stop = _span(tensor)
            if module is not layer and start < own[1] and own[0] < stop:
                where = "" if other in layers else ", which is not in `scope`,"
                raise UserError(
                    f"weights '{name}' and '{other}'{where} share one weight: pruning one would prune both. Leave both "
                    "out of `scope`, or give the layer its own, nn.Parameter(weight.detach().clone())"
                )


def _span(tensor: Tensor) -> tuple[int, int]:
    """The bytes of its storage that a tensor lies in, from and to."""
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    start, size = tensor.storage_offset(), tensor.element_size()
    return start * size, (start + last + 1) * size


def _stored(model: nn.Module) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Each module's own parameters and buffers that lie in memory, with their full names."""
    for prefix, module in model.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is None or is_lazy(tensor) or type(tensor) not in PLAIN:
                continue
            if tensor.layout == torch.strided and not tensor.is_meta and tensor.numel():
                yield f"{prefix}.{name}".lstrip("."), module, tensor
