"""The library entry point, mostly on models that are not transformers."""

import copy
import subprocess
import sys
from itertools import count

import pytest
import torch
from architectures.models import config
from torch import nn
from transformers import AutoModelForSequenceClassification

import obert
from obert import hold_masks, prune
from obert.foundation.errors import UserError
from obert.masks.selection import dense_masks
from obert.models.encoders import prunable_weights
from obert.pruning import Context, TrainingHook, prune_event
from obert.pruning.obert import OptimalBertSurgeon

SMALL = {"num_gradients": 64, "fisher_block_size": 16, "dampening": 1e-5}


def cross_entropy(model, batch):
    inputs, labels = batch
    return nn.functional.cross_entropy(model(inputs), labels, reduction="none")


def mean_loss(model, batch):
    return cross_entropy(model, batch).mean()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 24), nn.Dropout(0.5), nn.ReLU(), nn.Linear(24, 8))


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    inputs, labels = torch.randn(10, 8, 16, generator=generator), torch.randint(8, (10, 8), generator=generator)
    return list(zip(inputs, labels, strict=True))


class Nested(nn.Module):
    """An encoder with a head, and tokens before the head."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(16, 16)
        self.encoder = nn.ModuleDict({"first": nn.Linear(16, 20), "second": nn.Linear(20, 16)})
        self.head = nn.Linear(16, 8)

    def forward(self, inputs):
        tokens = self.embed(inputs).unsqueeze(1).expand(-1, 3, -1)
        return self.head(self.encoder["second"](torch.tanh(self.encoder["first"](tokens))).mean(1))


def zeros_of(model):
    return {f"{n}.weight": int((m.weight == 0).sum()) for n, m in model.named_modules() if isinstance(m, nn.Linear)}


def test_import_is_light_and_the_library_needs_no_harness():
    script = (
        "import sys, obert; assert 'torch' not in sys.modules; obert.prune;"
        "print([m for m in ('snakemake', 'mlflow', 'transformers', 'datasets', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="prunes"):
        obert.prunes  # noqa: B018


@pytest.mark.parametrize(
    ("pattern", "sparsity"), [("unstructured", 0.8), ("unstructured", 0.0), ("1x4", 0.75), ("2:4", 0.5), ("2:4", 0.3)]
)
@pytest.mark.parametrize("solver", ["independent", "joint", "greedy"])
def test_exact_counts_and_a_report_that_agrees(model, batches, pattern, sparsity, solver):
    report = prune(model, batches, cross_entropy, sparsity, pattern=pattern, solver=solver, **SMALL)
    size = 16 * 24 + 24 * 8
    step = {"unstructured": 1, "1x4": 4, "2:4": 2}[pattern]
    assert report.total.zeros == round(size * sparsity / step) * step == sum(zeros_of(model).values())
    assert {name: layer.zeros for name, layer in report.layers.items()} == zeros_of(model)
    for name, layer in report.layers.items():
        assert layer.target == layer.measured == pytest.approx(1 - report.masks[name].float().mean().item())
    increases = [layer.predicted_loss_increase for layer in report.layers.values()]
    assert report.total.predicted_loss_increase == pytest.approx(sum(increases))
    assert all(increase >= 0 for increase in increases)
    groups = torch.cat([(~mask).view(-1, max(step, 4)).sum(1) for mask in report.masks.values()])
    if pattern != "unstructured":
        assert set(groups.tolist()) <= {0, step}
    assert report.seconds["total"] >= report.seconds["gradients"] > 0
    assert report.peak_memory_mb > 10
    text = str(report)
    assert "0.weight" in text
    assert f"{report.total.measured:.2%}" in text
    assert solver == report.parameters["solver"]


def test_agrees_with_a_pruning_event_of_the_harness(model, batches):
    twin = nn.Sequential(nn.Linear(16, 24), nn.Dropout(0.5), nn.ReLU(), nn.Linear(24, 8))
    twin.load_state_dict(model.state_dict())
    report = prune(model, batches, cross_entropy, 0.7, **SMALL)

    class Data:
        def examples(self, count, batch_size, draw):
            return iter(batches[:8])

    layers = {"0.weight": twin[0], "3.weight": twin[3]}
    masks = dense_masks({name: layer.weight for name, layer in layers.items()})
    method = OptimalBertSurgeon(gradients="per_example", **SMALL)
    context = Context(TrainingHook(layers), masks, Data(), lambda b: cross_entropy(twin.eval(), b), torch.Generator())
    masks = prune_event(method, context, 0.7).masks
    for name, layer in layers.items():
        assert torch.equal(report.masks[name], masks[name])
        assert torch.equal(model.get_parameter(name), layer.weight)


def test_magnitude_takes_neither_gradients_nor_parameters(model):
    report = prune(model, (), None, 0.5, method="magnitude")
    assert report.total.predicted_loss_increase is None
    assert "-" in str(report)
    with pytest.raises(UserError, match="unknown key 'solver'"):
        prune(model, (), None, 0.5, method="magnitude", solver="greedy")


def test_snip_takes_the_gradient_of_one_batch(model, batches):
    model.eval()
    layers = {"0.weight": model[0].weight, "3.weight": model[3].weight}
    gradients = torch.autograd.grad(mean_loss(model, batches[0]), list(layers.values()))
    scores = torch.cat([(w * g).abs().flatten() for w, g in zip(layers.values(), gradients, strict=True)])
    report = prune(model, batches, mean_loss, 0.5, method="snip")
    assert report.parameters["gradients"] == "minibatch"
    kept = torch.cat([mask.flatten() for mask in report.masks.values()])
    assert kept.sum() == kept.numel() // 2 and scores[kept].min() >= scores[~kept].max()


def test_methods_that_learn_in_training_are_refused(model, batches):
    with pytest.raises(UserError, match="'movement' learns its scores in training"):
        prune(model, batches, cross_entropy, method="movement")


def test_last_batch_is_cut_and_no_more_is_read(model, batches):
    """50 gradients of batches of 8 are those of the first 50 examples."""
    whole = [(torch.cat([x for x, _ in batches])[:50], torch.cat([y for _, y in batches])[:50])]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    settings = {**SMALL, "num_gradients": 50}
    read = []
    source = (read.append(1) or batch for batch in batches)
    prune(model, source, cross_entropy, 0.5, **settings)
    assert len(read) == 7
    cut = model[0].weight.detach().clone()
    model.load_state_dict(state)
    prune(model, whole, cross_entropy, 0.5, **settings)
    torch.testing.assert_close(cut, model[0].weight)


def test_recomputations_go_on_with_further_batches_and_begin_again_when_there_are_none(model, batches):
    seen = []

    def loss(model, batch):
        seen.append(next(i for i, known in enumerate(batches) if known is batch))
        return cross_entropy(model, batch)

    prune(model, batches, loss, 0.6, recomputations=3, **{**SMALL, "num_gradients": 36})
    first, *rest = seen  # the first is tried before anything is computed
    assert first == 0
    assert [rest[i : i + 5] for i in range(0, 15, 5)] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [0, 1, 2, 3, 4]]


def test_passes_over_layer_groups_see_the_same_batches(model, batches):
    state = {name: value.clone() for name, value in model.state_dict().items()}
    endless = (batches[i % 10] for i in count())
    masks = prune(model, endless, cross_entropy, 0.6, **SMALL).masks
    model.load_state_dict(state)
    in_passes = prune(model, batches, cross_entropy, 0.6, fisher_memory=24 * 16**2 * 4 / 1e9, **SMALL).masks
    assert all(torch.equal(masks[name], in_passes[name]) for name in masks)


def test_default_scope_is_the_encoder(batches):
    model = Nested()
    assert list(prune(model, batches, cross_entropy, **SMALL).layers) == [
        "encoder.first.weight",
        "encoder.second.weight",
    ]
    assert zeros_of(model)["head.weight"] == 0


@pytest.mark.parametrize("name", ["distilbert", "modernbert", "albert"])
def test_default_scope_of_a_model_of_transformers_is_that_of_the_harness(name):
    """Two of them have no submodule named `encoder`, and ALBERT's has a layer that belongs to the embeddings."""
    model = AutoModelForSequenceClassification.from_config(config(name))
    tokens = [torch.randint(5, 100, (2, 6), generator=torch.Generator().manual_seed(0))]
    report = prune(model, tokens, lambda m, x: m(input_ids=x).logits.square().sum(-1), 0.5, "magnitude")
    assert report.layers.keys() == prunable_weights(model).keys()


