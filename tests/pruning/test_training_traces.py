"""Methods that learn in training, step by step on a 2 x 3 matrix, with every number derived by hand.

The loss of a step is the sum of G * weight, so that G is the gradient with respect to the weight that the layer uses.
Gradient descent: W <- W - 0.5 dL/dW.
"""

import pytest
import torch
from torch import nn

from obert.foundation.errors import UserError
from obert.masks.patterns import UNSTRUCTURED, parse_pattern
from obert.masks.selection import dense_masks
from obert.pruning import Context, prune_event
from obert.pruning.lottery_ticket import LotteryTicket
from obert.pruning.movement import Movement
from obert.pruning.platon import Platon
from obert.pruning.prune_ofa import PruneOFA
from obert.pruning.random import Random
from obert.pruning.rigl import RigL
from obert.pruning.snip import Snip
from obert.pruning.soft_movement import SoftMovement

START = [[1.0, -2.0, 3.0], [-1.0, 0.5, 2.0]]


class Given:
    """Minibatches that are the gradients themselves."""

    def __init__(self, gradients):
        self.gradients = torch.tensor(gradients)

    def minibatches(self, count, batch_size, draw):
        yield from self.gradients[:count]


class Trace:
    """A linear layer, its masks and a method's hook."""

    def __init__(self, method, start=START, pattern=UNSTRUCTURED):
        self.network = nn.Module()
        self.network.base_model = nn.Linear(3, 2, bias=False)
        self.network.head = nn.Linear(1, 1)
        self.layer = self.network.base_model
        self.layer.weight.data = torch.tensor(start)
        self.layers = {"w": self.layer}
        self.method = method
        self.masks = dense_masks({"w": self.layer.weight})
        self.pattern = pattern
        self.hook = method.training_hook(self.network, self.layers, pattern)
        scores = self.hook.parameter_groups()
        self.optimizer = torch.optim.SGD([{"params": self.stored}, *scores], lr=0.5)

    @property
    def stored(self):
        """The trained parameter; behind the mask, where it is kept there."""
        named = dict(self.layer.named_parameters())
        return named.get("weight", named.get("parametrizations.weight.original"))

    def step(self, gradient, at_target=False):
        self.optimizer.zero_grad()
        loss = (torch.tensor(gradient) * self.layer.weight).sum()
        penalty = self.hook.penalty(0.5)
        (loss if penalty is None else loss + penalty).backward()
        self.optimizer.step()
        self.hook.after_step(self.masks, at_target)

    def prune(self, sparsity, *gradients, progress=0.0):
        data = Given(gradients) if gradients else None
        generator = torch.Generator().manual_seed(3)

        def losses(gradient):
            return (gradient * self.layer.weight).sum()

        context = Context(self.hook, self.masks, data, losses, generator, self.pattern, progress=progress)
        self.masks = prune_event(self.method, context, sparsity).masks
        self.hook.after_event(self.masks, self.optimizer)

    def mask(self):
        return self.masks["w"].int().tolist()

    def weight(self):
        return self.layer.weight.detach()


def equal(found, expected):
    torch.testing.assert_close(found.detach(), torch.tensor(expected), rtol=1e-6, atol=1e-7)


