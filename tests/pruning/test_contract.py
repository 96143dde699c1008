"""What every pruning method must do, run over the registry; a new file is tested with no new test.

The contract itself is tested on methods that break it.
"""

import pytest
import torch
from pydantic import ValidationError

from obert.contracts import METHOD_CHECKS, ContractBroken, check_method
from obert.foundation import registry
from obert.foundation.errors import UserError
from obert.pruning import Method, Proposal, TrainingHook, Update
from obert.pruning.magnitude import Magnitude
from obert.pruning.shared.gradient_based import GradientBased


@pytest.mark.parametrize("check", METHOD_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", registry.names("pruning"))
def test_every_method(name, check):
    kind = registry.load("pruning", name)
    check(kind(**kind.small_settings))


def test_every_check_is_in_the_list():
    from obert.contracts import methods

    defined = {name for name, value in vars(methods).items() if callable(value) and not name.startswith("_")}
    annotated = {name for name in defined if getattr(vars(methods)[name], "__annotations__", {}).get("method")}
    assert {check.__name__ for check in METHOD_CHECKS} == annotated


class _Forgetful(TrainingHook):
    def after_step(self, masks, at_target):
        """Does not hold the zeros."""


class Forgetful(Magnitude):
    def training_hook(self, network, layers, pattern=None):
        return _Forgetful(layers)


class WrongShape(Method):
    def score(self, context):
        return {name: weight.abs().flatten() for name, weight in context.weights.items()}


class NotFinite(Method):
    def score(self, context):
        return {name: weight / 0 for name, weight in context.weights.items()}


class Unseeded(Method):
    def score(self, context):
        return {name: torch.rand(weight.shape) for name, weight in context.weights.items()}


class Touching(Magnitude):
    """Zeroes a bias while it scores."""

    def score(self, context):
        next(iter(context.layers.values())).bias.data.zero_()
        return super().score(context)


class Silent(GradientBased):
    """Draws gradients and does not say so."""

    small_settings = {"num_gradients": 4, "gradient_batch_size": 2}

    def score(self, context):
        scores = {name: torch.zeros_like(weight) for name, weight in context.weights.items()}
        for name, gradients in self.draw(context, context.layers):
            scores[name] += gradients.values[0].abs()
        return scores

    def gradient_examples(self):
        return 0


class ForwardOnly(Magnitude):
    """Makes a forward pass without a gradient, and says that it takes gradients."""

    def score(self, context):
        context.losses(next(iter(context.data.examples(8, 8, context.draw))))
        return super().score(context)

    def gradient_examples(self):
        return 8


class _MovesThePruned(Proposal):
    def update(self, pruned):
        return Update({name: torch.ones_like(scores) for name, scores in self.scores.items()})


class MovesThePruned(Magnitude):
    def propose(self, context):
        return _MovesThePruned(self.score(context))


STATE = {}


class _Stateful(Proposal):
    def update(self, pruned):
        return Update({name: 0.1 * value * ~pruned[name] for name, value in STATE.items()})


class Stateful(Magnitude):
    """Keeps what its update needs outside the proposal."""

    def propose(self, context):
        STATE.update(self.score(context))
        return _Stateful(self.score(context))


class _Counting(TrainingHook):
    events = 1.0


class NeedsItsHook(Magnitude):
    """Looks at what only its own hook has, without saying that it takes training."""

    def training_hook(self, network, layers, pattern=None):
        return _Counting(layers)

    def score(self, context):
        return {name: scores * context.hook.events for name, scores in super().score(context).items()}


class OnlyInTheHarness(Magnitude):
    """Prunes the largest weights for a caller of the library."""

    def score(self, context):
        scores = super().score(context)
        return scores if type(context.data).__name__ == "Indices" else {n: -value for n, value in scores.items()}


class PrunesNothing(Magnitude):
    def check_pattern(self, pattern):
        raise UserError("not this one")


class UnknownSettings(Magnitude):
    small_settings = {"no_such_field": 1}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Forgetful, "after training, .* weights are zero"),
        (WrongShape, r"scores of '0\.weight' have shape \[48\]"),
        (NotFinite, r"scores of '0\.weight' are not finite"),
        (Unseeded, "the same run a second time made other masks|a checkpoint made other masks"),
        (Touching, "pruning changed the bias of the layer of '0.weight'"),
        (Silent, r"gradient_examples\(\) is 0, and 8 examples were drawn"),
        (ForwardOnly, r"gradient_examples\(\) is 8, and 0 examples were drawn"),
        (MovesThePruned, "moves weights that are pruned"),
        (Stateful, "an update changed when another proposal was made before it"),
        (NeedsItsHook, "obert.prune fails, and steps_needed.. says 0: AttributeError: .*events"),
        (OnlyInTheHarness, "obert.prune made other masks than an event on the same data"),
        (PrunesNothing, "the method prunes in no pattern: not this one"),
        (UnknownSettings, "no_such_field"),
        (Method, "defines neither 'score' nor 'propose'"),
    ],
)
def test_a_broken_method_is_told_what_is_wrong(kind, message):
    with pytest.raises((ContractBroken, ValidationError, NotImplementedError), match=message):
        check_method(kind)


def test_settings_of_ones_own():
    check_method(registry.load("pruning", "obert"), num_gradients=16, fisher_block_size=8, gradient_batch_size=8)
