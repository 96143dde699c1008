"""One-shot pruning of any model with linear layers, from Python: no configuration, no files, no tracking."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from obert.foundation.errors import UserError
from obert.library.batches import Batches, check_draws, forward, losses_of
from obert.library.choices import checked_pattern, checked_sparsity, chosen_method
from obert.library.inspection import check_layers
from obert.library.layers import all_or_nothing, layers_of, left_out, masks_at_start, with_gradients
from obert.library.report import PruningReport, report_on
from obert.library.used_weights import check_pruned, used_weights
from obert.masks.holding import apply_masks
from obert.masks.selection import Masks
from obert.pruning import Context, Method, TrainingHook, prune_event
from obert.training.masked import evaluating


def prune(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Callable[[nn.Module, Any], Tensor],
    sparsity: float = 0.8,
    method: str | Method = "obert",
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
        method: its name in the registry, e.g. a file of `obert/pruning/`; or an object of a class of your own.
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
    sparsity = checked_sparsity(sparsity)
    chosen_pattern = checked_pattern(pattern, sparsity)
    name, chosen = chosen_method(method, chosen_pattern, parameters, "prune")
    if chosen.steps_needed():
        raise UserError(f"method '{name}' learns its scores in training; prune() does not train. Use a GradualPruner")
    layers = layers_of(model, scope)
    check_layers(model, layers)
    weights = {name: layer.weight.detach() for name, layer in layers.items()}
    chosen_pattern.by_layer({name: weight.shape for name, weight in weights.items()})
    distribution = chosen.compares_within or "global"
    masks, kept_zeros = masks_at_start(masks, weights, chosen_pattern, sparsity, distribution)
    data, losses = Batches(batches), losses_of(model, loss, chosen)
    with evaluating(model), with_gradients(layers), all_or_nothing(weights):
        check_draws(batches, data, losses, layers, chosen)
        apply_masks(weights, masks)
        generator = torch.Generator().manual_seed(0)
        context = Context(TrainingHook(layers), masks, data, losses, generator, chosen_pattern, model=model)
        event = prune_event(chosen, context, sparsity)
        used = used_weights(layers, lambda: forward(model, loss, data))
        check_pruned(layers, used, event.masks)
    return report_on(
        name,
        chosen,
        chosen_pattern,
        distribution,
        used,
        event.masks,
        sparsity,
        event.predicted_loss_increase,
        left_out(model, layers),
        kept_zeros,
        (data.seconds, time.perf_counter() - started),
    )
