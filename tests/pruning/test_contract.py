"""What every pruning method must do, run over the registry; a new file is tested with no new test."""

import copy

import pytest
import torch

from obert.experiment.recipes import load_method
from obert.foundation import registry
from obert.pruning import Method
from obert.pruning.lottery_ticket import LotteryTicket

SMALL = {
    "mfac": {"num_gradients": 8, "gradient_batch_size": 4, "recomputations": 2},
    "obd": {"num_gradients": 32, "gradient_batch_size": 8},
    "obert": {"num_gradients": 32, "gradients": "per_example", "gradient_batch_size": 8},
    "platon": {"window": 2},
    "woodfisher": {"num_gradients": 8, "gradient_batch_size": 4, "fisher_block_size": 40},
}


@pytest.fixture(params=registry.names("pruning"))
def method(request) -> Method:
    return load_method(request.param, SMALL.get(request.param, {}), "the contract suite")


def zeros(setting) -> int:
    return sum(int((layer.weight == 0).sum()) for layer in setting.layers.values())


def test_exact_zeros_on_listed_layers_only(method, setting_of):
    setting = setting_of().train(method, method.steps_needed())
    untouched = copy.deepcopy(setting.model[4].state_dict())
    biases = [layer.bias.clone() for layer in setting.layers.values()]
    setting.prune(method, 0.7)
    assert zeros(setting) == round(0.7 * (48 + 56))
    if isinstance(method, LotteryTicket):  # rewinds all of the encoder, biases too
        return
    for name, value in setting.model[4].state_dict().items():
        assert torch.equal(value, untouched[name])
    assert all(torch.equal(a, layer.bias) for a, layer in zip(biases, setting.layers.values(), strict=True))


def test_pruned_weights_neither_move_nor_come_back_unless_the_method_says_so(method, setting_of):
    setting = setting_of().prune(method, 0.5)
    before = {name: mask.clone() for name, mask in setting.masks.items()}
    setting.prune(method, 0.8)
    assert zeros(setting) == sum(int((~m).sum()) for m in setting.masks.values()) == round(0.8 * 104)
    for name, layer in setting.layers.items():
        assert (layer.weight[~setting.masks[name]] == 0).all()
        if not setting.hook.returns:
            assert not (setting.masks[name] & ~before[name]).any()


def test_masks_survive_training_and_its_end(method, setting_of):
    setting = setting_of().prune(method, 0.7)
    dense = {name: layer.bias.clone() for name, layer in setting.layers.items()}
    setting.train(method, 3)
    assert zeros(setting) == round(0.7 * 104)
    assert not any(torch.equal(dense[name], layer.bias) for name, layer in setting.layers.items())
    setting.hook.finish()
    assert zeros(setting) == round(0.7 * 104)
    assert set(setting.model.state_dict()) == set(setting_of().model.state_dict())


def test_what_training_taught_survives_a_checkpoint(method, setting_of):
    """The model's own state, and what the hook calls state, make a fresh run score as the saved one."""
    saved = setting_of().prune(method, 0.5).train(method, 3)
    fresh = setting_of().train(method, 0)
    fresh.model.load_state_dict(saved.model.state_dict())
    fresh.hook.load({name: value.clone() for name, value in saved.hook.state().items()})
    fresh.masks = saved.masks
    fresh.hook.impose(saved.masks)
    for setting in (saved, fresh):
        setting.train(method, 2).prune(method, 0.7)
    for name in saved.layers:
        assert torch.equal(saved.masks[name], fresh.masks[name])
        assert torch.equal(saved.layers[name].weight, fresh.layers[name].weight)


def test_same_seed_same_masks_and_weights(method, setting_of):
    first, second = setting_of().prune(method, 0.6), setting_of().prune(method, 0.6)
    for name in first.layers:
        assert torch.equal(first.masks[name], second.masks[name])
        assert torch.equal(first.layers[name].weight, second.layers[name].weight)


def test_finite_scores_of_the_weights_shape(method, setting_of):
    setting = setting_of().train(method, method.steps_needed())
    scores = method.propose(setting.context()).scores
    for name, layer in setting.layers.items():
        assert scores[name].shape == layer.weight.shape
        assert torch.isfinite(scores[name]).all()


def test_parameters_survive_a_round_trip(method):
    assert type(method).model_validate(method.model_dump(mode="json")) == method
