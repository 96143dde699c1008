"""Quantisers against torch.ao's while it exists, and by hand."""

import pytest
import torch

from obert.foundation.errors import UserError
from obert.quantization.quantizers import ActivationQuantizer, WeightQuantizer, freeze_scales

KINDS = {"weights": WeightQuantizer, "activations": ActivationQuantizer}
STREAMS = {
    "both signs": lambda g: torch.randn(7, 5, generator=g),
    "growing": lambda g: torch.randn(64, generator=g) * 10 ** torch.rand(1, generator=g),
    "above zero": lambda g: torch.rand(3, 4, generator=g) + 2,
    "below zero": lambda g: -torch.rand(3, 4, generator=g) - 2,
    "zeros": lambda g: torch.zeros(4),
    "tiny": lambda g: torch.randn(8, generator=g) * 1e-9,
    "halves": lambda g: torch.randint(-9, 9, (50,), generator=g) / 2,
    "bfloat16": lambda g: torch.randn(9, generator=g).bfloat16(),
}


def torchs(kind):
    ao = pytest.importorskip("torch.ao.quantization", reason="PyTorch has removed it")
    if kind == "weights":
        made = ao.FakeQuantize.with_args(
            observer=ao.MinMaxObserver, quant_min=-127, quant_max=127, dtype=torch.qint8,
            qscheme=torch.per_tensor_symmetric,
        )  # fmt: skip
    else:
        made = ao.FakeQuantize.with_args(
            observer=ao.MovingAverageMinMaxObserver, quant_min=0, quant_max=255, dtype=torch.quint8,
            qscheme=torch.per_tensor_affine,
        )  # fmt: skip
    return made()


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_those_of_torch_bit_for_bit(kind, stream):
    ours, theirs = KINDS[kind](), torchs(kind)
    generator = torch.Generator().manual_seed(0)
    for batch in range(40):
        if batch == 30:  # and with scales that no longer follow
            freeze_scales(ours)
            theirs.observer_enabled.zero_()
        values = STREAMS[stream](generator).requires_grad_()
        copy = values.detach().clone().requires_grad_()
        found, expected = ours(values), theirs(copy)
        assert torch.equal(found, expected)
        assert torch.equal(ours.scale, theirs.scale)
        assert torch.equal(ours.zero_point, theirs.zero_point)
        assert torch.equal(ours.min_val, theirs.activation_post_process.min_val)
        assert torch.equal(ours.max_val, theirs.activation_post_process.max_val)
        slope = torch.randn(values.shape, generator=generator).to(values.dtype)
        found.backward(slope)
        expected.backward(slope)
        assert torch.equal(values.grad, copy.grad)
    assert (ours.scale.dtype, ours.zero_point.dtype) == (theirs.scale.dtype, theirs.zero_point.dtype)


def test_a_moving_average_by_hand():
    """Ranges [-1, 1.55] and [-3, 1.55]: the lowest becomes -1 + 0.01 * (-3 + 1) = -1.02, the scale 2.57 / 255."""
    quantizer = ActivationQuantizer()
    assert quantizer(torch.tensor([-1.0, 0.0, 0.204, 1.55])).tolist() == pytest.approx([-1.0, 0.0, 0.20, 1.55])
    assert quantizer.zero_point.tolist() == [100]
    quantizer(torch.tensor([-3.0, 1.55]))
    assert quantizer.scale.item() == pytest.approx(2.57 / 255)
    assert quantizer.zero_point.tolist() == [101]  # 1.02 / 0.010078 = 101.2


def test_the_range_of_weights_only_grows():
    quantizer = WeightQuantizer()
    quantizer(torch.tensor([0.2, -2.54]))
    assert quantizer.scale.item() == pytest.approx(0.02)
    assert quantizer(torch.tensor([0.031, 1.0])).tolist() == pytest.approx([0.04, 1.0])
    assert quantizer.scale.item() == pytest.approx(0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass_within_the_range_alone(kind):
    quantizer = KINDS[kind]()
    quantizer(torch.tensor([-1.0, 1.0]))
    freeze_scales(quantizer)
    values = torch.tensor([-5.0, -0.5, 0.0, 0.5, 5.0], requires_grad=True)
    quantizer(values).sum().backward()
    assert values.grad.tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_quantizer_goes_on_as_it_was(kind):
    first, again = KINDS[kind](), KINDS[kind]()
    first(torch.tensor([-1.0, 2.0]))
    again.load_state_dict(first.state_dict())
    for values in (torch.tensor([-3.0, 4.0]), torch.tensor([-0.3, 0.1])):
        assert torch.equal(first(values), again(values))
    freeze_scales(first)
    again.load_state_dict(first.state_dict())
    before = again.scale.clone()
    again(torch.tensor([-100.0, 100.0]))
    assert torch.equal(again.scale, before)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_torchs_rounds_as_it_did(kind):
    ours, theirs = KINDS[kind](), torchs(kind)
    theirs(torch.tensor([-1.0, 2.0]))
    theirs.observer_enabled.zero_()
    missing, _ = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert set(missing) == {"min_val", "max_val"}
    values = torch.linspace(-3, 3, 50)
    assert torch.equal(ours(values), theirs(values))


@pytest.mark.parametrize("wrong", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("good_ones", [0, 1])
def test_a_value_that_is_not_finite_spoils_all_and_is_refused(kind, wrong, good_ones):
    """The device is not waited for to find it: what is rounded after it is not finite, nor is the loss."""
    quantizer = KINDS[kind]()
    good = torch.tensor([-1.0, 1.0])
    for _ in range(good_ones):
        assert torch.isfinite(quantizer(good)).all()
    assert not torch.isfinite(quantizer(torch.tensor([1.0, float(wrong)]))).any()
    assert not torch.isfinite(quantizer(good)).any()
    with pytest.raises(UserError, match="is not a number: training has diverged"):
        freeze_scales(quantizer)