@pytest.mark.parametrize("scope", ["encoder.first", ["encoder.f*", "head"]])
def test_scope_selects_layers_by_name(batches, scope):
    report = prune(Nested(), batches, cross_entropy, scope=scope, **SMALL)
    assert list(report.layers) == (["encoder.first.weight"] if isinstance(scope, str) else
                                   ["encoder.first.weight", "head.weight"])  # fmt: skip


def test_a_layer_alone_is_a_model(batches):
    report = prune(nn.Linear(16, 8), batches, cross_entropy, 0.5, **SMALL)
    assert list(report.layers) == ["weight"]


@pytest.mark.parametrize("gradients", ["per_example", "minibatch"])
def test_modes_flags_and_gradients_are_restored(model, batches, gradients):
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[3].bias.requires_grad_(False)
    mean_loss(model, batches[0]).backward()
    before = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    settings = {**SMALL, "num_gradients": 8, "gradients": gradients}
    report = prune(model, batches, cross_entropy if gradients == "per_example" else mean_loss, 0.5, **settings)
    assert report.layers["0.weight"].zeros > 0
    assert [module.training for module in model] == [True, False, True, True]
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, False]
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (before[name] is None)
        assert parameter.grad is None or torch.equal(parameter.grad, before[name])


def test_modes_are_restored_after_an_error(model, batches):
    with pytest.raises(UserError):
        prune(model, batches, mean_loss, **SMALL)
    assert all(module.training for module in model.modules())


