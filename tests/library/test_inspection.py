"""What `prune` refuses before it changes anything, and what it counts when it has."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, remove_weight_norm, spectral_norm, weight_norm
from torch.nn.utils import prune as torch_prune

from obert import hold_masks, prune
from obert.foundation.errors import UserError

SMALL = {"num_gradients": 64, "fisher_block_size": 16, "dampening": 1e-5}


def cross_entropy(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    inputs, labels = torch.randn(10, 8, 16, generator=generator), torch.randint(8, (10, 8), generator=generator)
    return list(zip(inputs, labels, strict=True))


def two_layers(first=nn.Linear, **options):
    torch.manual_seed(0)
    return nn.Sequential(first(16, 24, **options), nn.ReLU(), nn.Linear(24, 8))


def changed(change, index=0):
    model = two_layers()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        replaced = change(model[index])
    if isinstance(replaced, nn.Module):
        model[index] = replaced
    return model


def with_weight(weight, **options):
    def change(layer):
        layer.weight = nn.Parameter(weight(layer.weight.detach()), **options)

    return changed(change)


def filled(value):
    def change(layer):
        layer.weight.data[3, 2] = value

    return changed(change)


class Doubled(nn.Module):
    def forward(self, weight):
        return weight * 2


class Wrapped(torch.Tensor):
    """A tensor of another kind, as sharded and quantised ones are."""


class Tied(nn.Module):
    """A language model whose output layer is its embedding."""

    def __init__(self):
        super().__init__()
        self.embed, self.encoder, self.head = nn.Embedding(8, 16), nn.Sequential(nn.Linear(16, 16)), nn.Linear(16, 8)
        self.head.weight = self.embed.weight

    def forward(self, inputs):
        return self.head(torch.tanh(self.encoder(inputs)))


def sharing(share):
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 8))
    share(model)
    return model


def slices_of_one(model):
    both = torch.randn(32, 16)
    model[0].weight, model[1].weight = nn.Parameter(both[:16]), nn.Parameter(both[16:])


def overlapping(model):
    both = torch.randn(32, 16)
    model[0].weight, model[1].weight = nn.Parameter(both[:16]), nn.Parameter(both[8:24])


def same_parameter(model):
    model[1].weight = model[0].weight


def same_memory(model):
    model[1].weight = nn.Parameter(model[0].weight.detach())


def in_a_buffer(model):
    model[1].register_buffer("teacher", model[0].weight.detach())


PARAMETRISED = [
    (lambda: changed(lambda layer: torch_prune.l1_unstructured(layer, "weight", 0.5)), r"prune\.remove"),
    (lambda: changed(weight_norm), "remove_weight_norm"),
    (lambda: changed(spectral_norm), "remove_spectral_norm"),
    (lambda: changed(parametrizations.weight_norm), "remove_parametrizations"),
    (lambda: changed(parametrizations.orthogonal), "remove_parametrizations"),
    (
        lambda: changed(lambda layer: parametrize.register_parametrization(layer, "weight", Doubled())),
        "remove_parametrizations",
    ),
]
WEIGHTS = [
    (lambda: two_layers(device="meta"), "on the meta device"),
    (lambda: nn.Sequential(nn.Linear(16, 24, device="meta"), nn.Linear(24, 8)), "'0.weight' is on the meta device"),
    (lambda: nn.Sequential(nn.LazyLinear(24), nn.Linear(24, 8)), "'0.weight' has no shape before the first forward"),
    (lambda: nn.Sequential(nn.Linear(16, 24), nn.Linear(24, 0)), r"'1.weight' is empty, \[0, 24\]"),
    (lambda: nn.Sequential(nn.Linear(0, 24), nn.Linear(24, 8)), r"'0.weight' is empty, \[24, 0\]"),
    (lambda: filled(torch.nan), "not finite in 0.weight"),
    (lambda: filled(-torch.inf), "not finite in 0.weight"),
    (lambda: with_weight(lambda w: w.to_sparse()), "has layout torch.sparse_coo"),
    (lambda: with_weight(lambda w: w.to(torch.int8), requires_grad=False), "is int8: allowed are float32"),
    (lambda: with_weight(lambda w: w.to(torch.float8_e4m3fn)), "is float8_e4m3fn: allowed"),
    (lambda: with_weight(lambda w: w.to(torch.cfloat)), "is complex64"),
    (lambda: with_weight(lambda w: w[None]), r"has shape \[1, 24, 16\]"),
    (lambda: with_weight(lambda w: w[:1].expand(24, 16)), "is expanded"),
    (lambda: with_weight(lambda w: w.as_subclass(Wrapped)), "is a Wrapped"),
    (lambda: torch.inference_mode()(two_layers)(), "made in inference mode"),
    (lambda: nn.Linear, "found a type; give a torch.nn.Module"),
]
SHARED = [
    (Tied, {"scope": "*"}, "'head.weight' and 'embed.weight', which is not in `scope`, share"),
    (lambda: sharing(same_parameter), {}, "'0.weight' and '1.weight' share one weight"),
    (lambda: sharing(same_parameter), {"scope": "1"}, "'1.weight' and '0.weight', which is not in `scope`, share"),
    (lambda: sharing(same_memory), {"scope": "0"}, "'0.weight' and '1.weight', which is not in `scope`, share"),
    (lambda: sharing(overlapping), {}, "'0.weight' and '1.weight' share one weight"),
    (lambda: sharing(in_a_buffer), {}, "'0.weight' and '1.teacher', which is not in `scope`, share"),
]


def state_of(model):
    return {
        name: tensor.clone()
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if not (nn.parameter.is_lazy(tensor) or tensor.is_meta)
    }


def assert_refused(model, expected, batches=(), loss=None, **arguments):
    before = state_of(model) if isinstance(model, nn.Module) else {}
    with pytest.raises(UserError, match=expected):
        prune(model, batches, loss, **{"method": "magnitude", **arguments})
    for name, tensor in (state_of(model) if before else {}).items():
        assert (tensor.to_dense() == before[name].to_dense()).logical_or(tensor.to_dense().isnan()).all()


@pytest.mark.parametrize(("make", "expected"), PARAMETRISED)
def test_weights_that_are_computed_are_refused_with_a_way_out(make, expected, batches):
    assert_refused(make(), f"'0.weight' is no parameter of its layer.*{expected}")
    assert_refused(make(), f"'0.weight' is no parameter.*{expected}", batches, cross_entropy, method="obert", **SMALL)


@pytest.mark.parametrize("undone", [remove_weight_norm, lambda layer: torch_prune.remove(layer, "weight")])
def test_what_is_undone_can_be_pruned(undone, batches):
    make = (
        weight_norm
        if undone is remove_weight_norm
        else lambda layer: torch_prune.random_unstructured(layer, "weight", 0.3)
    )
    model = changed(make)
    undone(model[0])
    report = prune(model, batches, cross_entropy, 0.8, **SMALL)
    model(batches[0][0])
    assert report.layers["0.weight"].zeros == int((model[0].weight == 0).sum()) > 0


def test_a_layer_whose_bias_alone_is_computed_can_be_pruned(batches):
    model = changed(lambda layer: torch_prune.l1_unstructured(layer, "bias", 0.5))
    assert prune(model, batches, cross_entropy, 0.5, **SMALL).total.measured == 0.5


@pytest.mark.parametrize(("make", "expected"), WEIGHTS)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_weights_that_cannot_be_pruned_are_refused_by_name(make, expected):
    assert_refused(make(), expected)


def test_such_layers_do_no_harm_outside_of_the_scope(batches):
    model = nn.ModuleDict({"encoder": two_layers(), "unused": nn.Linear(3, 3, device="meta"), "lazy": nn.LazyLinear(2)})
    model.forward = model["encoder"].forward
    assert prune(model, batches, cross_entropy, 0.5, **SMALL).total.measured == 0.5


@pytest.mark.parametrize(("make", "arguments", "expected"), SHARED)
def test_a_weight_that_is_shared_is_refused_with_both_names(make, arguments, expected):
    assert_refused(make(), expected, **arguments)


def test_slices_of_one_tensor_are_not_shared_and_a_layer_with_two_names_is_one(batches):
    model = sharing(slices_of_one)
    model.again = model[2]
    model.forward = lambda inputs: model[2](torch.tanh(model[1](model[0](inputs))))
    report = prune(model, batches, cross_entropy, 0.5, **SMALL)
    assert list(report.layers) == ["0.weight", "1.weight", "2.weight"]
    assert sum(int((layer.weight == 0).sum()) for layer in model[:3]) == report.total.zeros


def test_a_tied_model_is_pruned_in_its_encoder():
    generator = torch.Generator().manual_seed(1)
    batches = [(torch.randn(8, 16, generator=generator), torch.randint(8, (8,), generator=generator)) for _ in range(8)]
    model = Tied()
    before = model.embed.weight.detach().clone()
    assert prune(model, batches, cross_entropy, 0.5, **SMALL).total.measured == 0.5
    assert torch.equal(model.embed.weight, before)


class Standardised(nn.Linear):
    """Multiplies by another weight, which is nowhere zero."""

    def forward(self, inputs):
        return nn.functional.linear(inputs, self.weight - self.weight.mean() - 1, self.bias)


class StandardisedByHand(nn.Linear):
    def forward(self, inputs):
        return inputs @ (self.weight - 1).T + self.bias


class Scaled(nn.Linear):
    def forward(self, inputs):
        return nn.functional.linear(inputs, self.weight * 2, self.bias)


class Gated(nn.Linear):
    """A gate beside the weight, of its shape."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.gate = nn.Parameter(torch.randn(sizes[1], sizes[0]))

    def forward(self, inputs):
        return super().forward(inputs) * nn.functional.linear(inputs, self.gate).sigmoid()


