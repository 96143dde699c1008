"""Zeros that are held at every step: few kernels, the bits of a product with the mask, no mask out of date."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from obert.masks.holding import FixedPattern, Holding
from obert.pruning.shared.training_hooks import TrainingHook


class Kernels(TorchDispatchMode):
    """The names of the operations inside its block, views left out."""

    def __init__(self):
        super().__init__()
        self.called = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is not torch.ops.aten.detach.default:
            self.called.append(func.overloadpacket._qualified_op_name)
        return func(*args, **(kwargs or {}))


def tensors(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    weights = {str(i): torch.randn(8, 3 + i, generator=generator).to(dtype) for i in range(5)}
    return weights, {name: torch.rand(weight.shape, generator=generator) > 0.5 for name, weight in weights.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_held_weights_have_the_bits_of_a_product_with_the_mask(dtype):
    weights, masks = tensors(dtype)
    expected = {name: weight * masks[name] for name, weight in weights.items()}
    Holding().apply(weights, masks)
    for name, weight in weights.items():
        assert weight.dtype == dtype
        assert torch.equal(weight, expected[name])
        assert torch.equal(weight.signbit(), expected[name].signbit())


def test_all_tensors_are_held_by_one_operation_from_the_second_step_on():
    weights, masks = tensors()
    pattern = FixedPattern({name: weight * masks[name] for name, weight in weights.items()})
    layers = {name: torch.nn.Linear(weight.shape[1], 8) for name, weight in weights.items()}
    hook = TrainingHook(layers)
    holds = (lambda: pattern.hold(weights), lambda: hook.after_step(masks, at_target=False))
    for hold in holds:
        hold()
        with Kernels() as kernels:
            hold()
        assert kernels.called == ["aten::_foreach_mul_"]


def test_masks_that_change_are_followed():
    """New ones, one that is edited, and weights that have another type."""
    weights, masks = tensors()
    holding = Holding()
    holding.apply(weights, masks)
    others = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    holding.apply(weights, others)
    assert all((weight == 0).all() for weight in weights.values())
    weights, masks = tensors()
    holding.apply(weights, masks)
    masks["0"][0] = False
    holding.apply(weights, masks)
    assert (weights["0"][0] == 0).all()
    wide = {name: weight.double() for name, weight in tensors()[0].items()}
    holding.apply(wide, masks)
    assert all(torch.equal(weight != 0, masks[name]) for name, weight in wide.items())


def test_no_masks_are_nothing_to_hold():
    Holding().apply({}, {})
