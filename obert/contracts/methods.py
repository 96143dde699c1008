"""What every pruning method must do, on a small network (`small_network.py`).

A method says itself what the checks need to know: settings that are cheap (`Method.small_settings`), steps of training
that its scores need (`steps_needed`), patterns that it prunes (`check_pattern`), whether weights return and whether
others are reset (`TrainingHook.returns` and `rewinds`), and whether it draws gradients (`gradient_examples`) or
forward passes without any (`forward_examples`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from obert.contracts.broken import hold
from obert.contracts.small_network import SmallNetwork
from obert.foundation.errors import UserError
from obert.masks.patterns import UNSTRUCTURED, Pattern
from obert.pruning import Method

PATTERNS = ("unstructured", "1x2", "1:2")  # that the small network's rows of six and eight weights divide into
SIZES = [8 * 6, 7 * 8]  # its prunable weights


def check_method(kind: type[Method], **settings: Any) -> None:
    """Run all checks on a method.

    Args:
        settings: of its fields, in the place of its `small_settings`.

    Raises:
        ContractBroken: a check failed; the text says what was found.
        pydantic.ValidationError: the settings are none of the method's.
    """
    method = kind(**(settings or kind.small_settings))
    for check in METHOD_CHECKS:
        check(method)


def prunes_exactly_what_it_is_asked_to(method: Method) -> None:
    """The number of zeros is that of the target, in every pattern that the method prunes, and nothing else changes."""
    for pattern in _patterns(method):
        network = SmallNetwork(pattern=pattern).train(method, method.steps_needed())
        others = {name: value.clone() for name, value in network.model[4].state_dict().items()}
        biases = {name: layer.bias.clone() for name, layer in network.layers.items()}
        sparsity = 0.7 * pattern.largest_sparsity
        network.prune(method, sparsity)
        wanted = _wanted(method, sparsity, pattern)
        hold(network.zeros() == wanted, f"pattern {pattern}: {network.zeros()} weights are zero, not {wanted}")
        if network.hook.rewinds:
            continue
        for name, value in network.model[4].state_dict().items():
            hold(torch.equal(value, others[name]), f"pruning changed the {name} of a layer that is not pruned")
        for name, layer in network.layers.items():
            hold(torch.equal(layer.bias, biases[name]), f"pruning changed the bias of the layer of '{name}'")


def leaves_pruned_weights_alone(method: Method) -> None:
    """A second event prunes more; what was pruned stays zero and pruned, unless the hook lets weights return."""
    network = SmallNetwork().prune(method, 0.5)
    before = dict(network.masks)
    network.prune(method, 0.8)
    pruned = sum(int((~mask).sum()) for mask in network.masks.values())
    hold(pruned == network.zeros() == _wanted(method, 0.8), f"masks prune {pruned}, {network.zeros()} weights are zero")
    for name, weight in network.weights().items():
        hold(bool((weight[~network.masks[name]] == 0).all()), f"a pruned weight of '{name}' is not zero")
        returned = bool((network.masks[name] & ~before[name]).any())
        hold(network.hook.returns or not returned, f"weights of '{name}' returned, and the hook says that none does")


def keeps_masks_through_training(method: Method) -> None:
    """Zeros are exact after every step and when training is over, other parameters train, and the hook leaves a plain
    model."""
    network = SmallNetwork().prune(method, 0.7)
    biases = {name: layer.bias.clone() for name, layer in network.layers.items()}
    network.train(method, 3)
    hold(network.zeros() == _wanted(method, 0.7), f"after training, {network.zeros()} weights are zero")
    for name, layer in network.layers.items():
        hold(not torch.equal(layer.bias, biases[name]), f"the bias of the layer of '{name}' did not train")
    network.hook.finish()
    hold(network.zeros() == _wanted(method, 0.7), f"when training is over, {network.zeros()} weights are zero")
    found, plain = set(network.model.state_dict()), set(SmallNetwork().model.state_dict())
    hold(found == plain, f"when training is over, the model has other tensors: {sorted(found ^ plain)}")


def goes_on_from_a_checkpoint(method: Method) -> None:
    """The model's state, the masks, and what the hook calls its state, make a fresh run prune as the saved one."""
    saved = SmallNetwork().prune(method, 0.5).train(method, 3)
    fresh = SmallNetwork().train(method, 0)
    fresh.model.load_state_dict(saved.model.state_dict())
    fresh.hook.load({name: value.clone() for name, value in saved.hook.state().items()})
    fresh.masks = saved.masks
    fresh.hook.impose(saved.masks)
    for network in (saved, fresh):
        network.train(method, 2).prune(method, 0.7)
    _same(saved, fresh, "a run that went on from a checkpoint")


def repeats_itself(method: Method) -> None:
    """The same network, data and seed give the same masks and weights."""
    _same(SmallNetwork().prune(method, 0.6), SmallNetwork().prune(method, 0.6), "the same run a second time")


