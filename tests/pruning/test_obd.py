"""Optimal Brain Damage against its formula, by hand and by brute force."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import nn

from obert.masks.patterns import Pattern
from obert.masks.selection import dense_masks, global_masks
from obert.pruning import Context, TrainingHook, prune_event
from obert.pruning.obd import OptimalBrainDamage
from obert.pruning.obert import OptimalBertSurgeon
from obert.second_order.fisher import GRADIENT_SLAB_BYTES


def linear(weight, inputs):
    """A layer whose loss is its output, so that the gradient of example i is its input."""
    layer = nn.Linear(weight.shape[1], 1, bias=False)
    layer.weight.data = weight

    class Data:
        def examples(self, count, batch_size, draw):
            return iter(torch.arange(count).split(batch_size))

        def minibatches(self, count, batch_size, draw):
            return iter(torch.arange(count * batch_size).split(batch_size))

    return Context(
        TrainingHook({"w": layer}),
        dense_masks({"w": weight}),
        Data(),
        lambda i: layer(inputs[i])[:, 0, 0],
        torch.Generator(),
    )


def test_by_hand():
    """Gradients (1, 0), (3, 0), (1, 2), (1, 0), so mean squares 3 and 1, w = (2, -4): 4 * 3.5 / 2 and 16 * 1.5 / 2."""
    inputs = torch.tensor([[1.0, 0], [3, 0], [1, 2], [1, 0]])[:, None]
    context = linear(torch.tensor([[2.0, -4.0]]), inputs)
    method = OptimalBrainDamage(num_gradients=4, gradient_batch_size=3, dampening=0.5)
    assert method.score(context)["w"].tolist() == [[7.0, 12.0]]
    assert not method.propose(context).update(context.masks).changes
    # Means of two: (2, 0) and (1, 1), of mean squares 2.5 and 0.5.
    means = OptimalBrainDamage(num_gradients=2, gradient_batch_size=2, gradients="minibatch")
    assert means.score(context)["w"].tolist() == [[5.0, 4.0]]


@pytest.mark.parametrize("pattern", ["1x4", "2:4", "1:4"])
def test_groups_cost_the_sum_over_their_cheapest_set(pattern):
    generator = torch.Generator().manual_seed(0)
    weight, groups = torch.randn(1, 24, generator=generator), Pattern.parse(pattern)
    context = replace(linear(weight, torch.randn(8, 1, 24, generator=generator)), pattern=groups)
    method = OptimalBrainDamage(num_gradients=8, dampening=0.1)
    single = method.score(replace(context, pattern=Pattern()))["w"].flatten().tolist()
    scores = method.score(context)["w"].flatten().tolist()
    totals = []
    for start in range(0, 24, 4):
        sets = list(combinations(range(start, start + 4), groups.zeros))
        for i in range(start, start + 4):
            assert scores[i] == pytest.approx(min(sum(single[j] for j in chosen) for chosen in sets if i in chosen))
        totals.append(min((sum(single[j] for j in chosen), chosen) for chosen in sets))
    before = weight.clone()
    masks = prune_event(method, context, groups.largest_sparsity / 2).masks
    expected = {i for _, chosen in sorted(totals)[:3] for i in chosen}
    assert set(torch.nonzero(~masks["w"].flatten()).flatten().tolist()) == expected
    assert torch.equal(weight, before * masks["w"])


@pytest.mark.parametrize("slab", [None, 100], ids=["whole", "rows"])
@pytest.mark.parametrize("pattern", ["unstructured", "1x2"])
def test_prunes_as_surgeon_in_blocks_of_one(setting_of, monkeypatch, pattern, slab):
    """Without correlations nothing is compensated, and a group costs what its weights cost."""
    if slab:
        monkeypatch.setitem(GRADIENT_SLAB_BYTES, "cpu", slab)
    setting = setting_of()
    setting.layers = {"0.weight": setting.layers["0.weight"]}
    setting.masks = {"0.weight": setting.masks["0.weight"]}
    common = {"num_gradients": 40, "gradients": "per_example", "dampening": 1e-3}
    context, groups = setting.context(), Pattern.parse(pattern)
    single = OptimalBertSurgeon(fisher_block_size=1, **common).propose(context).scores["0.weight"]
    costs = single.view(8, -1, groups.size).sum(2, keepdim=True).expand(-1, -1, groups.size).reshape(8, 6)
    scores = OptimalBrainDamage(**common).score(replace(context, pattern=groups))
    torch.testing.assert_close(scores["0.weight"], costs, rtol=1e-5, atol=0)
    expected = global_masks({"0.weight": costs}, setting.masks, 0.5, groups)["0.weight"]
    assert torch.equal(global_masks(scores, setting.masks, 0.5, groups)["0.weight"], expected)


def test_memory_is_a_number_a_weight(setting_of):
    scores = OptimalBrainDamage(num_gradients=16).score(setting_of().context())
    held = sum(score.numel() * score.element_size() for score in scores.values())
    assert OptimalBrainDamage().memory_bytes({"0.weight": 48, "2.weight": 56}) == held + 24 * 56
