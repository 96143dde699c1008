"""Both matrix-free forms against the explicit inverse and the paper's two algorithms written out, in float64."""

import pytest
import torch

from obert.foundation.errors import UserError
from obert.second_order import fisher
from obert.second_order.matrix_free import FORMS, BlockInverse

COUNT, SIZE = 12, 30
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(params=["dampened", "barely dampened", "fewer weights than gradients"])
def case(request):
    """Gradients and dampening; relative to the curvature the dampening is moderate, or tiny."""
    generator = torch.Generator().manual_seed(3)
    size = 5 if request.param == "fewer weights than gradients" else SIZE
    gradients = torch.randn(COUNT, size, generator=generator) * torch.logspace(-1, 1, size)
    gradients[4] = gradients[3] + 1e-3 * gradients[5]  # almost dependent
    return gradients, 1e-4 if request.param == "barely dampened" else 0.3


@pytest.fixture(autouse=True)
def _several_slabs(monkeypatch):
    monkeypatch.setitem(fisher.BLOCK_SLAB_BYTES, "cpu", 8 * COUNT * 7)


def explicit(gradients, dampening):
    rows = gradients.double()
    return torch.linalg.inv(dampening * torch.eye(rows.shape[1]).double() + rows.T @ rows / len(rows))


def rank_one_recursion(gradients, dampening):
    inverse = torch.eye(gradients.shape[1], dtype=torch.float64) / dampening
    for g in gradients.double():
        v = inverse @ g
        inverse -= torch.outer(v, v) / (len(gradients) + g @ v)
    return inverse


def static_algorithm(gradients, dampening):
    """The paper's static algorithm: v_i = g_i / lambda - sum_{j<i} v_j (v_j' g_i) / q_j and q_i = m + g_i' v_i."""
    vectors, scales = [], []
    for g in gradients.double():
        v = g / dampening - sum(w * (w @ g) / q for w, q in zip(vectors, scales, strict=True))
        vectors.append(v)
        scales.append(len(gradients) + g @ v)
    return torch.stack(vectors), torch.stack(scales)


def dynamic_algorithm(gradients, dampening, x):
    """The paper's dynamic algorithm: D by its recurrence, B row by row, forward substitution."""
    rows = gradients.double()
    m = len(rows)
    d, b = rows @ rows.T / dampening, torch.eye(m, dtype=torch.float64) / dampening
    for k in range(m):
        d[k + 1 :, k + 1 :] -= torch.outer(d[k, k + 1 :], d[k, k + 1 :]) / (m + d[k, k])
    d = d.triu()
    for i in range(1, m):
        b[i, :i] = -sum(d[j, i] / (m + d[j, j]) * b[j, :i] for j in range(i))
    p = rows @ x / dampening
    for i in range(1, m):
        p[i] -= sum(d[j, i] * p[j] / (m + d[j, j]) for j in range(i))
    return x / dampening - rows.T @ (b.T @ (p / (m + d.diagonal())))


def assert_scaled(actual, expected):
    """Close, relative to the largest value."""
    torch.testing.assert_close(actual.double() / expected.abs().max(), expected / expected.abs().max(), **CLOSE)


@pytest.mark.parametrize("form", FORMS)
def test_product_and_diagonal_are_those_of_the_inverse(case, form):
    gradients, dampening = case
    exact = explicit(gradients, dampening)
    torch.testing.assert_close(rank_one_recursion(gradients, dampening), exact, rtol=1e-6, atol=1e-6 / dampening)
    x = torch.randn(gradients.shape[1], generator=torch.Generator().manual_seed(4))
    assert_scaled(dynamic_algorithm(gradients, dampening, x.double()), exact @ x.double())
    inverse = FORMS[form](gradients.clone(), dampening)
    assert_scaled(inverse.product(x), exact @ x.double())
    torch.testing.assert_close(inverse.diagonal().double(), exact.diagonal(), rtol=1e-5, atol=0)


def test_static_vectors_are_those_of_the_algorithm(case):
    gradients, dampening = case
    vectors, scales = static_algorithm(gradients, dampening)
    held = gradients.clone()
    FORMS["static"](held, dampening)
    assert_scaled(held, vectors / scales.sqrt()[:, None])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("block_size", [1, 7, 30, 100])
def test_blocks_are_inverted_by_themselves(form, block_size):
    gradients = torch.randn(COUNT, SIZE, generator=torch.Generator().manual_seed(5))
    x = torch.randn(SIZE, generator=torch.Generator().manual_seed(6))
    exact = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    for start in range(0, SIZE, block_size):
        block = slice(start, min(start + block_size, SIZE))
        exact[block, block] = explicit(gradients[:, block], 0.1)
    inverse = BlockInverse(form, gradients, 0.1, block_size)
    assert_scaled(inverse.product(x), exact @ x.double())
    torch.testing.assert_close(inverse.diagonal().double(), exact.diagonal(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("block_size", [7, 30])
def test_memory_is_what_is_held(form, block_size):
    gradients = torch.randn(COUNT, SIZE, generator=torch.Generator().manual_seed(5))
    inverse = BlockInverse(form, gradients, 0.1, block_size)
    tensors = [value for block in inverse.blocks for value in vars(block).values() if isinstance(value, torch.Tensor)]
    held = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert BlockInverse.memory_bytes(form, COUNT, SIZE, block_size) == held
    assert all(block.rows.untyped_storage().data_ptr() == gradients.data_ptr() for block in inverse.blocks)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_that_are_not_finite_are_told(form):
    with pytest.raises(UserError, match="not finite"):
        FORMS[form](torch.tensor([[1.0, float("inf")]]), 0.1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dampening", [1e-15, 1e-30])
def test_dampening_that_is_lost_in_rounding_is_told(form, dampening):
    gradients = torch.randn(20, 5, generator=torch.Generator().manual_seed(5)) * torch.logspace(-1, 1, 5)
    with pytest.raises(UserError, match="raise the dampening"):
        FORMS[form](gradients, dampening).diagonal()
