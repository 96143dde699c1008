"""Optimal Brain Compression against exhaustive search and against removal with everything fitted anew."""

from itertools import combinations

import numpy as np
import pytest
import torch

from obert.foundation.errors import UserError
from obert.masks.patterns import Pattern
from obert.pruning import prune_event
from obert.pruning.magnitude import Magnitude
from obert.pruning.optimal_brain_compression import OptimalBrainCompression
from obert.pruning.sparsegpt import SparseGPT
from obert.pruning.wanda import Wanda
from obert.second_order import rows

CLOSE = {"rtol": 1e-6, "atol": 1e-9}


def best(tokens, row, pruned):
    """The weights with the least squared error of the outputs where some are zero, and the mean squared error."""
    free = ~np.asarray(pruned)
    result = np.zeros_like(row)
    if free.any():
        result[free] = np.linalg.lstsq(tokens[:, free], tokens @ row, rcond=None)[0]
    return result, ((tokens @ (result - row)) ** 2).mean()


def greedy(tokens, row, kept, groups, zeros):
    """Each group's set in the order of removal, with what it adds to the error."""
    removals, pruned = [], ~kept
    left = [group for group in groups if kept[group].all()]
    error = best(tokens, row, pruned)[1]
    while left:
        found = []
        for group in left:
            for chosen in zeros(group):
                trial = pruned.copy()
                trial[list(chosen)] = True
                found.append((best(tokens, row, trial)[1], group, chosen))
        now, group, chosen = min(found, key=lambda item: item[0])
        left = [other for other in left if other != group]
        pruned[list(chosen)] = True
        removals.append((chosen, now - error))
        error = now
    return removals


def merged(removals, count):
    """Again and again the row whose next removal costs least. True for what is pruned, by row."""
    taken = [0] * len(removals)
    for _ in range(count):
        heads = [(own[n][1], i) for i, (own, n) in enumerate(zip(removals, taken, strict=True)) if n < len(own)]
        taken[min(heads)[1]] += 1
    return [{j for chosen, _ in own[:n] for j in chosen} for own, n in zip(removals, taken, strict=True)]


def test_the_first_removal_is_the_best_of_all_single_weights_with_its_best_update(layer_on, correlated):
    weight, inputs = correlated(5, 7)
    tokens = inputs.flatten(0, 1).numpy()
    trials = {(row, j): best(tokens, weight[row].numpy(), np.arange(7) == j) for row in range(5) for j in range(7)}
    row, j = min(trials, key=lambda place: trials[place][1])
    context = layer_on(weight, inputs, sparsity=1 / 35)
    with torch.no_grad():
        scores = OptimalBrainCompression(examples=16).propose(context).scores["w"]
    np.testing.assert_allclose(scores[row, j], trials[row, j][1] / 2, rtol=1e-6)
    masks = prune_event(OptimalBrainCompression(examples=16), context, 1 / 35).masks["w"]
    assert (~masks).nonzero().tolist() == [[row, j]]
    expected = weight.numpy().copy()
    expected[row] = trials[row, j][0]
    np.testing.assert_allclose(context.weights["w"], expected, **CLOSE)


@pytest.mark.parametrize("partly", [False, True], ids=["dense", "partly pruned"])
@pytest.mark.parametrize("pattern", ["unstructured", "1x2", "2:4"])
@pytest.mark.parametrize("limit", [2, 128])
def test_rows_lose_weights_in_the_order_of_the_lowest_next_cost(
    layer_on, correlated, monkeypatch, pattern, partly, limit
):
    """However often what is left of the inverses is written anew, and however few rows go at a time."""
    monkeypatch.setattr(rows, "LIMIT", limit)
    monkeypatch.setattr(rows, "BYTES", {"cpu": 8 * 8 * 8 * 2})
    weight, inputs = correlated(5, 8, seed=2)
    tokens, groups = inputs.flatten(0, 1).numpy(), Pattern.parse(pattern)
    places = [list(range(start, start + groups.size)) for start in range(0, 8, groups.size)]
    kept = torch.ones(5, 8, dtype=torch.bool)
    if partly:
        for row, group, zeros in ((0, 0, slice(0, groups.zeros)), (2, 1, slice(groups.size - groups.zeros, None))):
            kept[row, places[group][zeros]] = False
        weight = torch.stack(
            [torch.from_numpy(best(tokens, *pair)[0]) for pair in zip(weight.numpy(), ~kept.numpy(), strict=True)]
        )
    start = weight.numpy().copy()

    def sets(group):
        return combinations(group, groups.zeros)

    removals = [greedy(tokens, start[i], kept[i].numpy(), places, sets) for i in range(5)]
    done = int((~kept).sum()) // groups.zeros
    for count in range(done, sum(map(len, removals)) + done, 3):
        sparsity = min(count * groups.zeros / 40, 0.99)
        context = layer_on(torch.from_numpy(start), inputs, sparsity=sparsity, pattern=groups, masks={"w": kept})
        masks = prune_event(OptimalBrainCompression(examples=16), context, sparsity).masks["w"]
        expected = merged(removals, round(sparsity * 40 / groups.zeros) - done)
        found = [set(np.flatnonzero(kept[i].numpy() & ~masks[i].numpy())) for i in range(5)]
        assert found == expected
        for i in range(5):
            np.testing.assert_allclose(
                context.weights["w"][i], best(tokens, start[i], ~masks[i].numpy())[0], rtol=1e-5, atol=1e-7
            )


def test_each_rival_leaves_less_error_than_the_simpler_one(layer_on, correlated):
    """Of the layer's output, at equal sparsity of the matrix."""
    errors = []
    for method in (OptimalBrainCompression(examples=16), SparseGPT(examples=16), Wanda(examples=16), Magnitude()):
        torch.manual_seed(0)
        total = 0.0
        for seed in range(5):
            weight, inputs = correlated(12, 24, seed)
            inputs = inputs * torch.linspace(0.5, 2, 24, dtype=torch.float64)[torch.randperm(24)]
            context = layer_on(weight, inputs)
            prune_event(method, context, 0.5)
            total += float(((inputs @ (context.weights["w"] - weight).T) ** 2).mean())
        errors.append(total)
    assert errors == sorted(errors)
    assert errors[0] < 0.9 * errors[1] < 0.9**2 * errors[2]


def test_inputs_that_are_always_zero_cost_nothing(layer_on, correlated):
    weight, inputs = correlated(4, 8)
    inputs[..., 2] = 0
    weight[:, 2] = 9
    context = layer_on(weight, inputs, sparsity=0.125)
    masks = prune_event(OptimalBrainCompression(examples=16), context, 0.125).masks["w"]
    assert (~masks).nonzero().tolist() == [[row, 2] for row in range(4)]
    np.testing.assert_allclose(context.weights["w"][:, :2], weight[:, :2], **CLOSE)


def test_a_hessian_without_an_inverse_is_told(layer_on, correlated):
    weight, inputs = correlated(2, 6)
    inputs[..., 1] = inputs[..., 0]
    with pytest.raises(UserError, match=r"layer of 'w' are too few or too much alike.*raise the dampening"):
        prune_event(OptimalBrainCompression(examples=16), layer_on(weight, inputs), 0.5)
