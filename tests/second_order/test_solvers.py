"""The three solvers against plain float64 algebra: Lagrange's conditions, one inverse a set, exhaustive search."""

from dataclasses import dataclass
from itertools import chain, combinations, product

import numpy as np
import pytest
import torch

from obert.foundation.errors import UserError
from obert.masks.patterns import Pattern
from obert.second_order.compiled import NOT_CHOSEN
from obert.second_order.fisher import Slab
from obert.second_order.solvers import scores, update

PATTERNS = ["unstructured", "1x4", "2:4", "1:4"]

pytestmark = pytest.mark.usefixtures("way")
EXACT = ["joint", "greedy"]
CLOSE = {"rtol": 1e-8, "atol": 1e-10}


@dataclass
class Blocks:
    """Blocks of a Fisher with nothing cut out of them, the weights, and which of them are kept."""

    pattern: Pattern
    fisher: np.ndarray
    weights: np.ndarray
    kept: np.ndarray

    @property
    def slab(self) -> Slab:
        """What the solvers are given: coordinates that are not kept are the identity's."""
        both = self.kept[:, :, None] & self.kept[:, None, :]
        fisher = np.where(both, self.fisher, np.eye(self.kept.shape[1]))
        return Slab(torch.tensor(fisher), torch.arange(self.kept.size).view(self.kept.shape), torch.tensor(self.kept))

    def scores(self, solver):
        found = scores(solver, self.slab, torch.tensor(self.weights), self.pattern, "w")
        return found[0].numpy(), found[1]

    def update(self, solver, pruned):
        """The solver's change after its scores, and the increase it predicts."""
        _, multipliers = self.scores(solver)
        arguments = self.slab, torch.tensor(self.weights), torch.tensor(pruned), multipliers, "w"
        change, increase = update(solver, *arguments)
        return change.numpy(), float(increase)

    def sets(self, block, group):
        """The sets that may be pruned in a group; none once the group is pruned."""
        members = range(group * self.pattern.size, (group + 1) * self.pattern.size)
        return map(list, combinations(members, self.pattern.zeros)) if self.kept[block, members].all() else iter(())

    @property
    def groups(self):
        return range(self.kept.shape[1] // self.pattern.size)


def random_blocks(pattern, partly=False, order=12, count=4, seed=0):
    """Blocks with strong correlations; `partly`: some groups were pruned before, in each block another number."""
    generator = np.random.default_rng(seed)
    pattern = Pattern.parse(pattern)
    factors = generator.normal(size=(count, order, order)) + 2 * generator.normal(size=(count, 1, order))
    fisher = factors @ factors.transpose(0, 2, 1) / order + 0.1 * np.eye(order)
    kept = np.ones((count, order), bool)
    for block in range(1, count) if partly else ():
        for group in generator.permutation(order // pattern.size)[:block]:
            kept[block, group * pattern.size + generator.permutation(pattern.size)[: pattern.zeros]] = False
    return Blocks(pattern, fisher, generator.normal(size=(count, order)) * kept, kept)


def cost(fisher, weights, kept, chosen):
    """1/2 w_Q' (F^-1[Q, Q])^-1 w_Q with F cut to the coordinates that are kept (paper, eq. 4)."""
    index = np.flatnonzero(kept)
    inverse = np.linalg.inv(fisher[np.ix_(index, index)])
    inside = np.searchsorted(index, chosen)
    return weights[chosen] @ np.linalg.solve(inverse[np.ix_(inside, inside)], weights[chosen]) / 2


def constrained_minimum(fisher, weights, kept, chosen):
    """The dw over kept coordinates that minimises 1/2 dw'F dw subject to dw_Q = -w_Q, by Lagrange's linear system."""
    index = np.flatnonzero(kept)
    constraint = (index[None, :] == np.asarray(chosen, int)[:, None]).astype(float)
    zeros = np.zeros((len(chosen), len(chosen)))
    system = np.block([[fisher[np.ix_(index, index)], constraint.T], [constraint, zeros]])
    solution = np.linalg.solve(system, np.concatenate([np.zeros(len(index)), -weights[chosen]]))
    change = np.zeros_like(weights)
    change[index] = solution[: len(index)]
    return change


def random_pruned(blocks, seed=0, most=None):
    """A set that the pattern lets be pruned, in each block another number of groups (none in the first)."""
    generator = np.random.default_rng(seed)
    pruned = np.zeros_like(blocks.kept)
    for block in range(len(pruned)):
        candidates = [list(sets) for group in blocks.groups if (sets := list(blocks.sets(block, group)))]
        order = generator.permutation(len(candidates))
        for group in order[: block if most is None else most]:
            pruned[block, candidates[group][generator.integers(len(candidates[group]))]] = True
    return pruned


def greedy(blocks, block):
    """Remove the cheapest set, everything inverted anew each time: scores, the sets in order, and their costs."""
    fisher, kept = blocks.fisher[block], blocks.kept[block].copy()
    result, removed, costs = np.full(len(kept), NOT_CHOSEN), [], []
    left, weights = set(blocks.groups), blocks.weights[block]
    while True:
        options = [(cost(fisher, weights, kept, chosen), g, chosen) for g in left for chosen in blocks.sets(block, g)]
        if not options:
            return result, removed, costs
        value, group, chosen = min(options)
        removed.append(chosen)
        costs.append(value)
        result[chosen] = max(costs)
        everything = [member for chosen in removed for member in chosen]
        change = constrained_minimum(fisher, blocks.weights[block], blocks.kept[block], everything)
        weights = blocks.weights[block] + change
        kept[chosen] = False
        left.remove(group)


@pytest.mark.parametrize("partly", [False, True], ids=["dense", "partly pruned"])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("solver", ["independent", "joint"])
def test_a_weights_score_is_the_cost_of_the_cheapest_set_with_it(solver, pattern, partly):
    blocks = random_blocks(pattern, partly)
    found, _ = blocks.scores(solver)
    for block, group in product(range(4), blocks.groups):
        costs = {
            tuple(chosen): cost(blocks.fisher[block], blocks.weights[block], blocks.kept[block], chosen)
            for chosen in blocks.sets(block, group)
        }
        for member in {member for chosen in costs for member in chosen}:
            expected = min(value for chosen, value in costs.items() if member in chosen)
            np.testing.assert_allclose(found[block, member], expected, rtol=1e-9)
        if costs:
            members = np.arange(group * blocks.pattern.size, (group + 1) * blocks.pattern.size)
            lowest = members[np.argsort(found[block, members], kind="stable")[: blocks.pattern.zeros]]
            assert tuple(sorted(lowest)) == min(costs, key=costs.get)


@pytest.mark.parametrize("partly", [False, True], ids=["dense", "partly pruned"])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("solver", EXACT)
def test_the_exact_update_solves_lagranges_conditions(solver, pattern, partly):
    blocks = random_blocks(pattern, partly)
    for seed in range(3):
        pruned = random_pruned(blocks, seed)
        change, increase = blocks.update(solver, pruned)
        total = 0
        for block in range(4):
            chosen = np.flatnonzero(pruned[block])
            best = constrained_minimum(blocks.fisher[block], blocks.weights[block], blocks.kept[block], chosen)
            np.testing.assert_allclose(change[block] - blocks.weights[block] * pruned[block], best, **CLOSE)
            assert not change[block][pruned[block] | ~blocks.kept[block]].any()
            total += best @ blocks.fisher[block] @ best / 2
        np.testing.assert_allclose(increase, total, rtol=1e-9)


@pytest.mark.parametrize("solver", EXACT)
def test_the_exact_update_holds_for_any_set_and_for_blocks_of_an_order_above_the_leafs(solver):
    blocks = random_blocks("unstructured", order=31, count=3)
    pruned = np.random.default_rng(1).random((3, 31)) < np.array([0.1, 0.9, 1.0])[:, None]
    change, _ = blocks.update(solver, pruned)
    for block in range(3):
        best = constrained_minimum(
            blocks.fisher[block], blocks.weights[block], blocks.kept[block], np.flatnonzero(pruned[block])
        )
        np.testing.assert_allclose(change[block] - blocks.weights[block] * pruned[block], best, **CLOSE)


def cheapest_of_groups(blocks, groups_of):
    """The cheapest set of some groups of each block, by the one-by-one ranking: [(block, set)]."""
    return [
        (block, min(blocks.sets(block, g), key=lambda q, b=block: cost(
            blocks.fisher[b], blocks.weights[b], blocks.kept[b], q)))
        for block in range(len(blocks.kept))
        for g in groups_of(block)
    ]  # fmt: skip


@pytest.mark.parametrize("partly", [False, True], ids=["dense", "partly pruned"])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("most", [1, 2])
def test_the_independent_update_sums_the_minima_of_single_groups(pattern, partly, most):
    blocks = random_blocks(pattern, partly)
    chosen = cheapest_of_groups(blocks, lambda b: [g for g in blocks.groups if any(blocks.sets(b, g))][:most])
    pruned, expected = np.zeros_like(blocks.kept), np.zeros_like(blocks.weights)
    for block, members in chosen:
        pruned[block, members] = True
        expected[block] += constrained_minimum(blocks.fisher[block], blocks.weights[block], blocks.kept[block], members)
    assert pruned.any(axis=1).sum() >= 3
    change, increase = blocks.update("independent", pruned)
    np.testing.assert_allclose(change, np.where(pruned, 0, expected), **CLOSE)
    moved = change - blocks.weights * pruned
    predicted = sum(m @ f @ m / 2 for m, f in zip(moved, blocks.fisher, strict=True))
    np.testing.assert_allclose(increase, predicted, rtol=1e-9)
    exact, least = blocks.update("joint", pruned)
    if most == 1:
        np.testing.assert_allclose(change, exact, **CLOSE)
        np.testing.assert_allclose(increase, least, rtol=1e-9)
    else:
        assert least < increase * (1 - 1e-6)


@pytest.mark.parametrize("partly", [False, True], ids=["dense", "partly pruned"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_greedy_scores_equal_removal_one_at_a_time_with_everything_inverted_anew(pattern, partly):
    blocks = random_blocks(pattern, partly)
    found, _ = blocks.scores("greedy")
    falls = 0
    for block in range(4):
        expected, removed, costs = greedy(blocks, block)
        falls += int((np.diff(costs) < 0).sum())
        np.testing.assert_allclose(found[block][blocks.kept[block]], expected[blocks.kept[block]], rtol=1e-5)
        # Whatever the cut, what is pruned is what greedy removes first: no ties, not even in float32.
        single = found[block].astype(np.float32)
        in_order = [single[chosen] for chosen in removed]
        assert all((scores == scores[0]).all() for scores in in_order)
        assert (np.diff([scores[0] for scores in in_order]) > 0).all()
    assert falls > 0 or pattern in ("1x4", "1:4")  # the running maximum has had something to do


def test_greedy_scores_hold_for_blocks_of_an_order_above_the_leafs():
    blocks = random_blocks("unstructured", order=29, count=2)
    found, _ = blocks.scores("greedy")
    for block in range(2):
        np.testing.assert_allclose(found[block], greedy(blocks, block)[0], rtol=1e-5)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_costs_of_greedy_steps_add_up_to_the_increase_the_exact_update_predicts(pattern):
    blocks = random_blocks(pattern, count=1)
    _, removed, costs = greedy(blocks, 0)
    for steps in range(1, len(removed) + 1):
        pruned = np.zeros((1, 12), bool)
        pruned[0, [member for chosen in removed[:steps] for member in chosen]] = True
        np.testing.assert_allclose(blocks.update("greedy", pruned)[1], sum(costs[:steps]), rtol=1e-9)


@pytest.mark.parametrize(("pattern", "order"), [("unstructured", 8), ("1x4", 16), ("2:4", 12), ("1:4", 12)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_greedy_is_never_below_the_best_of_all_sets_and_mostly_near_it(pattern, order, seed):
    blocks = random_blocks(pattern, order=order, count=1, seed=seed)
    fisher, weights, kept = blocks.fisher[0], blocks.weights[0], blocks.kept[0]
    found = blocks.scores("greedy")[0][0]
    ratios = []
    for count in range(1, len(blocks.groups) + 1):
        best = min(
            cost(fisher, weights, kept, sorted(chain(*choice)))
            for groups in combinations(blocks.groups, count)
            for choice in product(*(list(blocks.sets(0, group)) for group in groups))
        )
        pruned = np.zeros((1, order), bool)
        pruned[0, np.argsort(found, kind="stable")[: count * blocks.pattern.zeros]] = True
        ratios.append(blocks.update("greedy", pruned)[1] / best)
    assert min(ratios) >= 1 - 1e-9
    assert ratios[0] == pytest.approx(1, rel=1e-9)
    assert np.median(ratios) < 1.5


@pytest.mark.parametrize("solver", ["independent", *EXACT])
def test_blocks_of_one_are_optimal_brain_damage(solver):
    generator = np.random.default_rng(0)
    curvature, weights = generator.random((6, 1, 1)) + 0.1, generator.normal(size=(6, 1))
    blocks = Blocks(Pattern(), curvature, weights, np.ones((6, 1), bool))
    np.testing.assert_allclose(blocks.scores(solver)[0], weights**2 * curvature[:, 0] / 2, rtol=1e-12)
    pruned = np.arange(6)[:, None] % 2 == 0
    change, increase = blocks.update(solver, pruned)
    assert not change.any()
    np.testing.assert_allclose(increase, (weights**2 * curvature[:, 0] / 2)[pruned].sum(), rtol=1e-12)


@pytest.mark.parametrize("solver", ["independent", *EXACT])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_uncorrelated_weights_cost_their_own_squares_and_nothing_moves(solver, pattern):
    blocks = random_blocks(pattern)
    blocks.fisher = np.tile(3 * np.eye(12), (4, 1, 1))
    found, _ = blocks.scores(solver)
    squares = 1.5 * blocks.weights.reshape(4, -1, blocks.pattern.size) ** 2
    best = np.sort(squares, axis=2)[:, :, : blocks.pattern.zeros].sum(axis=2)
    np.testing.assert_allclose(found.reshape(squares.shape).min(axis=2), best, rtol=1e-12)
    change, _ = blocks.update(solver, random_pruned(blocks, most=2))
    np.testing.assert_allclose(change, 0, atol=1e-12)


@pytest.mark.parametrize("solver", ["independent", *EXACT])
def test_singular_fisher_names_the_tensor(solver):
    blocks = random_blocks("unstructured")
    blocks.fisher[2, 5, :] = blocks.fisher[2, :, 5] = 0
    with pytest.raises(UserError, match=r"'w'.*raise the dampening"):
        blocks.scores(solver)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_greedy_scores_stay_finite_over_a_range_of_curvatures_that_float64_cannot_hold(pattern):
    blocks = random_blocks(pattern)
    scale = np.logspace(-9, 9, 12)
    blocks.fisher = blocks.fisher * np.outer(scale, scale) + 1e-7 * np.eye(12)
    found, _ = blocks.scores("greedy")
    assert np.isfinite(found).all()
    chosen = (found < NOT_CHOSEN).reshape(4, -1, blocks.pattern.size).sum(axis=2)
    assert (chosen == blocks.pattern.zeros).all()