def test_masks_continue_an_earlier_pruning_and_hold_through_momentum(model, batches):
    first = prune(model, batches, cross_entropy, 0.5, **SMALL)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    mean_loss(model, batches[0]).backward()
    optimizer.step()  # moments that push pruned weights from zero
    handle = hold_masks(model, first.masks, optimizer)
    for batch in batches[:3]:
        optimizer.zero_grad()
        mean_loss(model, batch).backward()
        optimizer.step()
        assert all((model.get_parameter(n)[~m] == 0).all() for n, m in first.masks.items())
    second = prune(model, batches, cross_entropy, 0.8, masks=first.masks, **SMALL)
    assert all(not (second.masks[name] & ~mask).any() for name, mask in first.masks.items())
    assert second.total.zeros == round(0.8 * 576)
    handle.remove()
    optimizer.step()
    assert any((model.get_parameter(n)[~m] != 0).any() for n, m in first.masks.items())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"sparsity": 1.0}, "sparsity 1.0"),
        ({"sparsity": -0.1}, "at least 0"),
        ({"pattern": "2:4"}, "more than pattern 2:4 allows"),
        ({"pattern": "4by1"}, "allowed are unstructured"),
        ({"pattern": "4x1"}, "prune groups inside rows"),
        ({"pattern": "1x5"}, "no multiple of 5"),
        ({"pattern": "1x4", "fisher_block_size": 50}, "must be a multiple of 4"),
        ({"method": "orbit"}, "Did you mean 'obert'"),
        ({"dampenning": 1e-4}, "Did you mean 'dampening'"),
        ({"num_gradients": 0}, "key 'num_gradients'"),
        ({"gradient_batch_size": 4}, "each of `batches` is one pass"),
        ({"scope": "3x"}, "unknown layer '3x'"),
        ({"num_gradients": 81}, "there are 80 examples"),
        ({"num_gradients": 11, "gradients": "minibatch"}, "there are 10 batches"),
        ({"batches": []}, "there is none"),
        ({"loss": mean_loss}, r"one value an example, \[batch\], found shape \[\]"),
        ({"loss": lambda m, b: cross_entropy(m, b) / 0}, "not finite"),
        ({"loss": lambda m, b: cross_entropy(m, b).detach()}, "no gradient reaches"),
        ({"loss": lambda m, b: cross_entropy(m, b)[:3]}, "first dimension 8 where the loss has 3"),
        ({"model": nn.Sequential(nn.ReLU())}, "no nn.Linear"),
        ({"masks": {"0.weight": torch.ones(24, 16, dtype=torch.bool)}}, "differ: 3.weight"),
    ],
)
def test_mistakes_are_told_before_any_weight_changes(model, batches, arguments, expected):
    before = model[0].weight.detach().clone()
    given = {"model": model, "batches": batches, "loss": cross_entropy, "num_gradients": 64, **arguments}
    with pytest.raises(UserError, match=expected):
        prune(**given)
    assert torch.equal(before, model[0].weight)


