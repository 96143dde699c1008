"""Gradual pruning in a loop of one's own: resuming, what it leaves alone, what it refuses."""

import pytest
import torch
from cheap_methods import library_settings
from safetensors import safe_open
from torch import nn

from obert import GradualPruner, hold_masks, load_masks, prune, save_masks, sparsity_schedule
from obert.foundation.errors import UserError

SMALL = {"num_gradients": 32, "fisher_block_size": 16, "dampening": 1e-5}
SCHEDULE = {4: 0.3, 8: 0.6, 10: 0.8, 12: 0.8}
SETTINGS = library_settings()
SETTINGS["soft_movement"] |= {"distribution": "uniform"}


def cross_entropy(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def model_of(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 24), nn.Dropout(0.5), nn.ReLU(), nn.Linear(24, 8))


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(1)
    inputs, labels = torch.randn(10, 8, 16, generator=generator), torch.randint(8, (10, 8), generator=generator)
    return list(zip(inputs, labels, strict=True))


class Loop:
    """A training loop with a checkpoint of everything in it."""

    def __init__(self, batches, method, seed=0, **settings):
        self.batches = batches
        self.model = model_of(seed)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        shuffled = torch.utils.data.DataLoader(batches, batch_size=None, shuffle=True)
        self.pruner = GradualPruner(
            self.model, SCHEDULE, method, optimizer=self.optimizer, batches=shuffled, loss=cross_entropy, **settings
        )

    def train(self, steps):
        self.model.train()
        for _ in range(steps):
            batch = self.batches[self.pruner.steps % len(self.batches)]
            (cross_entropy(self.model, batch).mean() + self.pruner.penalty()).backward()
            self.optimizer.step()
            self.pruner.step()
            self.optimizer.zero_grad()

    def result(self):
        report = self.pruner.finish()
        return {**report.masks, **{f"value {name}": p.detach() for name, p in self.model.named_parameters()}}


def check_same(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("how", ["state_dict", "file"])
@pytest.mark.parametrize("stop", [3, 4, 9])
@pytest.mark.parametrize("method", SETTINGS)
def test_a_resumed_run_is_the_same_bit_by_bit(batches, method, stop, how, tmp_path):
    whole = Loop(batches, method, **SETTINGS[method])
    torch.manual_seed(2)
    whole.train(14)

    first = Loop(batches, method, **SETTINGS[method])
    torch.manual_seed(2)
    first.train(stop)
    states = {"model": first.model.state_dict(), "optimizer": first.optimizer.state_dict()}
    torch.save({**states, "pruner": first.pruner.state_dict(), "random": torch.get_rng_state()}, tmp_path / "c.pt")
    first.pruner.save(tmp_path / "pruner.safetensors")
    first.train(2)  # what goes on changes nothing that was saved

    second = Loop(batches, method, seed=1, **SETTINGS[method])
    state = torch.load(tmp_path / "c.pt", weights_only=True)
    second.model.load_state_dict(state["model"])
    second.optimizer.load_state_dict(state["optimizer"])
    if how == "file":
        second.pruner.load(tmp_path / "pruner.safetensors")
    else:
        second.pruner.load_state_dict(state["pruner"])
    torch.set_rng_state(state["random"])
    assert second.pruner.steps == stop
    second.train(14 - stop)
    check_same(second.result(), whole.result())
    assert [event["sparsity"] for event in second.pruner.events] == [e["sparsity"] for e in whole.pruner.events]


def test_zeros_are_exact_after_every_step_and_events_are_told(batches):
    loop, seen = Loop(batches, "obert", **SMALL), []
    for _ in range(13):
        loop.train(1)
        zeros = sum(int((loop.model[i].weight == 0).sum()) for i in (0, 3))
        seen.append(zeros)
        assert zeros == round(576 * loop.pruner.sparsity)
    assert seen == [0] * 3 + [173] * 4 + [346] * 2 + [461] * 4
    events = loop.pruner.events
    assert [event["step"] for event in events] == [4, 8, 10]
    assert all(event["gradient_evaluations"] >= 32 for event in events)
    report = loop.pruner.finish()
    assert report.total.zeros == 461
    assert report.total.predicted_loss_increase == pytest.approx(
        sum(sum(event["predicted_loss_increase"].values()) for event in events)
    )
    assert report.seconds["total"] >= report.seconds["gradients"] > 0


def test_a_first_event_at_step_0_is_made_at_once(batches):
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = GradualPruner(model, {0: 0.5}, optimizer=optimizer, batches=batches, loss=cross_entropy, **SMALL)
    assert pruner.sparsity == 0.5
    one_shot = model_of()
    report = prune(one_shot, batches, cross_entropy, 0.5, **SMALL)
    assert all(torch.equal(pruner.masks[name], mask) for name, mask in report.masks.items())
    assert torch.equal(model[0].weight, one_shot[0].weight)


def test_an_event_leaves_modes_gradients_flags_and_random_numbers_alone(batches):
    model = model_of()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    shuffled = torch.utils.data.DataLoader(batches, batch_size=None, shuffle=True)
    state = torch.get_rng_state()
    pruner = GradualPruner(model, {1: 0.5}, optimizer=optimizer, batches=shuffled, loss=cross_entropy, **SMALL)
    cross_entropy(model, batches[0]).mean().backward()
    gradient = model[3].weight.grad.clone()
    optimizer.step()
    pruner.step()
    assert pruner.sparsity == 0.5
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model[3].weight.grad, gradient)
    assert model[0].weight.grad is None and not model[0].weight.requires_grad
    assert [module.training for module in model] == [True, False, True, True]


