"""Per-example gradients against one backward pass an example."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from obert.foundation.errors import UserError
from obert.pruning import WeightsBehindMasks
from obert.second_order.gradients import minibatch_gradients, per_example_gradients


@pytest.fixture
def setting():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    layers = {"0.weight": model[0], "2.weight": model[2]}
    inputs = torch.randn(6, 4, 5, dtype=torch.float64)  # six examples of four tokens
    labels = torch.randint(0, 3, (6,))

    def losses(chosen=slice(None)):
        return nn.functional.cross_entropy(model(inputs[chosen]).mean(1), labels[chosen], reduction="none")

    return model, layers, losses


def test_per_example_gradients_equal_one_backward_an_example(setting):
    model, layers, losses = setting
    found = dict(per_example_gradients(layers, losses))
    for index in range(6):
        model.zero_grad()
        losses(slice(index, index + 1)).sum().backward()
        for name, layer in layers.items():
            rows = found[name].rows(0, layer.out_features)[index].view_as(layer.weight)
            torch.testing.assert_close(rows, layer.weight.grad)


def test_minibatch_gradient_is_the_mean_of_the_examples_gradients(setting):
    _, layers, losses = setting
    single = dict(per_example_gradients(layers, losses))
    for name, mean in minibatch_gradients(layers, losses):
        rows = layers[name].out_features
        assert len(mean) == 1
        torch.testing.assert_close(mean.rows(1, rows)[0], single[name].rows(1, rows).mean(0))


def test_parameters_keep_no_gradient_afterwards(setting):
    model, layers, losses = setting
    for _ in per_example_gradients(layers, losses):
        pass
    assert all(p.grad is None for p in model.parameters())
    assert not any(layer._forward_hooks for layer in layers.values())


class Edited(nn.Module):
    """Two layers with something between them, on tokens or on rows."""

    def __init__(self, edit, bias=True, first=nn.Linear):
        super().__init__()
        self.first, self.edit, self.second = first(5, 8, bias=bias), edit, nn.Linear(8, 3)

    def forward(self, inputs):
        hidden = self.second(self.edit(self.first(inputs)))
        return hidden.mean(1) if hidden.dim() == 3 else hidden


def tripled(hidden):
    hidden *= 3
    return hidden


def emptied(hidden):
    hidden[..., :4] = 0
    return hidden


def view_edited(hidden):
    hidden.view(-1).tanh_()
    return hidden


def residual(hidden):
    return hidden + torch.sin(hidden).mul_(2)


class Scaling(nn.Linear):
    def forward(self, inputs):
        return nn.functional.linear(inputs, self.weight * 3, self.bias)


class ScalingOutput(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs) * 3


class LowRank(nn.Linear):
    """A correction beside the weight; the weight's own gradient is d x'."""

    def forward(self, inputs):
        return super().forward(inputs) + 0.1 * inputs.sum(-1, keepdim=True)


def data(tokens=4):
    torch.manual_seed(1)
    shape = (6, tokens, 5) if tokens else (6, 5)
    return torch.randn(*shape, dtype=torch.float64), torch.randint(0, 3, (6,))


def losses_of(model, inputs, labels, chosen=slice(None)):
    return nn.functional.cross_entropy(model(inputs[chosen]), labels[chosen], reduction="none")


def layers_of(model):
    return {f"{name}.weight": layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}


def assert_equal_to_one_backward_an_example(model, inputs, labels):
    layers = layers_of(model)
    found = dict(per_example_gradients(layers, partial(losses_of, model, inputs, labels), check=True))
    for index in range(len(labels)):
        loss = losses_of(model, inputs, labels, slice(index, index + 1)).sum()
        for (name, layer), expected in zip(
            layers.items(), torch.autograd.grad(loss, [layer.weight for layer in layers.values()]), strict=True
        ):
            rows = found[name].rows(0, layer.out_features)[index].view_as(layer.weight)
            torch.testing.assert_close(rows, expected)


@pytest.mark.parametrize("tokens", [0, 4])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("edit", [nn.ReLU(inplace=True), tripled, emptied, view_edited, residual])
def test_what_is_edited_in_place_behind_a_layer_leaves_its_gradients_right(edit, bias, tokens):
    torch.manual_seed(0)
    assert_equal_to_one_backward_an_example(Edited(edit, bias).double(), *data(tokens))


@pytest.mark.parametrize(
    "change", [lambda _m, _x, out: out * 3, lambda _m, _x, out: out.mul_(3), lambda _m, _x, out: None]
)
@pytest.mark.parametrize("prepend", [True, False])
def test_forward_hooks_that_change_the_output_leave_gradients_right(change, prepend):
    model = Edited(nn.ReLU()).double()
    model.first.register_forward_hook(change, prepend=prepend)
    model.second.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 2,))
    assert_equal_to_one_backward_an_example(model, *data())


def test_a_correction_beside_the_weight_leaves_gradients_right():
    assert_equal_to_one_backward_an_example(Edited(nn.ReLU(), first=LowRank).double(), *data())


class Recomputed(Edited):
    """Activations are not kept; the backward pass calls the layers again."""

    def forward(self, inputs):
        return checkpoint(super().forward, inputs, use_reentrant=False)


def test_layers_that_are_computed_again_in_the_backward_pass_are_seen_once():
    assert_equal_to_one_backward_an_example(Recomputed(nn.ReLU(inplace=True)).double(), *data())


class SharedRow(nn.Module):
    """One layer is called on tokens, and on one row of positions for all examples, as DeBERTa's queries are."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, 4, 5))
        self.query, self.head = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, inputs):
        return self.head((torch.tanh(self.query(inputs)) * self.query(self.positions)).mean(1))


