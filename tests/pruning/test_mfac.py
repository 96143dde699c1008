"""M-FAC against its formulas over all layers together, and against block OBS with one block over everything."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from obert.foundation.errors import UserError
from obert.masks.patterns import Pattern
from obert.pruning import mfac, prune_event
from obert.pruning.mfac import MatrixFree
from obert.pruning.obert import OptimalBertSurgeon
from obert.pruning.shared import gradient_based
from obert.second_order.fisher import GRADIENT_SLAB_BYTES

FORMS = ["static", "dynamic"]
COUNT, BATCH, DAMPENING = 16, 4, 1e-2


def small(**parameters):
    """One sub-step, and more dampening than the default: 16 gradients of random data say little."""
    defaults = {"num_gradients": COUNT, "gradient_batch_size": BATCH, "dampening": DAMPENING, "recomputations": 1}
    return MatrixFree(**defaults | parameters)


def flat(values):
    return torch.cat([value.detach().flatten() for value in values.values()]).double()


def inverse_of(setting, kept, block_size=None):
    """Inverse of lambda I + G'G/m over the kept weights of both layers in blocks of them, float64, written out."""
    losses = setting.context().losses
    weights = [layer.weight for layer in setting.layers.values()]
    batches = (torch.arange(COUNT * BATCH) % 64).split(BATCH)
    rows = [torch.autograd.grad(losses(batch).mean(), weights) for batch in batches]
    gradients = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows]).double()[:, kept]
    fisher = DAMPENING * torch.eye(gradients.shape[1], dtype=torch.float64) + gradients.T @ gradients / COUNT
    block = torch.arange(gradients.shape[1]) // (block_size or gradients.shape[1])
    return torch.linalg.inv(fisher * (block[:, None] == block))


@pytest.mark.parametrize("block_size", [None, 1, 33])
@pytest.mark.parametrize("form", FORMS)
def test_two_events_follow_the_formulas_over_the_remaining_weights(setting_of, form, block_size):
    setting, method = setting_of(), small(form=form, block_size=block_size)
    for sparsity in (0.4, 0.7):
        kept = flat(setting.masks).bool()
        old, inverse = flat(setting.context().weights), inverse_of(setting, kept, block_size)
        scores = flat(method.propose(setting.context()).scores)
        expected = old[kept] ** 2 / (2 * inverse.diagonal())
        torch.testing.assert_close(scores[kept], expected, rtol=1e-4, atol=0)
        assert (scores[~kept] == 0).all()

        setting.prune(method, sparsity)
        after = flat(setting.masks).bool()
        assert int((~after).sum()) == round(104 * sparsity)
        chosen = ~after[kept]
        lowest = expected.argsort()[: int(chosen.sum())]
        assert torch.equal(torch.nonzero(chosen).flatten(), lowest.sort().values)
        new = old[kept] - inverse @ (old[kept] / inverse.diagonal() * chosen)
        torch.testing.assert_close(flat(setting.context().weights)[kept], new * ~chosen, rtol=1e-3, atol=1e-5)
        assert (flat(setting.context().weights)[~kept] == 0).all()


@pytest.mark.parametrize("unit", ["per_example", "minibatch"])
@pytest.mark.parametrize("form", FORMS)
def test_equals_block_surgeon_with_one_block_over_everything(setting_of, form, unit):
    settings = [setting_of(), setting_of()]
    common = {"num_gradients": 18, "gradients": unit, "gradient_batch_size": 4, "dampening": DAMPENING}
    methods = [
        MatrixFree(form=form, recomputations=2, **common),
        OptimalBertSurgeon(
            fisher_block_size=48, solver="independent", recomputations=2, recomputation_spacing="geometric", **common
        ),
    ]
    for setting, method in zip(settings, methods, strict=True):
        setting.layers = {"0.weight": setting.layers["0.weight"]}
        setting.masks = {"0.weight": setting.masks["0.weight"]}
        setting.prune(method, 0.4).prune(method, 0.8)
    first, second = (setting.layers["0.weight"].weight for setting in settings)
    assert torch.equal(first == 0, second == 0)
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)


def test_gradients_are_collected_in_slabs_of_rows(setting_of, monkeypatch):
    setting = setting_of().prune(small(), 0.5)
    for unit in ("per_example", "minibatch"):
        method = small(gradients=unit)
        whole = method._collect(setting.context())
        with monkeypatch.context() as patch:
            patch.setitem(GRADIENT_SLAB_BYTES, "cpu", 200)
            assert torch.equal(method._collect(setting.context()), whole)
        assert whole.shape == (COUNT, 52)
        assert whole.any(dim=1).all()


def test_defaults_are_the_sources_sub_steps(setting_of):
    method = MatrixFree()
    assert (method.num_gradients, method.dampening, method.recomputations) == (64, 1e-5, 16)
    densities = [1.0] + [1 - target for target in method.targets(0.0, 0.9)]
    ratios = [after / before for before, after in pairwise(densities)]
    assert ratios == pytest.approx([0.1 ** (1 / 16)] * 16)


def test_groups_are_refused_before_any_gradient(setting_of):
    for pattern in ("1x4", "2:4"):
        with pytest.raises(UserError, match=f"mfac prunes single weights, not pattern {pattern}"):
            small().check_pattern(Pattern.parse(pattern))
    context = replace(setting_of().context(), pattern=Pattern.parse("1x4"), losses=None)
    with pytest.raises(UserError, match="unstructured"):
        prune_event(small(), context, 0.5)
    small().check_pattern(Pattern())


@pytest.mark.parametrize("form", FORMS)
def test_memory_has_the_gradients_and_what_is_made_of_them(setting_of, form):
    setting, method = setting_of(), small(form=form)
    proposal = method.propose(setting.context())
    block = proposal.inverse.blocks[0]
    held = [value for value in vars(block).values() if isinstance(value, torch.Tensor)]
    estimate = method.memory_bytes({"0.weight": 48, "2.weight": 56})
    assert estimate == sum(tensor.numel() * tensor.element_size() for tensor in held) + 20 * 104
    assert estimate > 4 * COUNT * 104


def test_too_little_memory_is_told_before_any_gradient(setting_of, monkeypatch):
    monkeypatch.setattr(mfac, "free_memory", lambda device: 1000)
    monkeypatch.setattr(gradient_based, "minibatch_gradients", None)
    with pytest.raises(UserError, match=r"16 gradients need .* Lower\s+num_gradients"):
        setting_of().prune(small(), 0.5)