def test_only_methods_that_draw_read_the_batches(batches):
    class Unread:
        def __iter__(self):
            raise AssertionError("read")

    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    GradualPruner(model, {0: 0.5}, "magnitude", optimizer=optimizer, batches=Unread())
    with pytest.raises(AssertionError, match="read"):
        GradualPruner(model_of(), {0: 0.5}, optimizer=optimizer, batches=Unread(), loss=cross_entropy, **SMALL)


def test_learned_scores_are_a_group_of_their_own_and_gone_in_the_end(batches):
    loop = Loop(batches, "movement", score_learning_rate=0.5)
    assert [(group["lr"], group["weight_decay"]) for group in loop.optimizer.param_groups] == [(1e-2, 1e-2), (0.5, 0.0)]
    loop.train(13)
    loop.pruner.finish()
    assert loop.model.state_dict().keys() == model_of().state_dict().keys()


def test_an_early_end_leaves_zeros_where_pruned_weights_train_on(batches):
    """PLATON's come back between events."""
    loop = Loop(batches, "platon", window=3)
    loop.train(6)
    assert loop.pruner.finish().total.zeros == 173


def test_further_pruning_from_masks_of_a_file(batches, tmp_path):
    model = model_of()
    report = prune(model, batches, cross_entropy, 0.5, **SMALL)
    save_masks(report.masks, tmp_path / "masks.safetensors")
    masks = load_masks(tmp_path / "masks.safetensors")
    optimizer = torch.optim.AdamW(model.parameters())
    hold_masks(model, masks, optimizer)
    pruner = GradualPruner(model, {0: 0.5, 1: 0.7}, "magnitude", optimizer=optimizer, masks=masks)
    pruner.step()
    assert all(not (pruner.masks[name] & ~mask).any() for name, mask in report.masks.items())
    assert pruner.finish().total.zeros == round(0.7 * 576)
    with safe_open(tmp_path / "masks.safetensors", "pt") as file:
        assert set(file.keys()) == {"0.weight", "3.weight"}


def test_masks_that_are_held_already_get_in_the_way_of_weights_behind_masks(batches):
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    handle = hold_masks(model, prune(model, (), None, 0.5, "magnitude").masks, optimizer)
    pruner = GradualPruner(model, {1: 0.6}, "movement", optimizer=optimizer)
    cross_entropy(model, batches[0]).mean().backward()
    with pytest.raises(UserError, match=r"Call remove\(\) of what hold_masks gave"):
        optimizer.step()
    handle.remove()
    optimizer.step()
    pruner.step()
    assert sum(int((~mask).sum()) for mask in pruner.finish().masks.values()) == round(0.6 * 576)


@pytest.mark.parametrize(
    ("content", "expected"), [(None, "cannot be read"), (b"no tensors", "cannot be read"), ("state", "is no file of")]
)
def test_a_file_that_holds_no_masks_is_refused(batches, tmp_path, content, expected):
    path = tmp_path / "masks.safetensors"
    if content == "state":
        Loop(batches, "magnitude").pruner.save(path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=expected):
        load_masks(path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"schedule": {}}, "schedule: found {}"),
        ({"schedule": {0.5: 0.5}}, "schedule: step 0.5"),
        ({"schedule": {-1: 0.5}}, "at least 0"),
        ({"schedule": {1: 1.0}}, "schedule: step 1: 1.0"),
        ({"schedule": {1: 0.5, 2: 0.4}}, "falls to 0.4 at step 2, from 0.5"),
        ({"schedule": {1: 0.5}, "pattern": "2:4", "method": "movement", "masks": {}}, "masks and the layers"),
        ({"schedule": {1: 0.6}, "pattern": "2:4"}, "more than pattern 2:4 allows"),
        ({"optimizer": None}, "optimizer: found a NoneType"),
        ({"distribution": "layer"}, "allowed are global, uniform, row"),
        ({"method": "platon"}, "needs 10 optimiser steps before the first pruning event, which is at step 1"),
        ({"loss": None}, "loss: found None"),
        ({"batches": iter([])}, "an iterator ends at the first event"),
        ({"batches": 3}, "batches: found a int"),
        ({"num_gradients": 81}, "there are 80 examples"),
        ({"numgradients": 81}, "Did you mean 'num_gradients'"),
        ({"loss": lambda m, b: cross_entropy(m, b).mean()}, "one value an example"),
        ({"scope": "4"}, "unknown layer '4'"),
    ],
)
def test_mistakes_are_told_at_once_and_change_nothing(batches, change, expected):
    model = model_of()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = {} if change.get("method") else SMALL
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    given = {"optimizer": optimizer, "batches": batches, "loss": cross_entropy, "schedule": {1: 0.5}, **settings}
    with pytest.raises(UserError, match=expected):
        GradualPruner(model, **{**given, **change})
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert len(optimizer.param_groups) == 1


