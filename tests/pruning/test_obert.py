"""oBERT's events against the formulas in float64, each solver at each pattern; memory, recomputations, edges."""

from dataclasses import replace
from itertools import chain, combinations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import PrivateAttr
from torch import nn

from obert.foundation.errors import UserError
from obert.masks.patterns import Pattern
from obert.masks.selection import dense_masks, global_masks
from obert.pruning import prune_event
from obert.pruning.obert import OptimalBertSurgeon
from obert.pruning.shared import block_fisher

SOLVERS = ["independent", "joint", "greedy"]
SPARSITIES = {"unstructured": (0.4, 0.75), "1x4": (0.4, 0.7), "2:4": (0.2, 0.5), "1:4": (0.3, 0.6)}


def small(**parameters):
    """The method over 48 examples of the small setting."""
    defaults = {"num_gradients": 48, "gradients": "per_example", "fisher_block_size": 12, "dampening": 1e-3}
    return OptimalBertSurgeon(**defaults | {"gradient_batch_size": 20, "solver": "independent"} | parameters)


def resized(setting, widths=(8, 12, 5)):
    """The setting with layers of other widths: by default, rows are whole groups of four."""
    first, second, third = widths
    torch.manual_seed(0)
    setting.model = nn.Sequential(
        nn.Linear(first, second), nn.Tanh(), nn.Linear(second, third), nn.Tanh(), nn.Linear(third, 3)
    ).eval()
    setting.layers = {"0.weight": setting.model[0], "2.weight": setting.model[2]}
    setting.inputs = torch.randn(64, 5, first, generator=torch.Generator().manual_seed(first))
    setting.masks = dense_masks({name: layer.weight for name, layer in setting.layers.items()})
    return setting


def event(setting, method, sparsity, pattern="unstructured", **changes):
    """One pruning event of the setting, with its context changed; returns what it did."""
    context = replace(setting.context(), pattern=Pattern.parse(pattern), **changes)
    done = prune_event(method, context, sparsity)
    setting.masks = done.masks
    return done


def weights_of(setting):
    return {name: layer.weight.detach().clone() for name, layer in setting.layers.items()}


def zeros(masks):
    return sum(int((~mask).sum()) for mask in masks.values())


def assert_same(first, second):
    for name in first.layers:
        assert torch.equal(first.masks[name], second.masks[name])
        assert torch.equal(first.layers[name].weight, second.layers[name].weight)


def fishers(setting, block_size, dampening, count=48):
    """lambda I + G'G/m of each tensor in float64, zero between blocks, from one backward pass an example."""
    losses, result = setting.context().losses, {}
    weights = [layer.weight for layer in setting.layers.values()]
    rows = [torch.autograd.grad(losses(torch.tensor([i])).sum(), weights) for i in range(count)]
    for name, values in zip(setting.layers, zip(*rows, strict=True), strict=True):
        gradients = torch.stack(values).flatten(1).double()
        block = torch.arange(gradients.shape[1]) // block_size
        full = dampening * torch.eye(len(block), dtype=torch.float64) + gradients.T @ gradients / count
        result[name] = full * (block[:, None] == block)
    return result


def constrained_minimum(fisher, weights, kept, chosen):
    """The dw over kept coordinates that minimises 1/2 dw'F dw subject to dw_Q = -w_Q, by Lagrange's linear system."""
    index = torch.nonzero(kept).flatten()
    constraint = (index == torch.tensor(chosen, dtype=torch.long)[:, None]).double()
    corner = torch.zeros(len(chosen), len(chosen), dtype=torch.float64)
    system = torch.cat([torch.cat([fisher[index][:, index], constraint.T], 1), torch.cat([constraint, corner], 1)])
    right = torch.cat([torch.zeros(len(index), dtype=torch.float64), -weights[chosen]])
    change = torch.zeros_like(weights)
    change[index] = torch.linalg.solve(system, right)[: len(index)]
    return change


def cheapest_sets(fisher, weights, kept, pattern):
    """The cost 1/2 w_Q' (F^-1[Q, Q])^-1 w_Q and members of the cheapest set of each group with no weight pruned."""
    index, inverse = torch.nonzero(kept).flatten(), torch.eye(len(kept), dtype=torch.float64)
    inverse[index[:, None], index] = torch.linalg.inv(fisher[index][:, index])
    for start in range(0, len(kept), pattern.size):
        if kept[start : start + pattern.size].all():
            yield min(
                (float(weights[q] @ torch.linalg.solve(inverse[q][:, q], weights[q])) / 2, q)
                for q in map(list, combinations(range(start, start + pattern.size), pattern.zeros))
            )