class Reloading(nn.Module):
    """Loads its weights before each forward pass, as offloading does."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 8)
        self.stored = self.layer.weight.detach().clone()

    def forward(self, inputs):
        self.layer.weight.data.copy_(self.stored)
        return self.layer(inputs)


def replacing_hook():
    model = two_layers()
    stored = model[0].weight.detach().clone()
    model[0].register_forward_pre_hook(lambda layer, _: setattr(layer, "weight", nn.Parameter(stored.clone())))
    return model


def copying_hook():
    model = two_layers()
    stored = model[0].weight.detach().clone()
    model[0].register_forward_pre_hook(lambda layer, _: setattr(layer.weight, "data", stored.clone()))
    return model


@pytest.mark.parametrize(
    "make",
    [lambda: two_layers(Standardised), lambda: two_layers(StandardisedByHand), Reloading, replacing_hook, copying_hook],
)
def test_zeros_that_the_forward_pass_does_not_use_are_no_zeros(make, batches):
    """Magnitude, and minibatches: nothing else would notice."""
    expected = r"weight': \d+ of \d+ values were pruned, but the forward pass used weights with \d+ zeros"
    assert_refused(make(), expected, batches, cross_entropy, sparsity=0.9)
    settings = {"method": "obert", "gradients": "minibatch", "num_gradients": 10, "fisher_block_size": 16}
    assert_refused(make(), expected, batches, cross_entropy, sparsity=0.9, **settings)


@pytest.mark.parametrize("first", [Scaled, Gated])
def test_zeros_that_the_forward_pass_does_use_are_counted(first, batches):
    model = two_layers(first)
    report = prune(model, batches, cross_entropy, 0.9, method="magnitude")
    assert report.total.zeros == int((model[0].weight == 0).sum() + (model[2].weight == 0).sum()) == round(0.9 * 576)


def test_a_scaling_layer_is_refused_for_per_example_gradients_alone(batches):
    assert_refused(
        two_layers(Scaled), r"'0\.weight'.*not what autograd", batches, cross_entropy, method="obert", **SMALL
    )
    prune(two_layers(Scaled), batches, cross_entropy, gradients="minibatch", num_gradients=10, fisher_block_size=16)


def test_in_place_activations_prune_as_others_do(batches):
    """ReLU(inplace=True) once gave gradients of what it left."""
    masks = []
    for inplace in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(inplace=inplace), nn.Linear(24, 8))
        masks.append(prune(model, batches, cross_entropy, 0.7, **SMALL).masks)
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])


def test_weights_are_as_before_after_an_error_halfway(batches):
    model = two_layers()
    before = state_of(model)
    with pytest.raises(UserError, match="the data gave"):
        prune(model, iter(batches[:7]), cross_entropy, recomputations=2, **SMALL)
    calls = []

    def failing(model, batch):
        calls.append(1)
        if len(calls) > 10:  # after the trial and the first of two draws
            raise KeyboardInterrupt
        return cross_entropy(model, batch)

    with pytest.raises(KeyboardInterrupt):
        prune(model, batches, failing, recomputations=2, **SMALL)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(model).items())


def generator_function():
    yield None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (generator_function, "a function, generator_function: call it"),
        (lambda: [], "a function"),
        (None, "a NoneType"),
        (5, "a int"),
        ("train.csv", "text"),
        (b"train", "text"),
        ({"train": []}, "a mapping"),
        (list, "a class"),
        (torch.tensor(1.0), "a single number"),
    ],
)
def test_batches_that_are_none(value, expected):
    assert_refused(two_layers(), f"batches: found {expected}", value, cross_entropy, method="obert")


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (lambda values: values.mean().item(), "it returned a float .*item"),
        (lambda values: (values, None), "it returned a tuple .*the losses alone"),
        (lambda values: {"loss": values}, "it returned a dict .*the losses alone"),
        (lambda values: values.tolist(), "it returned a list"),
        (lambda values: None, "it returned a NoneType where a tensor is needed$"),
        (lambda values: values.detach().numpy(), "it returned a ndarray .*numpy"),
        (lambda values: np.float32(1), "it returned a float32 .*item"),
        (lambda values: values.long(), "torch.int64"),
        (lambda values: values.to("meta"), "on meta"),
        (lambda values: values[:0], "no value"),
    ],
)
@pytest.mark.parametrize("gradients", ["per_example", "minibatch"])
def test_losses_that_are_none(result, expected, gradients, batches):
    settings = {"method": "obert", "gradients": gradients, "num_gradients": 8}
    assert_refused(two_layers(), f"loss: .*{expected}", batches, lambda m, b: result(cross_entropy(m, b)), **settings)


@pytest.mark.parametrize("loss", [0.5, None, "cross_entropy"])
def test_a_loss_that_cannot_be_called(loss, batches):
    assert_refused(two_layers(), "loss: found .*give a function", batches, loss, method="obert")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"sparsity": "0.8"}, "sparsity '0.8' is a str"),
        ({"sparsity": True}, "sparsity True is a bool"),
        ({"sparsity": None}, "sparsity None is a NoneType"),
        ({"sparsity": torch.tensor(0.5)}, "is a Tensor"),
        ({"sparsity": float("nan")}, "sparsity nan: it is a fraction"),
        ({"sparsity": 80}, "at least 0 and below 1"),
        ({"pattern": 4}, "pattern: found 4"),
        ({"method": None}, "method: found None"),
        ({"scope": []}, "scope: found"),
        ({"scope": 0}, "scope: found 0"),
        ({"scope": [0]}, "patterns are text"),
        ({"masks": [1]}, "found a list; give `report.masks`"),
    ],
)
def test_arguments_of_another_kind(arguments, expected):
    assert_refused(two_layers(), expected, **arguments)


def test_numbers_of_other_kinds_are_sparsities():
    report = prune(two_layers(), (), None, np.float32(0.5), method="magnitude")
    assert report.total.target == 0.5


def test_inference_mode_is_refused(batches):
    model = two_layers()
    with torch.inference_mode():
        assert_refused(model, "torch.inference_mode", batches, cross_entropy)


def test_keyword_inputs_are_refused_for_per_example_gradients_alone(batches):
    model = nn.ModuleDict({"layer": nn.Linear(16, 8)})
    model.forward = lambda inputs: model["layer"](input=inputs)
    expected = r"'layer\.weight' is called without a tensor as first positional argument"
    assert_refused(model, expected, batches, cross_entropy, method="obert", **SMALL)
    report = prune(model, batches, cross_entropy, gradients="minibatch", num_gradients=10, fisher_block_size=16)
    assert report.total.measured == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (lambda mask: mask.float(), "is a torch.float32 tensor; give a bool tensor"),
        (lambda mask: mask.long(), "is a torch.int64 tensor"),
        (lambda mask: mask.numpy(), "is a ndarray"),
        (lambda mask: mask.to("meta"), "is torch.strided on meta"),
        (lambda mask: mask.to_sparse(), "is torch.sparse_coo"),
        (lambda mask: mask.T, r"is \[16, 24\], the weight is"),
    ],
)
def test_masks_of_another_kind_are_refused_everywhere(mask, expected):
    model = two_layers()
    masks = prune(model, (), None, 0.5, method="magnitude").masks
    masks["0.weight"] = mask(masks["0.weight"])
    assert_refused(model, f"masks: '0.weight' {expected}", masks=masks, sparsity=0.8)
    with pytest.raises(UserError, match=f"masks: '0.weight' {expected}"):
        hold_masks(model, masks, torch.optim.SGD(model.parameters(), lr=0.1))


def test_hold_masks_says_what_it_needs():
    model = two_layers()
    report = prune(model, (), None, 0.5, method="magnitude")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UserError, match=r"give `report\.masks`"):
        hold_masks(model, report, optimizer)
    with pytest.raises(UserError, match=r"give a torch\.optim\.Optimizer"):
        hold_masks(model, report.masks, torch.optim.SGD)
    with pytest.raises(UserError, match="on the meta device"):
        hold_masks(two_layers(device="meta"), report.masks, optimizer)


def test_masks_hold_where_the_model_goes_after_they_were_given(batches):
    """`to` gives the parameters other memory."""
    model = two_layers()
    report = prune(model, (), None, 0.5, method="magnitude")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    hold_masks(model, report.masks, optimizer)
    model.to(torch.float64)
    cross_entropy(model, (batches[0][0].double(), batches[0][1])).mean().backward()
    optimizer.step()
    assert all((model.get_parameter(name)[~mask] == 0).all() for name, mask in report.masks.items())