def test_a_scheduler_that_knows_nothing_of_the_scores_is_refused(batches):
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    with pytest.raises(UserError, match="make it after the GradualPruner"):
        GradualPruner(model, {1: 0.5}, "movement", optimizer=optimizer)
    assert not hasattr(model[0], "parametrizations")
    GradualPruner(model, {1: 0.5}, "magnitude", optimizer=optimizer)


def test_a_term_of_the_loss_is_not_forgotten(batches):
    loop = Loop(batches, "soft_movement")
    cross_entropy(loop.model, batches[0]).mean().backward()
    loop.optimizer.step()
    with pytest.raises(UserError, match=r"add pruner\.penalty\(\)"):
        loop.pruner.step()


def test_steps_without_the_pruner_are_noticed(batches):
    loop = Loop(batches, "magnitude")
    loop.train(10)
    cross_entropy(loop.model, batches[0]).mean().backward()
    loop.optimizer.step()
    with pytest.raises(UserError, match=r"optimiser steps without\s+pruner.step\(\)"):
        loop.pruner.finish()
    with pytest.raises(UserError, match="pruning is over"):
        loop.pruner.step()


def test_an_event_that_fails_leaves_the_weights(batches):
    bad = []

    def loss(model, batch):
        return cross_entropy(model, batch) / (0 if bad else 1)

    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    pruner = GradualPruner(model, {1: 0.5}, optimizer=optimizer, batches=batches, loss=loss, **SMALL)
    before = model[0].weight.detach().clone()
    bad.append(1)
    with pytest.raises(UserError, match=r"pruning to 0\.5 before step 1: loss: a value is not finite"):
        pruner.step()
    assert torch.equal(model[0].weight, before)


def test_weights_that_the_model_does_not_use_are_refused(batches):
    class Doubled(nn.Linear):
        def forward(self, inputs):
            return nn.functional.linear(inputs, self.weight + 1, self.bias)

    model = nn.Sequential(Doubled(16, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UserError, match="the forward pass used"):
        GradualPruner(model, {0: 0.5}, "magnitude", optimizer=optimizer, batches=batches, loss=cross_entropy)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda state: {**state, "method": "rigl"}, "of method 'rigl', this is 'magnitude'"),
        (lambda state: {**state, "masks": {}}, "masks and the layers to prune differ"),
        (lambda state: {**state, "hook": {"steps": torch.tensor(1)}}, "of other layers"),
        (lambda state: {"steps": 3}, "not what state_dict"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(batches, change, expected):
    pruner = Loop(batches, "magnitude").pruner
    with pytest.raises(UserError, match=expected):
        pruner.load_state_dict(change(pruner.state_dict()))


def test_sparsity_schedule_is_the_cubic_of_zhu_and_gupta():
    found = sparsity_schedule(0.9, start=10, end=50, every=10, initial=0.5)
    assert found == pytest.approx({10 + 10 * k: 0.9 - 0.4 * (1 - k / 4) ** 3 for k in range(5)})
    assert sparsity_schedule(0.9, 5, 5, 1) == {5: 0.9}
    assert sparsity_schedule(0.8, 0, 4, 2, 0.4, "linear", until=8) == pytest.approx(
        {0: 0.4, 2: 0.6, 4: 0.8, 6: 0.8, 8: 0.8}
    )
    for change in ({"final": 1.0}, {"start": 1.5}, {"end": 3}, {"every": 0}, {"initial": 0.95}, {"shape": "cube"}):
        with pytest.raises(UserError, match=next(iter(change))):
            sparsity_schedule(**{"final": 0.9, "start": 10, "end": 50, "every": 10, **change})