def scores_every_weight(method: Method) -> None:
    """Scores are finite and of the weights' shapes, and making them changes no weight. The method draws gradients, or
    forward passes without them, if, and only if, it says so."""
    for pattern in _patterns(method):
        network = SmallNetwork(pattern=pattern).train(method, method.steps_needed())
        before = network.weights()
        scores = network.proposal(method).scores
        hold(set(scores) == set(before), f"scores are of {sorted(scores)}, the weights are {sorted(before)}")
        for name, weight in before.items():
            hold(scores[name].shape == weight.shape, f"scores of '{name}' have shape {list(scores[name].shape)}")
            hold(bool(torch.isfinite(scores[name]).all()), f"scores of '{name}' are not finite")
            hold(torch.equal(network.layers[name].weight, weight), f"scoring changed '{name}'")
        for name, gradients in (("gradient_examples", True), ("forward_examples", False)):
            said, drawn = getattr(method, name)(), network.evaluations[gradients]
            hold((said > 0) == (drawn > 0), f"{name}() is {said}, and {drawn} examples were drawn")


def keeps_what_an_update_needs_in_the_proposal(method: Method) -> None:
    """An update is that of its own proposal, though another was made in between; it is for weights that stay."""
    network, other = (SmallNetwork(seed).train(method, method.steps_needed()) for seed in (0, 1))
    pruned = {name: torch.arange(mask.numel()).view_as(mask) % 3 == 0 for name, mask in network.masks.items()}
    expected = network.proposal(method).update(pruned)
    proposal = network.proposal(method)
    other.proposal(method)
    found = proposal.update(pruned)
    hold(_equal(found.changes, expected.changes), "an update changed when another proposal was made before it")
    hold(found.loss_increase == expected.loss_increase, "a prediction changed when another proposal was made before it")
    for name, change in found.changes.items():
        hold(bool(torch.isfinite(change).all()), f"the update of '{name}' is not finite")
        hold(not change[pruned[name]].any(), f"the update of '{name}' moves weights that are pruned")


def prunes_in_the_library(method: Method) -> None:
    """`obert.prune` makes the masks and weights of an event on the same data. It refuses a method that learns its
    scores in training, before it changes anything."""
    network, expected = SmallNetwork(), SmallNetwork()
    before = network.weights()
    try:
        report = network.prune_in_the_library(method, 0.6)
    except UserError as error:
        hold(method.steps_needed() > 0, f"obert.prune refuses the method: {error}")
        hold(_equal(network.weights(), before), "obert.prune refuses the method after it has changed weights")
        return
    except Exception as error:  # whatever the method raises where no hook of its own has seen a training
        hold(False, f"obert.prune fails, and steps_needed() says 0: {type(error).__name__}: {error}")
    hold(method.steps_needed() == 0, "obert.prune prunes, and steps_needed() says that it takes training")
    expected.prune(method, 0.6)
    hold(_equal(report.masks, expected.masks), "obert.prune made other masks than an event on the same data")
    for name, weight in network.weights().items():
        same = torch.allclose(weight, expected.weights()[name], rtol=1e-4, atol=1e-5)  # batches are summed differently
        hold(same, f"obert.prune made other weights of '{name}' than an event on the same data")


def is_known_by_its_fields(method: Method) -> None:
    """A method that is written as JSON and read again is the same one."""
    again = type(method).model_validate(method.model_dump(mode="json"))
    hold(again == method, f"written and read again, {method!r} is {again!r}")


METHOD_CHECKS: tuple[Callable[[Method], None], ...] = (
    scores_every_weight,  # the others only make sense with scores
    prunes_exactly_what_it_is_asked_to,
    leaves_pruned_weights_alone,
    keeps_masks_through_training,
    goes_on_from_a_checkpoint,
    repeats_itself,
    keeps_what_an_update_needs_in_the_proposal,
    prunes_in_the_library,
    is_known_by_its_fields,
)


def _wanted(method: Method, sparsity: float, pattern: Pattern = UNSTRUCTURED) -> int:
    """How many weights are to be pruned: of all together, or of each tensor, as the method compares them."""
    sizes = SIZES if method.compares_within in ("uniform", "row") else [sum(SIZES)]
    return sum(pattern.groups_at(size, sparsity) for size in sizes) * pattern.zeros


def _patterns(method: Method) -> Iterator[Pattern]:
    """Those of the patterns that the method prunes; one at least."""
    refusals = []
    for pattern in map(Pattern.parse, PATTERNS):
        try:
            method.check_pattern(pattern)
        except UserError as error:
            refusals.append(str(error))
        else:
            yield pattern
    hold(len(refusals) < len(PATTERNS), f"the method prunes in no pattern: {'; '.join(refusals)}")


def _same(first: SmallNetwork, second: SmallNetwork, what: str) -> None:
    hold(_equal(first.masks, second.masks), f"{what} made other masks")
    hold(_equal(first.weights(), second.weights()), f"{what} made other weights")


def _equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)
