"""Block Fisher against explicit float64 algebra, and against the paper's rank-one recursion."""

import pytest
import torch

from obert.errors import UserError
from obert.fisher import BlockFisher

KEPT = torch.ones(4, 6, dtype=torch.bool)


def explicit_inverse(gradients, dampening, block):
    """inv(lambda I + G'G/m) of one block in float64."""
    rows = gradients.double()[:, block]
    return torch.linalg.inv(dampening * torch.eye(rows.shape[1], dtype=torch.float64) + rows.T @ rows / len(rows))


def recursion(gradients, dampening):
    """Paper, eq. 5: F_i^-1 = F_{i-1}^-1 - (F^-1 g)(F^-1 g)' / (m + g' F^-1 g), from F_0^-1 = I / lambda, float64."""
    inverse = torch.eye(gradients.shape[1], dtype=torch.float64) / dampening
    for g in gradients.double():
        v = inverse @ g
        inverse -= torch.outer(v, v) / (len(gradients) + g @ v)
    return inverse


@pytest.fixture
def gradients():
    return torch.randn(40, 4, 6, generator=torch.Generator().manual_seed(1)) * 0.1


@pytest.mark.parametrize("block_size", [1, 5, 10, 24, 50])
def test_inverse_equals_explicit_inverse_and_recursion(gradients, block_size):
    fisher = BlockFisher({"w": 24}, block_size)
    fisher.add("w", gradients[:16])
    fisher.add("w", gradients[16:])  # in chunks of different sizes
    fisher.invert(1e-4, {"w": KEPT})
    vector = torch.randn(24, generator=torch.Generator().manual_seed(2))
    flat = gradients.flatten(1)
    for start in range(0, 24, block_size):
        block = slice(start, min(start + block_size, 24))
        exact = explicit_inverse(flat, 1e-4, block)
        torch.testing.assert_close(exact, recursion(flat[:, block], 1e-4), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(fisher.inverse_diagonal("w")[block].double(), exact.diagonal(), rtol=1e-4, atol=0)
        product = exact @ vector[block].double()
        torch.testing.assert_close(
            fisher.inverse_product("w", vector)[block].double(), product, rtol=1e-3, atol=1e-4 * product.abs().max()
        )


def test_block_size_one_is_the_diagonal_formula(gradients):
    fisher = BlockFisher({"w": 24}, 1)
    fisher.add("w", gradients)
    fisher.invert(1e-7, {"w": KEPT})
    expected = 1 / (1e-7 + (gradients.flatten(1) ** 2).mean(0))
    torch.testing.assert_close(fisher.inverse_diagonal("w"), expected, rtol=1e-5, atol=0)


def test_masked_coordinates_are_decoupled(gradients):
    mask = KEPT.clone()
    mask[0, 2] = False
    fisher = BlockFisher({"w": 24}, 10)
    fisher.add("w", gradients)
    fisher.invert(1e-3, {"w": mask})
    masked = explicit_inverse(gradients.flatten(1) * mask.flatten(), 1e-3, slice(0, 10))
    torch.testing.assert_close(fisher.inverse_diagonal("w")[:10].double(), masked.diagonal(), rtol=1e-4, atol=0)
    assert fisher.inverse_diagonal("w")[2] == pytest.approx(1 / 1e-3)
    unit = torch.zeros(24)
    unit[2] = 1
    column = fisher.inverse_product("w", unit)
    assert torch.count_nonzero(column) == 1


def test_more_dampening_than_curvature_needs_few_gradients():
    fisher = BlockFisher({"w": 8}, 8)
    fisher.add("w", torch.randn(2, 8, generator=torch.Generator().manual_seed(0)))  # rank 2 in blocks of 8
    fisher.invert(1e-7, {"w": torch.ones(8, dtype=torch.bool)})
    assert torch.isfinite(fisher.inverse_diagonal("w")).all()


def test_gradient_that_is_not_finite_names_its_tensor():
    fisher = BlockFisher({"some.weight": 4}, 2)
    fisher.add("some.weight", torch.tensor([[1.0, float("inf"), 0.0, 0.0]]))
    with pytest.raises(UserError, match=r"some\.weight"):
        fisher.invert(1e-7, {"some.weight": torch.ones(4, dtype=torch.bool)})


def test_memory_is_what_the_blocks_take():
    fisher = BlockFisher({"a": 101, "b": 50}, 50)
    held = sum(b.numel() * b.element_size() for b in fisher._blocks.values())
    assert BlockFisher.memory_bytes({"a": 101, "b": 50}, 50) == held == 4 * 50 * 50 * 4