@pytest.mark.parametrize("block_size", [12, 160], ids=["blocks of 12", "one block"])
@pytest.mark.parametrize("pattern", SPARSITIES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_two_events_follow_the_formulas(setting_of, solver, pattern, block_size):
    setting, groups = resized(setting_of()), Pattern.parse(pattern)
    method = small(solver=solver, fisher_block_size=block_size)
    for sparsity in SPARSITIES[pattern]:
        fisher, before = fishers(setting, block_size, 1e-3), setting.masks
        old = {name: weight.flatten().double() for name, weight in weights_of(setting).items()}
        kept = {name: mask.flatten() for name, mask in before.items()}
        increases = event(setting, method, sparsity, pattern).predicted_loss_increase
        new = {name: weight.flatten().double() for name, weight in weights_of(setting).items()}

        assert zeros(setting.masks) == round(156 * sparsity / groups.zeros) * groups.zeros
        ranked = sorted(
            (cost, name, chosen)
            for name in fisher
            for cost, chosen in cheapest_sets(fisher[name], old[name], kept[name], groups)
        )
        pruned = {name: kept[name] & ~setting.masks[name].flatten() for name in fisher}
        ranked = ranked[: sum(int(p.sum()) for p in pruned.values()) // groups.zeros]
        for name in fisher:
            members = torch.nonzero(pruned[name]).flatten().tolist()
            if solver == "greedy":
                expected = constrained_minimum(fisher[name], old[name], kept[name], members)
            else:
                sets = [chosen for _, owner, chosen in ranked if owner == name]
                assert sorted(chain(*sets)) == members
                sets = [members] if solver == "joint" else sets
                expected = sum(constrained_minimum(fisher[name], old[name], kept[name], q) for q in sets)
            expected = torch.where(setting.masks[name].flatten(), expected, -old[name])
            torch.testing.assert_close(new[name] - old[name], expected, rtol=1e-3, atol=1e-5)
            assert (new[name][~setting.masks[name].flatten()] == 0).all()
            assert float(expected @ fisher[name] @ expected) / 2 == pytest.approx(increases[name], rel=1e-3)


@pytest.mark.parametrize("unit", ["per_example", "minibatch"])
@pytest.mark.parametrize("block_size", [1, 160])
def test_gradients_are_those_of_examples_or_of_minibatches(setting_of, unit, block_size):
    setting = setting_of()
    context, chosen = setting.context(), torch.arange(48).split(1 if unit == "per_example" else 8)
    weights = [layer.weight for layer in setting.layers.values()]
    rows = [torch.autograd.grad(context.losses(batch).mean(), weights) for batch in chosen]
    method = small(fisher_block_size=block_size, gradients=unit, num_gradients=len(chosen), gradient_batch_size=8)
    scores = method.propose(context).scores
    for name, values in zip(setting.layers, zip(*rows, strict=True), strict=True):
        gradients, weight = torch.stack(values).flatten(1).double(), setting.layers[name].weight.detach().flatten()
        fisher = 1e-3 * torch.eye(len(weight), dtype=torch.float64) + gradients.T @ gradients / len(chosen)
        diagonal = 1 / fisher.diagonal() if block_size == 1 else torch.linalg.inv(fisher).diagonal()
        expected = weight.double() ** 2 / (2 * diagonal)
        torch.testing.assert_close(scores[name].flatten().double(), expected, rtol=1e-3, atol=0)


def test_number_of_gradients_need_not_be_a_multiple_of_the_pass(setting_of):
    setting = setting_of()
    fisher = fishers(setting, 48, 1e-3, count=13)["0.weight"]
    method = small(num_gradients=13, gradient_batch_size=8, fisher_block_size=48)
    scores = method.propose(setting.context()).scores["0.weight"]
    weights = setting.layers["0.weight"].weight.detach().flatten().double()
    expected = weights**2 / (2 * torch.linalg.inv(fisher).diagonal())
    torch.testing.assert_close(scores.flatten().double(), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_blocks_of_one_are_optimal_brain_damage(setting_of, solver):
    setting = setting_of()
    fisher, before = fishers(setting, 1, 1e-3), weights_of(setting)
    scores = {name: before[name] ** 2 * fisher[name].diagonal().view_as(before[name]) / 2 for name in before}
    expected = global_masks(scores, setting.masks, 0.6)
    event(setting, small(solver=solver, fisher_block_size=1), 0.6)
    for name, weight in weights_of(setting).items():
        assert torch.equal(setting.masks[name], expected[name])
        assert torch.equal(weight, before[name] * expected[name])


@pytest.mark.parametrize(
    ("dampening", "loss_scale"),
    [(1e7, 1), (1e-7, 0), (1e-7, 1e-30), ("1%", 0), ("1%", 1e-30)],
    ids=["huge", "no gradients", "squares underflow", "share, no gradients", "share, squares underflow"],
)
@pytest.mark.parametrize("pattern", SPARSITIES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_where_dampening_is_all_there_is_magnitude_decides_and_nothing_moves(
    setting_of, solver, pattern, dampening, loss_scale
):
    setting = resized(setting_of())
    before = weights_of(setting)
    squares = {name: weight.double() ** 2 for name, weight in before.items()}
    expected = global_masks(squares, setting.masks, SPARSITIES[pattern][1], Pattern.parse(pattern))
    losses = setting.context().losses
    method = small(solver=solver, dampening=dampening)
    event(setting, method, SPARSITIES[pattern][1], pattern, losses=lambda batch: losses(batch) * loss_scale)
    for name, weight in weights_of(setting).items():
        assert torch.equal(setting.masks[name], expected[name])
        torch.testing.assert_close(weight, before[name] * expected[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("pattern", SPARSITIES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_by_default_the_scale_of_the_loss_does_not_matter(setting_of, solver, pattern):
    """With a number as dampening it does: next to small gradients it is all there is."""

    def pruned(dampening, scale):
        setting = resized(setting_of())
        losses = setting.context().losses
        method = small(solver=solver, dampening=dampening)
        event(setting, method, SPARSITIES[pattern][1], pattern, losses=lambda batch: losses(batch) * scale)
        return setting.masks, weights_of(setting)

    default, scale = OptimalBertSurgeon().dampening, 2.0**-24  # a power of two rounds the same
    for first, second in zip(pruned(default, 1), pruned(default, scale), strict=True):
        torch.testing.assert_close(first, second)
    (first, _), (second, _) = pruned(1e-3, 1), pruned(1e-3, scale)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_the_recursion_is_refused_where_it_has_no_start():
    for dampening in ({}, {"dampening": 0}, {"dampening": "1%"}):
        with pytest.raises(ValueError, match="recursion starts from I / dampening: set 'dampening' to a number above"):
            OptimalBertSurgeon(accumulation="recursion", **dampening)


@pytest.mark.parametrize("given", [1e-3, "1e-3", 0, "1%", "0.50 %", 100])
def test_dampening_is_a_number_or_a_share(given):
    kept = OptimalBertSurgeon(dampening=given).dampening
    assert kept == {"1%": "1%", "0.50 %": "0.5%"}.get(given, kept)
    assert OptimalBertSurgeon(dampening=kept).dampening == kept
    if not str(given).endswith("%"):
        assert kept == float(given)


@pytest.mark.parametrize("given", [-1, "-1%", "abc", "1%%", "%", True, None, "inf", float("nan"), [1]])
def test_dampening_that_is_neither_is_refused(given):
    with pytest.raises(ValueError, match=r"greater than or equal to 0, or a share as in '1%'"):
        OptimalBertSurgeon(dampening=given)


def test_recursion_prunes_what_the_sum_prunes(setting_of):
    first, second = resized(setting_of()), resized(setting_of())
    for sparsity in (0.4, 0.7):
        event(first, small(solver="joint", dampening=0.1), sparsity)
        event(second, small(solver="joint", dampening=0.1, accumulation="recursion"), sparsity)
    for name in first.layers:
        assert torch.equal(first.masks[name], second.masks[name])
        torch.testing.assert_close(first.layers[name].weight, second.layers[name].weight, rtol=1e-3, atol=1e-4)


class Recording(OptimalBertSurgeon):
    """Keeps what was drawn: the count of the draw, the tensors, and how many weights were pruned by then."""

    _drawn: list = PrivateAttr(default_factory=list)

    def draw(self, context, names):
        names = list(names)
        self._drawn.append((context.draw, names, zeros(context.masks)))
        yield from super().draw(context, names)


@pytest.mark.parametrize(
    ("spacing", "count", "present", "sparsity", "expected"),
    [
        ("linear", 1, 0.2, 0.9, [0.9]),
        ("linear", 3, 0.5, 0.8, [0.6, 0.7, 0.8]),
        ("linear", 4, 0.0, 0.7, [0.175, 0.35, 0.525, 0.7]),
        ("geometric", 1, 0.2, 0.9, [0.9]),
        ("geometric", 2, 0.0, 0.75, [0.5, 0.75]),
        ("geometric", 3, 0.2, 0.9, [0.6, 0.8, 0.9]),  # densities 0.8, 0.4, 0.2, 0.1
        ("linear", 2, 1.0, 0.75, [0.75, 0.75]),  # all of two weights: 1.5 are rounded
        ("geometric", 2, 1.0, 0.75, [0.75, 0.75]),
    ],
)
def test_sub_steps_of_an_event_are_as_worked_out_by_hand(spacing, count, present, sparsity, expected):
    targets = small(recomputations=count, recomputation_spacing=spacing).targets(present, sparsity)
    assert targets == pytest.approx(expected, abs=1e-12)
    assert targets[-1] == sparsity


@pytest.mark.parametrize(
    ("spacing", "pruned"), [("linear", [0, 26, 52, 78]), ("geometric", [0, 43, 68, 83])], ids=["linear", "geometric"]
)
def test_each_recomputation_has_fresh_data_and_its_own_exact_target(setting_of, spacing, pruned):
    """Of 104 weights: a quarter, a half, three quarters, all of it; or densities 1, 0.585, 0.342 and 0.2."""
    sparsity = 1.0 - 0.2 if spacing == "geometric" else 0.75
    setting, batches = setting_of(), {}
    data = setting.context().data

    class Data:
        def examples(self, count, batch_size, draw):
            for batch in data.examples(count, batch_size, draw):
                batches.setdefault(draw, []).append(batch)
                yield batch

    method = Recording(
        num_gradients=16, gradients="per_example", dampening=1e-3, recomputations=3, recomputation_spacing=spacing
    )
    increases = event(setting, method, sparsity, data=Data()).predicted_loss_increase
    assert [(draw, done) for draw, _, done in method._drawn] == list(enumerate(pruned[:3]))
    assert zeros(setting.masks) == pruned[3]
    seen = [frozenset(torch.cat(batches[draw]).tolist()) for draw in range(3)]
    assert all(not a & b for a, b in combinations(seen, 2))
    apart, single = setting_of(), OptimalBertSurgeon(**method.model_dump() | {"recomputations": 1})
    steps = enumerate(method.targets(0, sparsity))
    parts = [event(apart, single, target, draw=k).predicted_loss_increase for k, target in steps]
    assert_same(apart, setting)
    assert increases == {name: sum(part[name] for part in parts) for name in setting.layers}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_less_memory_takes_more_passes_and_changes_nothing_else(setting_of, solver, pattern):
    """Blocks of 12: 96 weights take 4608 bytes, and 60 take 2880."""
    parameters = small(solver=solver, recomputations=2).model_dump()
    settings, drawn = [], []
    for budget in (None, 1e-5, 5e-6):
        setting, method = resized(setting_of()), Recording(**parameters | {"fisher_memory": budget})
        for sparsity in SPARSITIES[pattern]:
            event(setting, method, sparsity, pattern)
        settings.append(setting)
        drawn.append([names for _, names, _ in method._drawn])
    both = list(settings[0].layers)
    assert drawn[0] == drawn[1] == [both] * 4  # once for each of two sub-steps of two events
    assert drawn[2] == [[name] for name in both] * 8  # once to score, and once more to update
    assert_same(settings[0], settings[1])
    assert_same(settings[0], settings[2])


def test_budget_too_small_for_a_tensor_names_it(setting_of):
    setting = resized(setting_of())
    with pytest.raises(UserError, match=r"fisher_memory 4e-06 GB.*'0\.weight' alone take 4\.61e-06 GB"):
        event(setting, small(fisher_memory=4e-6), 0.5)


def test_more_memory_than_is_free_is_refused_before_the_first_gradient(setting_of, monkeypatch):
    monkeypatch.setattr(block_fisher, "free_memory", lambda _: 10_000)
    method = Recording(**small().model_dump())
    with pytest.raises(UserError, match="Set fisher_memory"):
        event(resized(setting_of()), method, 0.5)
    assert not method._drawn


@pytest.mark.parametrize("pattern", ["1x4", "2:4"])
@pytest.mark.parametrize("block_size", [1, 6, 50])
def test_groups_that_would_straddle_blocks_are_refused(setting_of, pattern, block_size):
    method = small(fisher_block_size=block_size)
    with pytest.raises(UserError, match=rf"fisher_block_size {block_size} must be a multiple of 4"):
        method.check_pattern(Pattern.parse(pattern))
    with pytest.raises(UserError, match="multiple of 4"):
        event(resized(setting_of()), method, 0.5, pattern)
    small(fisher_block_size=48).check_pattern(Pattern.parse(pattern))


@pytest.mark.parametrize("solver", SOLVERS)
def test_no_dampening_works_where_gradients_span_the_blocks(setting_of, solver):
    setting = resized(setting_of())
    event(setting, small(solver=solver, fisher_block_size=4, dampening=0.0), 0.6)
    assert zeros(setting.masks) == round(0.6 * 156)
    assert all(torch.isfinite(weight).all() for weight in weights_of(setting).values())


@pytest.mark.parametrize("solver", SOLVERS)
def test_no_dampening_where_they_do_not_names_the_tensor_and_changes_nothing(setting_of, solver):
    setting = resized(setting_of())
    setting.model[2].weight.data[:] = 1e-3
    setting.model[0].weight.data[3], setting.model[0].bias.data[3] = 0, 0  # so input 3 of the next layer is zero
    before = weights_of(setting)
    with pytest.raises(UserError, match=r"Fisher of tensor '2\.weight'.*raise the dampening"):
        event(setting, small(solver=solver, fisher_block_size=4, dampening=0.0), 0.6)
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(setting).items())


@pytest.mark.parametrize("unit", ["per_example", "minibatch"])
@pytest.mark.parametrize(
    ("accumulation", "value"),
    [(way, value) for way in ("sum", "recursion") for value in (float("inf"), float("nan"))] + [("sum", 1e30)],
)
def test_gradient_that_is_not_finite_names_its_tensor_and_changes_nothing(setting_of, value, unit, accumulation):
    """The square of 1e30 is more than float32 holds."""
    setting = resized(setting_of())
    first, second = setting.layers.values()

    def losses(chosen):
        hidden = first(setting.inputs[chosen])
        return hidden.square().mean((1, 2)) + second(hidden.detach()).sum((1, 2)) * value

    before = weights_of(setting)
    method = small(gradients=unit, num_gradients=8, gradient_batch_size=8, accumulation=accumulation)
    with pytest.raises(UserError, match=r"'2\.weight'"):
        event(setting, method, 0.5, losses=losses)
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(setting).items())


def test_distillation_without_a_teacher_is_refused(setting_of):
    with pytest.raises(UserError, match="gradient_loss: distillation needs a teacher"):
        event(setting_of(), small(gradient_loss="distillation"), 0.5)


def test_the_loss_that_is_asked_for_is_the_one_used(setting_of):
    task, same, other = setting_of(), setting_of(), setting_of()
    event(task, small(), 0.5)
    labels = same.context().losses
    event(same, small(gradient_loss="distillation"), 0.5, losses=None, distillation_losses=labels)

    def distances(chosen):
        return other.model(other.inputs[chosen]).square().mean((1, 2))

    event(other, small(gradient_loss="distillation"), 0.5, distillation_losses=distances)
    assert_same(task, same)
    assert any(not torch.equal(task.layers[n].weight, other.layers[n].weight) for n in task.layers)


@given(st.data())
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_shapes_events_are_exact_finite_and_monotone(setting_of, data):
    name = data.draw(st.sampled_from(["unstructured", "1x2", "1x4", "2:4", "1:4", "1:2"]))
    pattern, sizes = Pattern.parse(name), st.integers(1, 4)
    widths = [pattern.size * data.draw(sizes), pattern.size * data.draw(sizes), data.draw(st.integers(1, 6))]
    setting = resized(setting_of(), widths)
    method = small(
        solver=data.draw(st.sampled_from(SOLVERS)),
        fisher_block_size=pattern.size * data.draw(st.integers(1, 12)),
        dampening=data.draw(st.sampled_from([1e-6, 1e-3, 10.0])),
        num_gradients=data.draw(st.integers(1, 16)),
        gradients=data.draw(st.sampled_from(["per_example", "minibatch"])),
        gradient_batch_size=data.draw(st.integers(1, 5)),
        recomputations=data.draw(st.integers(1, 3)),
        recomputation_spacing=data.draw(st.sampled_from(["linear", "geometric"])),
    )
    size = sum(mask.numel() for mask in setting.masks.values())
    shares = data.draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=3))
    for sparsity in sorted(share * pattern.largest_sparsity for share in shares):
        before = setting.masks
        event(setting, method, sparsity, name)
        assert zeros(setting.masks) == round(size * sparsity / pattern.zeros) * pattern.zeros
        for tensor, mask in setting.masks.items():
            weight = setting.layers[tensor].weight.detach()
            assert not (mask & ~before[tensor]).any()
            assert torch.isfinite(weight).all()
            assert (weight[~mask] == 0).all()
            pruned = (~mask).view(-1, pattern.size).sum(dim=1)
            assert ((pruned == 0) | (pruned == pattern.zeros)).all()
