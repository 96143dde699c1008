"""One-shot pruning of any model with linear layers, from Python: no configuration, no files, no tracking."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from obert import pruning
from obert.experiment.recipes import load_method
from obert.foundation import registry
from obert.foundation.errors import UserError, unknown_name
from obert.foundation.memory import peak_memory_mb
from obert.library.report import PrunedLayer, PruningReport
from obert.masks.counts import assert_sparsity, count_zeros
from obert.masks.holding import apply_masks
from obert.masks.patterns import Pattern
from obert.masks.selection import Masks, dense_masks
from obert.pruning._gradient_based import GradientBased

SETTLED = {"gradient_batch_size": "each of `batches` is one pass", "gradient_loss": "`loss` is the loss"}


def prune(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Callable[[nn.Module, Any], Tensor],
    sparsity: float = 0.8,
    method: str = "obert",
    pattern: str = "unstructured",
    scope: str | Sequence[str] | None = None,
    masks: Masks | None = None,
    **parameters: Any,
) -> PruningReport:
    """Prune a model's linear layers in one shot, globally: the cheapest weights of all layers together go.

    Gradients are taken in evaluation mode. Training modes, `requires_grad` flags and gradients are as before when it
    returns.

    Args:
        model: any module; its weights change in place.
        batches: whatever `loss` accepts, on the model's device. Read as far as gradients are needed and kept in
            memory. Each recomputation goes on with further batches, and begins again when there are none.
        loss: called with the model and a batch. Per-example gradients, the default, need one value an example, [batch],
            and the example as the first dimension of each layer's input; `gradients="minibatch"` takes any shape, and
            its mean is the loss.
        sparsity: fraction of the layers' weights to prune, in [0, 1).
        method: a file of `obert/pruning/`.
        pattern: `unstructured`, `RxC` such as `1x4`, or `N:M` such as `2:4`.
        scope: patterns of names of layers such as `encoder.*.dense`; by default every linear layer of the submodule
            named `encoder`, or of the whole model if it has none.
        masks: of an earlier `PruningReport`: weights it pruned stay pruned, and count towards `sparsity`.
        parameters: of the method, such as `solver`, `num_gradients`, `fisher_block_size`, `dampening`,
            `recomputations`. Its own defaults hold, but for gradients, which are taken per example, and for a default
            block size that the pattern does not divide, which is lowered to the next multiple (50 to 48 for `1x4`).

    Raises:
        UserError: a mistake in the arguments, before anything is computed; batches that are too few; a loss of the
            wrong shape or not finite.
    """
    started = time.perf_counter()
    chosen_pattern = _pattern(pattern, sparsity)
    chosen = _method(method, chosen_pattern, parameters)
    layers = _layers(model, scope)
    weights = {name: layer.weight.detach() for name, layer in layers.items()}
    chosen_pattern.by_layer({name: weight.shape for name, weight in weights.items()})
    masks = dense_masks(weights) if masks is None else _checked_masks(masks, weights, chosen_pattern, sparsity)
    data = _Batches(batches)
    per_example = getattr(chosen, "gradients", None) == "per_example"

    def losses(batch: Any) -> Tensor:
        return _checked_loss(loss(model, batch), per_example)

    with _evaluating(model, layers):
        if isinstance(chosen, GradientBased):
            size = _try_first(data, losses, layers, per_example)
            _check_enough(batches, data, losses, chosen, size)
        apply_masks(weights, masks)
        device = next(iter(weights.values())).device
        generator = torch.Generator().manual_seed(0)
        context = pruning.Context(layers, masks, data, losses, generator, chosen_pattern)
        masks = pruning.prune(chosen, context, sparsity)
    counted = assert_sparsity(count_zeros(weights, sparsity), "prune", chosen_pattern)
    increases = context.details.get("predicted_loss_increase", {})
    found = {
        name: PrunedLayer(layer.size, layer.zeros, int((~masks[name]).sum()) / layer.size, increases.get(name))
        for name, layer in counted.layers.items()
    }
    total = PrunedLayer(
        size=sum(layer.size for layer in found.values()),
        zeros=sum(layer.zeros for layer in found.values()),
        target=sparsity,
        predicted_loss_increase=sum(increases.values()) if increases else None,
    )
    elapsed = time.perf_counter() - started
    return PruningReport(
        method=method,
        parameters=chosen.model_dump(),
        pattern=str(chosen_pattern),
        layers=found,
        total=total,
        seconds={"gradients": data.seconds, "solving": elapsed - data.seconds, "total": elapsed},
        peak_memory_mb=peak_memory_mb(),
        peak_gpu_memory_mb=torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None,
        masks=masks,
    )


def hold_masks(model: nn.Module, masks: Masks, optimizer: torch.optim.Optimizer) -> RemovableHandle:
    """Keep pruned weights at zero: now, and after every step of an optimiser, whatever its momentum says.

    Args:
        model: the model that was pruned, on the device that it is trained on.
        masks: a report's.

    Returns:
        A handle; its `remove()` ends it.

    Raises:
        UserError: a mask without a weight of its shape in the model.
    """
    parameters = dict(model.named_parameters())
    held = {}
    for name, mask in masks.items():
        if name not in parameters:
            raise unknown_name("weight", name, parameters, "masks")
        if parameters[name].shape != mask.shape:
            raise UserError(f"masks: '{name}' is {list(mask.shape)}, the weight is {list(parameters[name].shape)}")
        held[name] = mask.to(parameters[name].device)
    weights = {name: parameters[name].detach() for name in held}
    apply_masks(weights, held)
    return optimizer.register_step_post_hook(lambda *_: apply_masks(weights, held))


class _Batches:
    """The caller's batches as data for gradients (`pruning.GradientData`): read as far as needed, and kept.

    Attributes:
        seconds: spent on gradients so far.
    """

    def __init__(self, batches: Iterable[Any]):
        self.seconds = 0.0
        self._source = iter(batches)
        self._read: list[Any] = []
        self._starts = {0: 0}  # by draw; each begins where the one before ended

    def __iter__(self) -> Iterator[Any]:
        for place in itertools.count():
            if not self._reaches(place):
                return
            yield self._read[place]

    def _reaches(self, place: int) -> bool:
        while len(self._read) <= place:
            try:
                self._read.append(next(self._source))
            except StopIteration:
                return False
        return True

    def examples(self, count: int, batch_size: int, draw: int) -> Iterator[Any]:
        """Batches from where the draw before ended, each at most once; the caller stops when it has enough."""
        began, start = time.perf_counter(), self._starts[draw]
        try:
            for place in itertools.count(start):
                self._reaches(place)
                if place - start >= len(self._read):
                    return
                self._starts[draw + 1] = place + 1
                yield self._read[place % len(self._read)]
        finally:
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            self.seconds += time.perf_counter() - began

    minibatches = examples


def _pattern(text: str, sparsity: float) -> Pattern:
    try:
        pattern = Pattern.parse(text)
    except ValueError as error:
        raise UserError(str(error)) from None
    if not 0 <= sparsity < 1:
        raise UserError(f"sparsity {sparsity}: it is a fraction, at least 0 and below 1")
    if sparsity > pattern.largest_sparsity:
        raise UserError(f"sparsity {sparsity:g} is more than pattern {pattern} allows ({pattern.largest_sparsity:g})")
    return pattern


def _method(name: str, pattern: Pattern, parameters: dict[str, Any]) -> pruning.Method:
    """The method with the library's defaults under the caller's parameters."""
    for parameter, reason in SETTLED.items():
        if parameter in parameters:
            raise UserError(f"{parameter} is for recipes: here, {reason}")
    fields = registry.load("pruning", name, "prune()").model_fields
    defaults: dict[str, Any] = {"gradients": "per_example"} if "gradients" in fields else {}
    if "fisher_block_size" in fields:
        size = fields["fisher_block_size"].default
        defaults["fisher_block_size"] = max(size - size % pattern.size, pattern.size)
    method = load_method(name, {**defaults, **parameters}, f"prune(method='{name}')")
    method.check_pattern(pattern)
    if method.steps_needed():
        raise UserError(f"method '{name}' learns its scores in training; prune() does not train. Use a gradual recipe")
    return method


def _layers(model: nn.Module, scope: str | Sequence[str] | None) -> dict[str, nn.Linear]:
    """The layers to prune, by the name of their weight, in model order."""
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if not linear:
        raise UserError(f"{type(model).__name__} has no nn.Linear layer to prune")
    if scope is None:
        encoders = (name for name, _ in model.named_modules() if name.rpartition(".")[2] == "encoder")
        prefix = f"{next(encoders, '')}.".lstrip(".")
        inside = [name for name in linear if name.startswith(prefix)]
        chosen = inside or list(linear)
    else:
        patterns = [scope] if isinstance(scope, str) else list(scope)
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in linear):
                raise unknown_name("layer", pattern, linear, "scope")
        chosen = [name for name in linear if any(fnmatchcase(name, pattern) for pattern in patterns)]
    owners: dict[int, str] = {}
    for name in chosen:
        first = owners.setdefault(id(linear[name].weight), name)
        if first != name:
            raise UserError(f"layers '{first}' and '{name}' share one weight: leave both out of `scope`")
    return {f"{name}.weight".lstrip("."): linear[name] for name in chosen}


def _checked_masks(masks: Masks, weights: Mapping[str, Tensor], pattern: Pattern, sparsity: float) -> Masks:
    if set(masks) != set(weights):
        differing = ", ".join(sorted(set(masks) ^ set(weights)))
        raise UserError(f"masks and the layers to prune differ: {differing}. Give the `scope` that the masks were for")
    pruned, groups = 0, []
    for name, weight in weights.items():
        if masks[name].shape != weight.shape:
            raise UserError(f"masks: '{name}' is {list(masks[name].shape)}, the weight is {list(weight.shape)}")
        counts = pattern.groups(~masks[name]).sum(dim=1)
        groups.append(bool(((counts == 0) | (counts == pattern.zeros)).all()))
        pruned += int(counts.sum())
    if not all(groups):
        raise UserError(f"masks: groups pruned in part do not go on as pattern {pattern}")
    size = sum(weight.numel() for weight in weights.values())
    if pattern.groups_at(size, sparsity) * pattern.zeros < pruned:
        raise UserError(f"sparsity {sparsity:g} is below that of the masks, {pruned / size:g}")
    return {name: masks[name].to(weight.device) for name, weight in weights.items()}


def _checked_loss(values: Tensor, per_example: bool) -> Tensor:
    if per_example and values.dim() != 1:
        raise UserError(
            f"loss: per-example gradients need one value an example, [batch], found shape {list(values.shape)}. Leave "
            "out the mean over the batch (reduction='none'), or use gradients='minibatch'"
        )
    if not torch.isfinite(values).all():
        raise UserError("loss: a value is not finite")
    if not values.requires_grad:
        raise UserError("loss: no gradient reaches the model from it; was it computed under no_grad, or detached?")
    return values


def _try_first(
    data: _Batches, losses: Callable[[Any], Tensor], layers: Mapping[str, nn.Linear], per_example: bool
) -> int:
    """Examples of the first batch. Finds what cannot work at the cost of one forward pass."""
    first = next(iter(data), None)
    if first is None:
        raise UserError("batches: there is none")
    rows: dict[str, int] = {}
    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: rows.update({name: len(inputs[0])}))
        for name, layer in layers.items()
    ]
    try:
        with torch.enable_grad():
            count = losses(first).numel()
    finally:
        for handle in handles:
            handle.remove()
    if per_example:
        for name in layers:
            if name not in rows:
                raise UserError(
                    f"layer of '{name}' is not called in the first batch, so its per-example gradients cannot be seen. "
                    "Use gradients='minibatch', or leave it out of `scope`"
                )
            if not count or rows[name] % count:
                raise UserError(
                    f"layer of '{name}' has inputs of first dimension {rows[name]} where the loss has {count} values: "
                    "per-example gradients need the example first. Or use gradients='minibatch'"
                )
    return count


def _check_enough(
    batches: Iterable[Any], data: _Batches, losses: Callable[[Any], Tensor], method: GradientBased, size: int
) -> None:
    """Raise UserError if a collection of known length has too few examples, judged by the first batch's size; only
    where it seems to are its examples counted. An iterator's end is met when the gradients are drawn."""
    try:
        unit, count = "batches", len(batches)
    except TypeError:
        return
    if method.gradients == "per_example":
        unit, count = "examples", count * size
        if count < method.num_gradients:
            with torch.enable_grad():
                count = sum(len(losses(batch)) for batch in data)
    if count < method.num_gradients:
        raise UserError(
            f"num_gradients {method.num_gradients}: there are {count} {unit}. Give more batches, or set num_gradients"
        )


@contextmanager
def _evaluating(model: nn.Module, layers: Mapping[str, nn.Linear]) -> Iterator[None]:
    """Inside the block the model is in evaluation mode, and the layers' weights require gradients."""
    modes = {module: module.training for module in model.modules()}
    frozen = [layer.weight for layer in layers.values() if not layer.weight.requires_grad]
    model.eval()
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for weight in frozen:
            weight.requires_grad_(False)