def test_an_iterator_that_ends_too_soon_says_how_many_it_gave(model, batches):
    with pytest.raises(UserError, match="num_gradients 100: the data gave 80"):
        prune(model, iter(batches), cross_entropy, num_gradients=100)


def test_a_layer_that_is_never_called_is_named(batches):
    model = Nested()
    model.unused = nn.Linear(16, 8)
    with pytest.raises(UserError, match=r"unused\.weight"):
        prune(model, batches, cross_entropy, scope="*", **SMALL)


def test_shared_weights_are_refused(batches):
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 8))
    model[1].weight = model[0].weight
    with pytest.raises(UserError, match="share one weight"):
        prune(model, batches, cross_entropy, **SMALL)


@pytest.mark.parametrize("change", ["below", "ragged", "shape"])
def test_masks_that_do_not_fit_are_refused(model, batches, change):
    masks = prune(model, batches, cross_entropy, 0.5, pattern="1x4", **SMALL).masks
    arguments, expected = {"sparsity": 0.8, "pattern": "1x4"}, "pruned in part"
    if change == "below":
        arguments, expected = {"sparsity": 0.4}, "below that of the masks"
    elif change == "ragged":
        masks["0.weight"][0, 0] = ~masks["0.weight"][0, 0]
    else:
        masks["0.weight"], expected = masks["0.weight"].T, "the weight is"
    with pytest.raises(UserError, match=expected):
        prune(model, batches, cross_entropy, masks=masks, **arguments, **SMALL)


def test_a_method_object_is_taken_as_it_is(model, batches):
    method = OptimalBertSurgeon(**SMALL, gradients="per_example")
    found = prune(copy.deepcopy(model), batches, cross_entropy, 0.5, method)
    named = prune(copy.deepcopy(model), batches, cross_entropy, 0.5, "obert", **SMALL)
    assert all(torch.equal(found.masks[name], mask) for name, mask in named.masks.items())
    assert (found.method, found.parameters) == ("OptimalBertSurgeon", named.parameters)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError, match=r"dampening is beside a method .*: give it to OptimalBertSurgeon\(\.\.\.\)"):
        prune(model, batches, cross_entropy, 0.5, method, dampening=1e-3)
    with pytest.raises(UserError, match="fisher_block_size"):
        prune(model, batches, cross_entropy, 0.5, OptimalBertSurgeon(fisher_block_size=6), pattern="1x4")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_hold_masks_refuses_masks_of_unknown_weights(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UserError, match=r"Did you mean '0\.weight'"):
        hold_masks(model, {"0.weights": torch.ones(24, 16, dtype=torch.bool)}, optimizer)
    with pytest.raises(UserError, match=r"\[16, 24\], the weight is \[24, 16\]"):
        hold_masks(model, {"0.weight": torch.ones(16, 24, dtype=torch.bool)}, optimizer)


def test_greedy_loses_less_than_independent_and_magnitude_where_inputs_are_correlated():
    """Least squares with unit noise at its optimum: the empirical Fisher is the Hessian but for sampling noise."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(2048, 16, generator=generator) @ torch.randn(16, 16, generator=generator)
    targets = inputs @ torch.randn(16, 4, generator=generator) + torch.randn(2048, 4, generator=generator)
    optimum = torch.linalg.lstsq(inputs, targets).solution.T

    def loss(model, batch):
        return (model(batch[0]) - batch[1]).square().sum(1) / 2

    losses, predicted = {}, {}
    for method, parameters in {
        "magnitude": {},
        "independent": {"solver": "independent"},
        "greedy": {"solver": "greedy"},
    }.items():
        model = nn.Linear(16, 4, bias=False)
        model.weight.data = optimum.clone()
        if parameters:
            parameters = {**parameters, "num_gradients": 2048, "fisher_block_size": 16}
        batches = list(zip(inputs.split(64), targets.split(64), strict=True))
        dense = loss(model, (inputs, targets)).mean().item()
        name = "magnitude" if method == "magnitude" else "obert"
        report = prune(model, batches, loss, 0.5, method=name, **parameters)
        losses[method] = loss(model, (inputs, targets)).mean().item() - dense
        predicted[method] = report.total.predicted_loss_increase
    assert losses["greedy"] <= losses["independent"]
    assert losses["greedy"] < losses["magnitude"]
    assert losses["greedy"] == pytest.approx(predicted["greedy"], rel=0.25)
