"""WoodFisher against its formulas, its scale of the update, and gradients gathered for large blocks."""

import pytest
import torch

from obert.pruning import prune_event
from obert.pruning.obert import OptimalBertSurgeon
from obert.pruning.woodfisher import WoodFisher
from obert.second_order.fisher import BlockFisher


def small(**parameters):
    defaults = {"num_gradients": 14, "gradient_batch_size": 4, "dampening": 1e-2, "fisher_block_size": 100}
    return WoodFisher(**defaults | parameters)


def weights_of(setting):
    return {name: layer.weight.detach().clone() for name, layer in setting.layers.items()}


def fishers(setting):
    """lambda I + G'G/m of each tensor, float64, from minibatches' gradients."""
    losses, weights = setting.context().losses, [layer.weight for layer in setting.layers.values()]
    rows = [torch.autograd.grad(losses(batch).mean(), weights) for batch in torch.arange(56).split(4)]
    for name, values in zip(setting.layers, zip(*rows, strict=True), strict=True):
        gradients = torch.stack(values).flatten(1).double()
        yield name, 1e-2 * torch.eye(gradients.shape[1], dtype=torch.float64) + gradients.T @ gradients / 14


@pytest.mark.parametrize("scale", [1.0, 0.3, 0.0])
def test_update_and_predicted_increase_follow_the_scale(setting_of, scale):
    setting = setting_of()
    before, fisher = weights_of(setting), dict(fishers(setting))
    done = prune_event(small(scale_prune_update=scale), setting.context(), 0.5)
    masks, increases = done.masks, done.predicted_loss_increase
    for name, weight in weights_of(setting).items():
        inverse, old = torch.linalg.inv(fisher[name]), before[name].flatten().double()
        pruned = ~masks[name].flatten()
        step = -scale * inverse @ (old / inverse.diagonal() * pruned)
        change = torch.where(pruned, -old, step)
        torch.testing.assert_close(weight.flatten().double() - old, change, rtol=1e-3, atol=1e-5)
        assert increases[name] == pytest.approx(float(change @ fisher[name] @ change) / 2, rel=1e-3)
        if scale == 0:
            assert torch.equal(weight, before[name] * masks[name])


def test_same_ranking_and_update_as_block_surgeon(setting_of):
    first, second = setting_of().prune(small(), 0.6), setting_of()
    parameters = small().model_dump(exclude={"scale_prune_update"})
    second.prune(OptimalBertSurgeon(**parameters), 0.6)
    for name in first.layers:
        assert torch.equal(first.layers[name].weight, second.layers[name].weight)


@pytest.mark.parametrize("accumulation", ["sum", "recursion"])
def test_gathering_minibatches_changes_nothing(setting_of, monkeypatch, accumulation):
    """One by one, or gathered in rooms for 3 (the last one not filled: 14 gradients) and for all of them."""
    results = []
    for room in (0, 3, 14):
        monkeypatch.setattr(WoodFisher, "_room", lambda self, room=room: room)
        results.append(small(accumulation=accumulation).propose(setting_of().context()).scores)
    for scores in results[1:]:
        for name, score in scores.items():
            torch.testing.assert_close(score, results[0][name], rtol=1e-3, atol=0)


def test_memory_is_what_blocks_and_gathered_gradients_take(setting_of, monkeypatch):
    seen = []
    add = BlockFisher.add
    monkeypatch.setattr(BlockFisher, "add", lambda self, name, g: (seen.append(g.values), add(self, name, g)))
    setting, method = setting_of(), small()
    fisher = method.estimate(setting.context(), list(setting.layers))
    blocks = sum(fisher._blocks[name].numel() * 4 for name in setting.layers)
    gathered = {values.data_ptr(): values.untyped_storage().nbytes() for values in seen}
    assert [len(values) for values in seen] == [3] * 8 + [2] * 2
    estimate = method.memory_bytes({"0.weight": 48, "2.weight": 56})
    assert estimate == blocks + sum(gathered.values()) + 40 * 56 + 8 * 104
    # At the default, a thirty-second of the blocks' bytes is gathered.
    assert WoodFisher()._held_bytes(10**6) == 4 * 10**6 * (1000 + 31)
    assert OptimalBertSurgeon()._held_bytes(10**6) == 4 * 10**6 * 50


def test_fisher_memory_makes_passes_with_the_same_result(setting_of):
    one, several = setting_of(), setting_of()
    needed = small()._held_bytes(56) / 1e9
    assert len(small(fisher_memory=needed).passes(several.masks)) == 2
    one.prune(small(), 0.6)
    several.prune(small(fisher_memory=needed), 0.6)
    for name in one.layers:
        assert torch.equal(one.layers[name].weight, several.layers[name].weight)
