"""What is compiled shares its blocks among threads, and gets no larger ones than it is good at."""

import pytest
import torch

from obert.second_order import compiled
from obert.second_order.fisher import spd_inverse


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def blocks(count, order):
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(count, order, 2 * order, dtype=torch.float64, generator=generator)
    weights = torch.randn(count, order, dtype=torch.float64, generator=generator)
    kept = torch.rand(count, order, generator=generator) < 0.8
    pruned = kept & (torch.rand(count, order, generator=generator) < 0.5)
    return torch.bmm(factors, factors.mT) / order, weights, kept, pruned


def test_threads_change_nothing(threads):
    matrices, weights, kept, pruned = blocks(7, 12)
    found = []
    for count in (1, 2, 3, 16):
        threads(count)
        found.append((
            compiled.inverses(matrices),
            compiled.greedy_scores(matrices, weights, kept),
            compiled.solutions(matrices, weights, pruned, kept & ~pruned),
        ))  # fmt: skip
    for other in found[1:]:
        for (one, _), (same, failed) in zip(found[0], other, strict=True):
            assert torch.equal(one, same) and failed == 0


def test_every_thread_counts_what_cannot_be_inverted(threads):
    matrices, weights, kept, pruned = blocks(6, 5)
    matrices[[0, 5]] = 0
    threads(3)
    kept[:], pruned[:] = True, False
    pruned[:, 0] = True
    assert compiled.inverses(matrices)[1] == 2
    assert compiled.greedy_scores(matrices, weights, kept)[1] == 2
    assert compiled.solutions(matrices, weights, pruned, kept & ~pruned)[1] == 2


def test_large_blocks_are_halved_first(monkeypatch):
    asked, inverses = [], compiled.inverses
    monkeypatch.setattr(compiled, "inverses", lambda matrices: asked.append(matrices.shape[1]) or inverses(matrices))
    matrices = blocks(2, compiled.LARGEST + 1)[0]
    torch.testing.assert_close(spd_inverse(matrices, "w"), torch.linalg.inv(matrices))
    assert asked == [48, 49] and compiled.LARGEST == 96


@pytest.mark.parametrize("shared", [False, True], ids=["each its own", "one for all"])
def test_what_is_cut_is_what_indexing_gives(shared):
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(1 if shared else 4, 9, 9, dtype=torch.float64, generator=generator).expand(4, -1, -1)
    columns = torch.stack([torch.randperm(9, generator=generator) for _ in range(4)])[:, ::2]
    expected = torch.stack([matrix[own][:, own] for matrix, own in zip(matrices, columns, strict=True)])
    assert torch.equal(compiled.cut(matrices, columns), expected)
