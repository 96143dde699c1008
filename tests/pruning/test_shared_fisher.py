"""One accumulation for events that differ in dampening, solver and sparsity alone: the same masks and weights."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from obert.pruning.obert import OptimalBertSurgeon
from obert.pruning.shared import block_fisher
from obert.pruning.shared.fisher_sharing import SharedFisher, sharing
from obert.pruning.woodfisher import WoodFisher
from obert.second_order import fisher

DAMPENINGS, SPARSITIES, SOLVERS = (1e-2, 1e-4, 1e-6), (0.5, 0.8), ("independent", "greedy")


def method(**parameters):
    defaults = {"num_gradients": 48, "gradients": "per_example", "fisher_block_size": 12, "gradient_batch_size": 16}
    return OptimalBertSurgeon(**defaults | parameters)


def pruned(setting_of, parameters, sparsity, seed=0):
    """Masks and weights of a fresh model after one event."""
    setting = setting_of(seed).prune(method(**parameters), sparsity)
    return setting.masks, {name: layer.weight.detach() for name, layer in setting.layers.items()}


@pytest.fixture
def accumulations(monkeypatch):
    """The Fishers that were accumulated."""
    made = []

    class Counted(fisher.BlockFisher):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(block_fisher, "BlockFisher", Counted)
    return made


def test_a_shared_accumulation_prunes_bit_for_bit_as_separate_ones(setting_of, accumulations):
    kept = SharedFisher()
    family = [({"dampening": d, "solver": s}, t) for d, s, t in product(DAMPENINGS, SOLVERS, SPARSITIES)]
    for parameters, sparsity in family:
        with sharing(kept, "seed 0"):
            shared = pruned(setting_of, parameters, sparsity)
        assert len(accumulations) == 1
        alone = pruned(setting_of, parameters, sparsity)
        del accumulations[1:]
        for found, expected in zip(shared, alone, strict=True):
            assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_scores_are_made_once_for_all_sparsities(setting_of, monkeypatch):
    calls = []
    original = OptimalBertSurgeon._score
    monkeypatch.setattr(
        OptimalBertSurgeon, "_score", lambda self, *arguments: calls.append(1) or original(self, *arguments)
    )
    kept = SharedFisher()
    for dampening in DAMPENINGS:
        for sparsity in SPARSITIES:
            with sharing(kept, "seed 0"):
                pruned(setting_of, {"dampening": dampening}, sparsity)
    assert len(calls) == 2 * len(DAMPENINGS)  # of two layers


@pytest.mark.parametrize(
    "change",
    [{"num_gradients": 32}, {"fisher_block_size": 6}, {"gradients": "minibatch"}, {"gradient_batch_size": 8}],
)
def test_other_sums_are_not_shared(setting_of, accumulations, change):
    kept = SharedFisher()
    for count, parameters in enumerate(({}, change, {}), start=1):
        with sharing(kept, "seed 0"):
            found = pruned(setting_of, parameters, 0.5)
        assert len(accumulations) == count
    expected = pruned(setting_of, {}, 0.5)
    assert all(torch.equal(found[1][name], expected[1][name]) for name in expected[1])


def test_another_origin_is_not_shared(setting_of, accumulations):
    kept = SharedFisher()
    for seed in (0, 1):
        with sharing(kept, f"seed {seed}"):
            found = pruned(setting_of, {}, 0.5, seed)
    assert len(accumulations) == 2
    expected = pruned(setting_of, {}, 0.5, seed=1)
    assert all(torch.equal(found[0][name], expected[0][name]) for name in expected[0])


def test_later_sub_steps_and_events_take_their_own_gradients(setting_of, accumulations):
    kept = SharedFisher()
    with sharing(kept, "seed 0"):
        setting = setting_of().prune(method(recomputations=2), 0.4)
        setting.prune(method(), 0.7)
    assert len(accumulations) == 3
    expected = setting_of().prune(method(recomputations=2), 0.4).prune(method(), 0.7)
    assert all(torch.equal(setting.masks[name], expected.masks[name]) for name in expected.masks)


@pytest.mark.parametrize("parameters", [{"fisher_memory": 1e-5}, {"accumulation": "recursion", "dampening": 1e-2}])
def test_what_cannot_be_shared_is_not(setting_of, parameters):
    kept = SharedFisher()
    with sharing(kept, "seed 0"):
        found = pruned(setting_of, parameters, 0.5)
    assert kept.fisher is None
    expected = pruned(setting_of, parameters, 0.5)
    assert all(torch.equal(found[0][name], expected[0][name]) for name in expected[0])


class Scaled(OptimalBertSurgeon):
    """Has a field of its own that changes the gradients."""

    gradient_scale: float = 1.0

    def draw(self, context, names):
        for name, gradients in super().draw(context, names):
            yield name, replace(gradients, output_gradients=gradients.output_gradients * self.gradient_scale)


class Indifferent(OptimalBertSurgeon):
    """Says of its own field that the sums do not depend on it."""

    used_elsewhere = OptimalBertSurgeon.used_elsewhere | {"remark"}
    remark: str = ""


def test_a_new_field_makes_another_sum_until_the_method_says_that_it_does_not(setting_of, accumulations):
    settings = method().model_dump()
    for family, field, values, expected in (
        (Scaled, "gradient_scale", (1.0, 2.0, 2.0), 2),
        (Indifferent, "remark", ("first", "second", "third"), 1),
    ):
        kept = SharedFisher()
        del accumulations[:]
        for value in values:
            with sharing(kept, "seed 0"):
                setting_of().prune(family(**settings, **{field: value}), 0.5)
        assert len(accumulations) == expected, family


def test_another_class_is_not_shared_though_its_fields_are_the_same(setting_of, accumulations):
    """It may draw other gradients."""
    kept = SharedFisher()
    for family in (OptimalBertSurgeon, Scaled):
        with sharing(kept, "seed 0"):
            setting_of().prune(family(**method().model_dump()), 0.5)
    assert len(accumulations) == 2


@pytest.mark.parametrize("family", [OptimalBertSurgeon, WoodFisher])
def test_the_fields_left_out_of_the_identity_are_fields_and_change_no_sum(setting_of, family):
    """Each is changed, and the first step's Fisher stays the same to the last bit."""
    left_out = family.solved_with | family.used_elsewhere
    assert left_out <= set(family.model_fields)
    base = family(num_gradients=8, fisher_block_size=12, gradient_batch_size=4)
    context = setting_of().context()
    expected = base.estimate(context, list(context.masks))
    other = {"dampening": 0.5, "solver": "joint", "recomputations": 3, "recomputation_spacing": "geometric"}
    other |= {"scale_prune_update": 0.25}
    for name in left_out:
        found = base.model_copy(update={name: other[name]}).estimate(context, list(context.masks))
        for weight in context.masks:
            assert torch.equal(found._blocks[weight], expected._blocks[weight]), name