def test_a_call_on_one_row_for_all_examples_is_taken_apart_by_example():
    torch.manual_seed(0)
    assert_equal_to_one_backward_an_example(SharedRow().double(), *data())


def test_weights_behind_masks_are_compared_as_the_forward_pass_has_them():
    model = Edited(nn.ReLU()).double()
    layers = layers_of(model)
    WeightsBehindMasks(layers).impose({name: torch.rand(layer.weight.shape) > 0.5 for name, layer in layers.items()})
    names = list(per_example_gradients(layers, partial(losses_of, model, *data()), check=True))
    assert [name for name, _ in names] == list(layers)


def test_outputs_of_several_rows_an_example_are_its_tokens():
    """Multiple choice: the choices of an example follow one another."""
    torch.manual_seed(0)
    model = Edited(nn.ReLU()).double()
    inputs = torch.randn(12, 4, 5, dtype=torch.float64)

    def losses(chosen=slice(None)):
        return model(inputs.view(6, 2, 4, 5)[chosen].flatten(0, 1)).logsumexp(1).view(-1, 2).prod(1)

    layers = layers_of(model)
    found = dict(per_example_gradients(layers, losses, check=True))
    for index in range(6):
        expected = torch.autograd.grad(losses(slice(index, index + 1)).sum(), model.first.weight)[0]
        torch.testing.assert_close(found["first.weight"].rows(0, 8)[index].view(8, 5), expected)


class Transposed(nn.Module):
    """Tokens first: one layer's rows are tokens, and of their number."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, inputs):
        return self.second(torch.tanh(self.first(inputs.transpose(0, 1))).transpose(0, 1).mean(1))


class Coupled(Edited):
    """An example's output depends on the others."""

    def __init__(self):
        super().__init__(lambda hidden: hidden - hidden.mean(0, keepdim=True))


class UsedTwice(Edited):
    """A weight that is used by its layer, and by a product besides."""

    def forward(self, inputs):
        return super().forward(inputs) + (inputs @ self.first.weight.T).mean(1)[:, :3]


def with_gradient_hook():
    model = Edited(nn.ReLU())
    model.first.weight.register_hook(lambda gradient: gradient * 2)
    return model


class ByKeyword(Edited):
    def forward(self, inputs):
        return self.second(self.first(input=inputs)).mean(1)


class InputEdited(Edited):
    def forward(self, inputs):
        inputs = inputs * 1
        hidden = self.first(inputs)
        inputs += 1
        return self.second(hidden + inputs.sum()).mean(1)


class Unseen(Edited):
    def forward(self, inputs):
        with torch.no_grad():
            hidden = self.first(inputs)
        return self.second(hidden).mean(1)


class Pair(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs), None


class Pooled(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs).mean(1, keepdim=True)


@pytest.mark.parametrize(
    ("make", "name", "expected"),
    [
        (lambda: Edited(nn.ReLU(), first=Scaling), "first", "not what autograd has"),
        (lambda: Edited(nn.ReLU(), first=ScalingOutput), "first", "not what autograd has"),
        (Transposed, "first", "the loss of one example depends on others"),
        (Coupled, "first", "the loss of one example depends on others"),
        (lambda: UsedTwice(nn.ReLU()), "first", "not what autograd has"),
        (with_gradient_hook, "first", "gradient hook"),
        (lambda: ByKeyword(nn.ReLU()), "first", r"not layer\(input=x\)"),
        (lambda: InputEdited(nn.ReLU()), "first", "input is edited in place"),
        (lambda: Unseen(nn.ReLU()), "first", "only without gradients"),
        (lambda: Edited(lambda pair: pair[0], first=Pair), "first", "returns a tuple"),
        (lambda: Edited(nn.ReLU(), first=Pooled), "first", "one output for each input"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_that_would_be_wrong_are_refused_by_name(make, name, expected, dtype):
    torch.manual_seed(0)
    model, (inputs, labels) = make().to(dtype), data(tokens=6)
    losses = partial(losses_of, model, inputs.to(dtype), labels)
    with pytest.raises(UserError, match=rf"'{name}\.weight'.*{expected}"):
        list(per_example_gradients(layers_of(model), losses, check=True))
    assert not model.first._forward_hooks


def test_a_gradient_that_is_not_finite_is_named():
    model, (inputs, labels) = Edited(lambda hidden: (hidden * 0).sqrt() + hidden).double(), data()
    with pytest.raises(UserError, match=r"'first\.weight': a gradient is not finite"):
        list(per_example_gradients(layers_of(model), partial(losses_of, model, inputs, labels), check=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rounding_is_no_difference(dtype):
    torch.manual_seed(0)
    model, (inputs, labels) = Edited(nn.GELU()).to(dtype), data(tokens=200)
    found = dict(
        per_example_gradients(layers_of(model), partial(losses_of, model, inputs.to(dtype), labels), check=True)
    )
    assert list(found) == ["first.weight", "second.weight"]


def test_autocast_in_the_loss_gives_gradients_of_one_type():
    model, (inputs, labels) = Edited(nn.ReLU()), data()

    def losses():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return losses_of(model, inputs.float(), labels)

    exact = dict(per_example_gradients(layers_of(model), partial(losses_of, model, inputs.float(), labels)))
    for name, gradients in per_example_gradients(layers_of(model), losses, check=True):
        rows = exact[name].rows(0, 3)
        assert (gradients.rows(0, 3) - rows).abs().max() < 0.05 * rows.abs().max()