def test_movement():
    trace = Trace(Movement(score_learning_rate=1.0))
    # dS = G * W = [[1, -2, -3], [0, 1, -2]], S = -dS; W - G / 2
    trace.step([[1.0, 1.0, -1.0], [0.0, 2.0, -1.0]])
    equal(trace.hook.scores["w"], [[-1.0, 2.0, 3.0], [0.0, -1.0, 2.0]])
    equal(trace.stored, [[0.5, -2.5, 3.5], [-1.0, -0.5, 2.5]])
    trace.prune(1 / 3)
    assert trace.mask() == [[0, 1, 1], [1, 0, 1]]
    equal(trace.weight(), [[0.0, -2.5, 3.5], [-1.0, 0.0, 2.5]])
    # dS = G * W, pruned ones too: [[-2, 0, 3.5], [-1, 2, 2.5]]; W - G * M / 2: pruned weights stay 0.5 and -0.5
    trace.step([[-4.0, 0.0, 1.0], [1.0, -4.0, 1.0]])
    equal(trace.hook.scores["w"], [[1.0, 2.0, -0.5], [1.0, -3.0, -0.5]])
    equal(trace.stored, [[0.5, -2.5, 3.0], [-1.5, -0.5, 2.0]])
    trace.prune(1 / 2)  # the lowest S: -3, -0.5, -0.5; the first weight is back, with the value it had
    assert trace.mask() == [[1, 1, 0], [1, 0, 0]]
    equal(trace.weight(), [[0.5, -2.5, 0.0], [-1.5, 0.0, 0.0]])
    # dS = W: S - W; W - M / 2
    trace.step([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], at_target=True)
    equal(trace.hook.scores["w"], [[0.5, 4.5, -3.5], [2.5, -2.5, -2.5]])
    equal(trace.stored, [[0.0, -3.0, 3.0], [-2.0, -0.5, 2.0]])
    trace.hook.finish()
    equal(trace.layer.weight, [[0.0, -3.0, 0.0], [-2.0, 0.0, 0.0]])
    assert type(trace.layer) is nn.Linear


def test_soft_movement():
    trace = Trace(SoftMovement(score_learning_rate=1.0, final_lambda=12.0))
    assert trace.hook.penalty(0.5).item() == pytest.approx(12 * 0.5 * 0.5)  # sigmoid(0) = 0.5
    # dS = G * W + 12 * 0.5 * sigmoid'(0) / 6 weights = G * W + 0.25
    trace.step([[1.0, 1.0, -1.0], [0.0, 2.0, -1.0]])
    equal(trace.hook.scores["w"], [[-1.25, 1.75, 2.75], [-0.25, -1.25, 1.75]])
    trace.prune(1 / 2)
    assert trace.mask() == [[0, 1, 1], [0, 0, 1]]
    # sigmoid'(s) = sigmoid(s) (1 - sigmoid(s)), G = 0: S falls by sigmoid'(S) everywhere
    before = trace.hook.scores["w"].detach().clone()
    trace.step([[0.0] * 3] * 2)
    slope = torch.sigmoid(before) * (1 - torch.sigmoid(before))
    torch.testing.assert_close(trace.hook.scores["w"].detach(), before - slope)


