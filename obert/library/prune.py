"""One-shot pruning of any model with linear layers, from Python: no configuration, no files, no tracking."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any, get_args

import torch
from torch import Tensor, nn

from obert.experiment.recipes import load_method
from obert.foundation import registry
from obert.foundation.errors import UserError
from obert.foundation.memory import peak_memory_mb
from obert.library.batches import Batches, check_enough, checked_loss, takes_each_example, try_first
from obert.library.inspection import check_layers
from obert.library.layers import all_or_nothing, checked_masks, evaluating, layers_of
from obert.library.report import PrunedLayer, PruningReport
from obert.library.used_weights import check_pruned, used_weights
from obert.masks.counts import assert_sparsity, count_zeros
from obert.masks.holding import apply_masks
from obert.masks.patterns import Pattern
from obert.masks.selection import Masks, dense_masks
from obert.pruning import Context, Method, TrainingHook, prune_event

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

    A method that compares weights within their layer or row prunes each of these to the sparsity.

    Gradients are taken in evaluation mode. Training modes, `requires_grad` flags and gradients are as before when it
    returns; after an error the weights are too. Zeros are counted in the weights that a forward pass on the first batch
    uses, if there is one. Per-example gradients of the first batch are compared with autograd's own.

    Args:
        model: any module; its weights change in place.
        batches: whatever `loss` accepts, on the model's device. Read as far as gradients are needed and kept in
            memory. Each recomputation goes on with further batches, and begins again when there are none.
        loss: called with the model and a batch. Per-example gradients, the default, need one value an example, [batch],
            and the example as the first dimension of each layer's input; `gradients="minibatch"` takes any shape, and
            its mean is the loss.
        sparsity: fraction of the layers' weights to prune, in [0, 1).
        method: its name in the registry, e.g. a file of `obert/pruning/`.
        pattern: `unstructured`, `RxC` such as `1x4`, or `N:M` such as `2:4`.
        scope: patterns of names of layers such as `encoder.*.dense`; by default the linear layers of the encoder's
            layers, of a model of Transformers that is understood (`obert.models.architecture`); of another, every one
            of the submodule named `encoder`, or of the whole model if it has none.
        masks: of an earlier `PruningReport`: weights it pruned stay pruned, and count towards `sparsity`.
        parameters: of the method, such as `solver`, `num_gradients`, `fisher_block_size`, `dampening`,
            `recomputations`. Its own defaults hold, but for gradients, which are taken per example where the method
            knows these, and for a default block size that the pattern does not divide, which is lowered to the next
            multiple (50 to 48 for `1x4`).

    Raises:
        UserError: a mistake in the arguments, before anything is computed; a layer whose weight is no parameter of its
            own with finite values, or is shared; batches that are too few; a loss that is no tensor, has the wrong
            shape or is not finite; a layer whose per-example gradients cannot be had from its inputs and outputs; a
            forward pass that uses other weights than those that were pruned.
    """
    started = time.perf_counter()
    if torch.is_inference_mode_enabled():
        raise UserError("prune() is called in torch.inference_mode(), where there are no gradients: call it outside")
    sparsity = _sparsity(sparsity)
    chosen_pattern = _pattern(_text("pattern", pattern), sparsity)
    chosen = _method(_text("method", method), chosen_pattern, parameters)
    layers = layers_of(model, scope)
    check_layers(model, layers)
    weights = {name: layer.weight.detach() for name, layer in layers.items()}
    chosen_pattern.by_layer({name: weight.shape for name, weight in weights.items()})
    masks = dense_masks(weights) if masks is None else checked_masks(masks, weights, chosen_pattern, sparsity)
    data = Batches(batches)
    draws = chosen.gradient_examples() + chosen.forward_examples() > 0
    if not callable(loss) and (draws or loss is not None):
        raise UserError(f"loss: found {loss!r}; give a function of the model and a batch")

    def losses(batch: Any) -> Tensor:
        return checked_loss(loss(model, batch), takes_each_example(chosen))

    with evaluating(model, layers), all_or_nothing(weights):
        if draws:
            size = try_first(data, losses, layers, chosen)
            check_enough(batches, data, losses, chosen, size)
        apply_masks(weights, masks)
        device = next(iter(weights.values())).device
        generator = torch.Generator().manual_seed(0)
        context = Context(TrainingHook(layers), masks, data, losses, generator, chosen_pattern, model=model)
        event = prune_event(chosen, context, sparsity)
        masks, increases = event.masks, event.predicted_loss_increase
        used = used_weights(layers, lambda: _forward(model, loss, data))
        check_pruned(layers, used, masks)
    distribution = chosen.compares_within or "global"
    counted = assert_sparsity(count_zeros(used, sparsity), "prune", chosen_pattern, distribution)
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
    drawing = "forward passes" if chosen.forward_examples() else "gradients"
    return PruningReport(
        method=method,
        parameters=chosen.model_dump(),
        pattern=str(chosen_pattern),
        layers=found,
        total=total,
        seconds={drawing: data.seconds, "solving": elapsed - data.seconds, "total": elapsed},
        peak_memory_mb=peak_memory_mb(),
        peak_gpu_memory_mb=torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None,
        masks=masks,
    )


def _forward(model: nn.Module, loss: Callable[[nn.Module, Any], Tensor] | None, data: Batches) -> None:
    """One forward pass, if there is anything to make it with."""
    batch = None if loss is None else data.first()
    if batch is not None:
        loss(model, batch)


def _text(argument: str, value: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{argument}: found {value!r}; give a name, as text")
    return value


def _sparsity(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UserError(f"sparsity {value!r} is a {type(value).__name__}: give a number, at least 0 and below 1")
    if not 0 <= value < 1:
        raise UserError(f"sparsity {value}: it is a fraction, at least 0 and below 1")
    return float(value)


def _pattern(text: str, sparsity: float) -> Pattern:
    try:
        pattern = Pattern.parse(text)
    except ValueError as error:
        raise UserError(str(error)) from None
    if sparsity > pattern.largest_sparsity:
        raise UserError(f"sparsity {sparsity:g} is more than pattern {pattern} allows ({pattern.largest_sparsity:g})")
    return pattern


def _method(name: str, pattern: Pattern, parameters: dict[str, Any]) -> Method:
    """The method with the library's defaults under the caller's parameters."""
    for parameter, reason in SETTLED.items():
        if parameter in parameters:
            raise UserError(f"{parameter} is for recipes: here, {reason}")
    fields = registry.load("pruning", name, "prune()").model_fields
    takes_examples = "gradients" in fields and "per_example" in get_args(fields["gradients"].annotation)
    defaults: dict[str, Any] = {"gradients": "per_example"} if takes_examples else {}
    if "fisher_block_size" in fields:
        size = fields["fisher_block_size"].default
        defaults["fisher_block_size"] = max(size - size % pattern.size, pattern.size)
    method = load_method(name, {**defaults, **parameters}, f"prune(method='{name}')")
    method.check_pattern(pattern)
    if method.steps_needed():
        raise UserError(f"method '{name}' learns its scores in training; prune() does not train. Use a gradual recipe")
    return method
