"""What every pruning method must do, run over the registry; a new file is tested with no new test."""

import copy

import pytest
import torch

from obert import registry
from obert.config import load_method
from obert.pruning import Base

SMALL = {
    "mfac": {"num_gradients": 8, "gradient_batch_size": 4, "recomputations": 2},
    "obd": {"num_gradients": 32, "gradient_batch_size": 8},
    "obert": {"num_gradients": 32, "gradients": "per_example", "gradient_batch_size": 8},
    "woodfisher": {"num_gradients": 8, "gradient_batch_size": 4, "fisher_block_size": 40},
}


@pytest.fixture(params=registry.names("pruning"))
def method(request) -> Base:
    return load_method(request.param, SMALL.get(request.param, {}), "the contract suite")


def test_exact_zeros_on_listed_layers_only(method, setting_of):
    setting = setting_of()
    untouched = copy.deepcopy(setting.model[4].state_dict())
    biases = [layer.bias.clone() for layer in setting.layers.values()]
    setting.prune(method, 0.7)
    weights = [layer.weight for layer in setting.layers.values()]
    assert sum(int((w == 0).sum()) for w in weights) == round(0.7 * (48 + 56))
    for name, value in setting.model[4].state_dict().items():
        assert torch.equal(value, untouched[name])
    assert all(torch.equal(a, layer.bias) for a, layer in zip(biases, setting.layers.values(), strict=True))


def test_pruned_weights_never_come_back_nor_move(method, setting_of):
    setting = setting_of().prune(method, 0.5)
    before = {name: mask.clone() for name, mask in setting.masks.items()}
    setting.prune(method, 0.8)
    for name, layer in setting.layers.items():
        assert not (setting.masks[name] & ~before[name]).any()
        assert (layer.weight[~before[name]] == 0).all()
    assert sum(int((~m).sum()) for m in setting.masks.values()) == round(0.8 * 104)


def test_same_seed_same_masks_and_weights(method, setting_of):
    first, second = setting_of().prune(method, 0.6), setting_of().prune(method, 0.6)
    for name in first.layers:
        assert torch.equal(first.masks[name], second.masks[name])
        assert torch.equal(first.layers[name].weight, second.layers[name].weight)


def test_finite_scores_of_the_weights_shape(method, setting_of):
    setting = setting_of()
    scores = method.score(setting.context())
    for name, layer in setting.layers.items():
        assert scores[name].shape == layer.weight.shape
        assert torch.isfinite(scores[name]).all()


def test_parameters_survive_a_round_trip(method):
    assert type(method).model_validate(method.model_dump(mode="json")) == method
