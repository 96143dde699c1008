"""One accumulation for events that differ in dampening, solver and sparsity alone: the same masks and weights."""

from itertools import product

import pytest
import torch

from obert.pruning import _block_fisher
from obert.pruning._block_fisher import SharedFisher, sharing
from obert.pruning.obert import OptimalBertSurgeon
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

    monkeypatch.setattr(_block_fisher, "BlockFisher", Counted)
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