def test_platon():
    trace = Trace(Platon(beta1=0.5, beta2=0.75, window=2))
    trace.step([[2.0, 0.0, -2.0], [1.0, 1.0, 0.0]])  # W = [[0, -2, 4], [-1.5, 0, 2]], |W G| = [[0, 0, 8], [1.5, 0, 0]]
    equal(trace.hook.window["w"], [[0.0, 0.0, 4.0], [0.75, 0.0, 0.0]])
    trace.step([[0.0, 2.0, 2.0], [-1.0, -1.0, 2.0]])  # W = [[0, -3, 3], [-1, 0.5, 1]], |W G| = [[0, 6, 6], [1, 0.5, 2]]
    # the window's mean is [[0, 3, 7], [1.25, 0.25, 1]]; I = half of it; |mean - I| = I, U = a quarter of that
    equal(trace.hook.sensitivity["w"], [[0.0, 1.5, 3.5], [0.625, 0.125, 0.5]])
    equal(trace.hook.uncertainty["w"], [[0.0, 0.375, 0.875], [0.15625, 0.03125, 0.125]])
    trace.prune(1 / 2)  # I U = [[0, 0.5625, 3.0625], [0.0977, 0.0039, 0.0625]]
    assert trace.mask() == [[0, 1, 1], [1, 0, 0]]
    equal(trace.weight(), [[0.0, -3.0, 3.0], [-1.0, 0.0, 0.0]])
    trace.step([[-2.0, 0.0, 0.0], [0.0, -4.0, 0.0]])  # W = [[1, -3, 3], [-1, 2, 0]], |W G| = [[2, 0, 0], [0, 8, 0]]
    equal(trace.weight(), [[1.0, -3.0, 3.0], [-1.0, 2.0, 0.0]])  # pruned weights train on
    trace.step(
        [[-2.0, 0.0, 2.0], [1.0, -4.0, 0.0]]
    )  # W = [[2, -3, 2], [-1.5, 4, 0]], |W G| = [[4, 0, 4], [1.5, 16, 0]]
    # mean [[3, 0, 2], [0.75, 12, 0]]; I = (I + mean) / 2; U = 0.75 U + 0.25 |mean - I|
    equal(trace.hook.sensitivity["w"], [[1.5, 0.75, 2.75], [0.6875, 6.0625, 0.25]])
    equal(trace.hook.uncertainty["w"], [[0.375, 0.46875, 0.84375], [0.1328125, 1.5078125, 0.15625]])
    trace.prune(1 / 2)  # I U = [[0.5625, 0.3516, 2.3203], [0.0913, 9.1411, 0.0391]]: two have come back
    assert trace.mask() == [[1, 0, 1], [0, 1, 0]]
    equal(trace.weight(), [[2.0, 0.0, 2.0], [0.0, 4.0, 0.0]])
    trace.step([[0.0, -2.0, 0.0], [0.0, 2.0, 0.0]], at_target=True)  # at the target pruned weights are held at zero
    equal(trace.weight(), [[2.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    equal(trace.hook.window["w"], [[0.0, 1.0, 0.0], [0.0, 3.0, 0.0]])  # |W G| / 2, W before it was set to zero


def test_platon_without_a_gradient_is_refused():
    trace = Trace(Platon(window=1))
    trace.step([[0.0] * 3] * 2)
    with pytest.raises(UserError, match="all scores are zero"):
        trace.prune(0.5)


def test_lottery_ticket():
    trace = Trace(LotteryTicket())
    head = trace.network.head.weight.detach().clone()
    trace.network.head.weight.data += 1.0
    trace.step([[1.0, -3.0, 1.0], [1.0, -4.0, 3.5]])  # W = [[0.5, -0.5, 2.5], [-1.5, 2.5, 0.25]]
    trace.prune(1 / 3)  # the smallest trained ones: 0.25 and the first 0.5; the rest goes back to the start
    assert trace.mask() == [[0, 1, 1], [1, 1, 0]]
    equal(trace.weight(), [[0.0, -2.0, 3.0], [-1.0, 0.5, 0.0]])
    trace.step([[5.0, 2.0, 5.0], [-6.0, -1.0, 5.0]])  # survivors: -3, 0.5, 2, 1
    equal(trace.weight(), [[0.0, -3.0, 0.5], [2.0, 1.0, 0.0]])
    trace.prune(1 / 2)
    assert trace.mask() == [[0, 1, 0], [1, 1, 0]]
    equal(trace.weight(), [[0.0, -2.0, 0.0], [-1.0, 0.5, 0.0]])
    trace.step([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]], at_target=True)
    equal(trace.weight(), [[0.0, -2.5, 0.0], [-1.5, 0.0, 0.0]])
    torch.testing.assert_close(trace.network.head.weight.detach(), head + 1.0)  # the head is not reset


def test_lottery_ticket_forgets_the_optimizer():
    trace = Trace(LotteryTicket())
    trace.optimizer = torch.optim.AdamW([trace.stored], lr=0.1)
    trace.step([[1.0] * 3] * 2)
    assert trace.optimizer.state
    trace.prune(0.5)
    assert not trace.optimizer.state


def test_lottery_ticket_sets_the_head_back_if_it_is_told_to():
    trace = Trace(LotteryTicket(rewind_head=True))
    before = {name: value.detach().clone() for name, value in trace.network.named_parameters()}
    for value in trace.network.parameters():
        value.data += 1.0
    trace.prune(1 / 3)  # W + 1 = [[2, -1, 4], [0, 1.5, 3]]: 0 and -1 go
    assert trace.mask() == [[1, 0, 1], [0, 1, 1]]
    equal(trace.weight(), [[1.0, 0.0, 3.0], [0.0, 0.5, 2.0]])
    assert torch.equal(trace.network.head.weight, before["head.weight"])
    assert torch.equal(trace.network.head.bias, before["head.bias"])


def test_lottery_ticket_is_the_same_run_as_ever_unless_it_sets_the_head_back():
    assert LotteryTicket().model_dump() == {}
    assert LotteryTicket(rewind_head=True).model_dump() == {"rewind_head": True}


def test_snip():
    trace = Trace(Snip())
    # |W G| = [[1, 1, 0.3], [0.25, 2, 0]]
    trace.prune(1 / 2, [[-1.0, 0.5, -0.1], [0.25, -4.0, 0.0]])
    assert trace.mask() == [[1, 1, 0], [0, 1, 0]]
    equal(trace.weight(), [[1.0, -2.0, 0.0], [0.0, 0.5, 0.0]])
    trace.step([[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]])
    equal(trace.weight(), [[0.0, -3.0, 0.0], [0.0, -0.5, 0.0]])


def test_snip_takes_the_mean_over_minibatches():
    trace = Trace(Snip(num_gradients=2))
    # the mean is [[0, 0.5, 1], [1, 2, -0.25]], |W G| = [[0, 1, 3], [1, 1, 0.5]]
    trace.prune(1 / 3, [[-1.0, 0.5, 0.0], [0.0, 4.0, 0.5]], [[1.0, 0.5, 2.0], [2.0, 0.0, -1.0]])
    assert trace.mask() == [[0, 1, 1], [1, 1, 0]]


def test_rigl():
    trace, flat = Trace(RigL(share=0.5)), [[0.0] * 3] * 2
    trace.prune(1 / 3, [[9.0, 0.0, 0.0], [0.0, 9.0, 0.0]])  # magnitude: 0.5 and the first of the ones
    assert trace.mask() == [[0, 1, 1], [1, 0, 1]]
    trace.step([[4.0, 0.0, 0.0], [1.0, 4.0, 3.5]])  # W - G / 2; what is pruned is back at zero after the step
    equal(trace.weight(), [[0.0, -2.0, 3.0], [-1.5, 0.0, 0.25]])
    # half of four go, 0.25 and -1.5; of the rest 3 and 2 are the largest gradients: -1.5 is back at once, as it was
    trace.prune(1 / 3, [[1.0, 9.0, 9.0], [2.0, -3.0, 0.5]])
    assert trace.mask() == [[0, 1, 1], [1, 1, 0]]
    equal(trace.weight(), [[0.0, -2.0, 3.0], [-1.5, 0.0, 0.0]])
    trace.step([[1.0, 0.0, 0.0], [0.0, -2.0, 1.0]])  # what has grown started at zero
    equal(trace.weight(), [[0.0, -2.0, 3.0], [-1.5, 1.0, 0.0]])
    # half way a quarter goes, the 1; without a gradient anywhere it is the largest weight of those that may grow
    trace.prune(1 / 3, flat, progress=0.5)
    assert trace.mask() == [[0, 1, 1], [1, 1, 0]]
    trace.prune(1 / 3, [[-2.0, 0.0, 0.0], [0.0, 1.0, 1.0]], progress=0.5)
    assert trace.mask() == [[1, 1, 1], [1, 0, 0]]
    equal(trace.weight(), [[0.0, -2.0, 3.0], [-1.5, 0.0, 0.0]])
    trace.prune(1 / 3, [[0.0, 0.0, 0.0], [0.0, 9.0, 9.0]], progress=1.0)  # at the end nothing is exchanged
    assert trace.mask() == [[1, 1, 1], [1, 0, 0]]
    # a rising sparsity: 0 and -1.5 are dropped, and one of the pruned grows
    trace.prune(1 / 2, [[0.5, 0.0, 0.0], [0.0, 1.0, 2.0]])
    assert trace.mask() == [[0, 1, 1], [0, 0, 1]]


def test_rigl_grows_with_new_averages_of_the_optimizer():
    trace = Trace(RigL(share=0.25))
    trace.optimizer = torch.optim.AdamW([trace.stored], lr=0.1, weight_decay=0.0)
    trace.prune(1 / 3, [[0.0] * 3] * 2)
    trace.step([[1.0] * 3] * 2)
    state = trace.optimizer.state[trace.stored]
    trace.prune(1 / 3, [[0.0, 0.0, 0.0], [0.0, 5.0, 0.0]])  # -1.1 goes, 0.5 comes
    assert trace.mask() == [[0, 1, 1], [0, 1, 1]]
    equal(state["exp_avg"], [[0.1, 0.1, 0.1], [0.1, 0.0, 0.1]])
    equal(state["exp_avg_sq"], [[1e-3, 1e-3, 1e-3], [1e-3, 0.0, 1e-3]])
    assert state["step"] == 1


def test_rigl_keeps_the_number_of_weights_of_each_layer(setting_of):
    method = RigL(share=0.5, gradient_batch_size=8)
    network = setting_of().prune(method, 0.5)
    counts = [int(mask.sum()) for mask in network.masks.values()]
    assert counts[0] != counts[1]  # the cut is one for both layers
    before = network.masks
    network.train(method, 1).prune(method, 0.5)
    assert [int(mask.sum()) for mask in network.masks.values()] == counts
    for name, mask in network.masks.items():
        assert (mask & ~before[name]).any()


def test_prune_ofa():
    trace = Trace(PruneOFA())
    trace.prune(1 / 3)  # 0.5 and the first of the ones
    assert trace.mask() == [[0, 1, 1], [1, 0, 1]]
    trace.step([[4.0, 0.0, 0.0], [0.0, 4.0, 3.5]])  # 2 -> 0.25; those behind the mask get no gradient
    equal(trace.stored, [[1.0, -2.0, 3.0], [-1.0, 0.5, 0.25]])
    equal(trace.weight(), [[0.0, -2.0, 3.0], [-1.0, 0.0, 0.25]])
    trace.prune(1 / 3)  # 0.25 and 0.5: the first weight is back
    assert trace.mask() == [[1, 1, 1], [1, 0, 0]]
    trace.step([[2.0, 0.0, 0.0], [0.0, 0.0, 2.0]], at_target=True)
    trace.hook.finish()
    equal(trace.layer.weight, [[0.0, -2.0, 3.0], [-1.0, 0.0, 0.0]])


def test_random():
    trace = Trace(Random())
    drawn = torch.rand(2, 3, generator=torch.Generator().manual_seed(3))
    trace.prune(1 / 2)
    assert torch.equal(trace.masks["w"], drawn > drawn.flatten().sort().values[2])


def test_block_movement_has_a_score_for_each_block():
    pattern = parse_pattern({"*": "2x1"})
    trace = Trace(Movement(score_learning_rate=1.0), pattern=pattern)
    # dS of a column is the sum of G * W = [[1, -2, -3], [0, 1, -2]] over it: [1, -1, -5]
    trace.step([[1.0, 1.0, -1.0], [0.0, 2.0, -1.0]])
    equal(trace.hook.group_scores["w"], [-1.0, 1.0, 5.0])
    equal(trace.hook.scores["w"], [[-1.0, 1.0, 5.0]] * 2)
    trace.prune(0.3)  # 2 of 6 weights
    assert trace.mask() == [[0, 1, 1], [0, 1, 1]]
