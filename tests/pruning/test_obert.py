"""oBERT's scores and update against the paper's formulas in float64."""

import pytest
import torch
from torch import nn

from obert.pruning import Context
from obert.pruning.obert import OptimalBertSurgeon
from obert.sparsity import dense_masks


@pytest.fixture
def setting(indices):
    torch.manual_seed(0)
    layer = nn.Linear(6, 4, bias=False)
    inputs, labels = torch.randn(32, 1, 6), torch.randint(0, 4, (32,))

    def losses(chosen):
        return nn.functional.cross_entropy(layer(inputs[chosen])[:, 0], labels[chosen], reduction="none")

    masks = dense_masks({"w": layer.weight})
    rows = []
    for i in range(32):
        rows.append(torch.autograd.grad(losses(torch.tensor([i])).sum(), layer.weight)[0].flatten())
    return Context({"w": layer}, masks, indices, losses, torch.Generator()), torch.stack(rows).double()


def inverse_fisher(gradients, block_size, dampening):
    """Block-diagonal inverse of lambda I + G'G/m, float64, written out."""
    size = gradients.shape[1]
    inverse = torch.zeros(size, size, dtype=torch.float64)
    for start in range(0, size, block_size):
        block = slice(start, min(start + block_size, size))
        rows = gradients[:, block]
        fisher = dampening * torch.eye(rows.shape[1], dtype=torch.float64) + rows.T @ rows / len(rows)
        inverse[block, block] = torch.linalg.inv(fisher)
    return inverse


@pytest.mark.parametrize("unit", ["per_example", "minibatch"])
def test_scores_and_update_follow_the_paper(setting, unit):
    context, gradients = setting
    size, count = (8, 32) if unit == "per_example" else (8, 4)
    if unit == "minibatch":
        gradients = gradients.view(4, 8, -1).mean(1)
    method = OptimalBertSurgeon(
        num_gradients=count, fisher_block_size=10, dampening=1e-3, gradients=unit, gradient_batch_size=size
    )
    inverse = inverse_fisher(gradients, 10, 1e-3)
    w = context.weights["w"].flatten().double()
    scores = method.score(context)["w"].flatten().double()
    torch.testing.assert_close(scores, w**2 / (2 * inverse.diagonal()), rtol=1e-4, atol=0)

    pruned = torch.zeros(24, dtype=torch.bool)
    pruned[[1, 2, 13]] = True
    change = method.update(context, {"w": pruned.view(4, 6)})["w"].flatten().double()
    expected = sum(-w[q] / inverse[q, q] * inverse[:, q] for q in (1, 2, 13)) * ~pruned
    torch.testing.assert_close(change, expected, rtol=1e-3, atol=1e-5)


def test_large_dampening_ranks_by_magnitude(setting):
    context, _ = setting
    method = OptimalBertSurgeon(num_gradients=32, dampening=1e4, gradients="per_example")
    scores = method.score(context)["w"].flatten()
    assert torch.equal(scores.argsort(), context.weights["w"].abs().flatten().argsort())


def test_number_of_gradients_need_not_be_a_multiple_of_the_pass(setting):
    context, gradients = setting
    method = OptimalBertSurgeon(num_gradients=12, fisher_block_size=24, dampening=1e-3, gradients="per_example",
                                gradient_batch_size=8)  # fmt: skip
    inverse = inverse_fisher(gradients[:12], 24, 1e-3)
    w = context.weights["w"].flatten().double()
    torch.testing.assert_close(
        method.score(context)["w"].flatten().double(), w**2 / (2 * inverse.diagonal()), rtol=1e-4, atol=0
    )
