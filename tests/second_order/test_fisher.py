"""The block Fisher's slabs against lambda I + G'G/m written out in float64, and against the paper's recursion."""

import pytest
import torch

from obert.foundation.errors import UserError
from obert.second_order import fisher as fisher_module
from obert.second_order.fisher import BlockFisher, RecursiveFisher, spd_inverse
from obert.second_order.gradients import DenseGradients, Gradients

SHAPES = {"rows of six": (4, 6), "ragged": (5, 7), "one row": (1, 13)}
BLOCK_SIZES = [1, 5, 8, 24, 50]


@pytest.fixture(params=["one slab", "small slabs"])
def slab_sizes(request, monkeypatch):
    """The same results are asked for whether a tensor is worked on at once or a few rows and blocks at a time."""
    if request.param == "small slabs":
        monkeypatch.setitem(fisher_module.GRADIENT_SLAB_BYTES, "cpu", 1)
        monkeypatch.setitem(fisher_module.BLOCK_SLAB_BYTES, "cpu", 1)


def random_gradients(shape, count=40, seed=1):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def random_mask(shape, share, group=1, seed=3):
    """A mask that keeps about `share` of the weights, whole groups of them."""
    size = shape[0] * shape[1]
    kept = torch.rand(size // group, generator=torch.Generator().manual_seed(seed)) < share
    return kept.repeat_interleave(group).view(shape)


def explicit(gradients, block_size, dampening, mask=None):
    """lambda I + G'G/m of the whole tensor in float64, zero between blocks; pruned coordinates are the identity's."""
    rows = gradients.flatten(1).double()
    size = rows.shape[1]
    full = dampening * torch.eye(size, dtype=torch.float64)
    for g in rows:
        full += torch.outer(g, g) / len(rows)
    block = torch.arange(size) // block_size
    full = full * (block[:, None] == block[None, :])
    for pruned in [] if mask is None else torch.nonzero(~mask.flatten()).flatten():
        full[pruned, :], full[:, pruned] = 0, 0
        full[pruned, pruned] = 1
    return full


def assembled(fisher, name, mask, group=1):
    """One matrix of all slabs, the identity where no slab has a coordinate; checks what a slab promises on the way."""
    size = mask.numel()
    full = torch.eye(size, dtype=torch.float64)
    seen = []
    for slab in fisher.slabs(name, group):
        assert slab.fisher.dtype == torch.float64
        for matrix, positions, kept in zip(slab.fisher, slab.positions, slab.kept, strict=True):
            assert positions.unique().numel() == len(positions)
            assert (positions // fisher.block_size).unique().numel() == 1
            assert torch.equal(matrix[~kept], torch.eye(len(kept), dtype=torch.float64)[~kept])
            assert torch.equal(matrix[:, ~kept], torch.eye(len(kept), dtype=torch.float64)[:, ~kept])
            inside = positions[kept]
            full[inside[:, None], inside] = matrix[kept][:, kept]
            seen.extend(inside.tolist())
    assert sorted(seen) == torch.nonzero(mask.flatten()).flatten().tolist()
    return full


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_slabs_are_the_dampened_mean_of_outer_products_in_blocks(shape, block_size, slab_sizes):
    gradients = random_gradients(shape)
    mask = torch.ones(shape, dtype=torch.bool)
    fisher = BlockFisher({"other": mask[:, :1], "w": mask}, block_size, 0.01)
    for chunk in gradients.split([16, 1, 23]):
        fisher.add("w", DenseGradients(chunk))
    torch.testing.assert_close(
        assembled(fisher, "w", mask), explicit(gradients, block_size, 0.01), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_pruned_coordinates_are_decoupled_and_the_others_stay_in_place(shape, block_size, share, slab_sizes):
    gradients, mask = random_gradients(shape), random_mask(shape, share)
    fisher = BlockFisher({"w": mask}, block_size, 0.01)
    fisher.add("w", DenseGradients(gradients))
    torch.testing.assert_close(
        assembled(fisher, "w", mask), explicit(gradients, block_size, 0.01, mask), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("group", [2, 4])
@pytest.mark.parametrize("partly", [False, True])
def test_groups_are_cut_out_whole_once_all_of_their_weights_are_pruned(group, partly, slab_sizes):
    shape, block_size = (6, 12), 8
    gradients, mask = random_gradients(shape), random_mask(shape, 0.4, group)
    mask.view(-1)[:block_size] = False  # a block with nothing left
    mask.view(-1)[block_size : 2 * block_size] = True  # and a full one
    if partly:  # as N:M leaves them: a group with some weights pruned is not cut out
        mask.view(-1, group)[2::3, 0] = False
    fisher = BlockFisher({"w": mask}, block_size, 0.01)
    fisher.add("w", DenseGradients(gradients))
    torch.testing.assert_close(
        assembled(fisher, "w", mask, group), explicit(gradients, block_size, 0.01, mask), rtol=1e-5, atol=1e-6
    )
    present = mask.view(-1, group).any(dim=1).view(-1, block_size // group).sum(dim=1) * group
    blocks = []
    for slab in fisher.slabs("w", group):
        groups = slab.positions.unflatten(1, (-1, group))
        assert (groups[:, :, 0] % group == 0).all()
        assert torch.equal(groups, groups[:, :, :1] + torch.arange(group))
        found = slab.positions[:, 0] // block_size
        assert slab.fisher.shape[1] == present[found].max()
        blocks.extend(found.tolist())
    assert sorted(blocks) == torch.nonzero(present).flatten().tolist()


@pytest.mark.parametrize("block_size", [1, 5, 7, 16, 50])
def test_gradients_in_factors_equal_the_same_gradients_as_they_are(block_size, slab_sizes):
    generator = torch.Generator().manual_seed(5)
    inputs, outputs = (torch.randn(12, 3, n, generator=generator) for n in (7, 5))
    values = torch.stack([sum(torch.outer(outputs[i, t], inputs[i, t]) for t in range(3)) for i in range(12)])
    mask = torch.ones(5, 7, dtype=torch.bool)
    factors, dense = (BlockFisher({"w": mask}, block_size, 0.0) for _ in range(2))
    for part in (slice(0, 8), slice(8, 12)):
        factors.add("w", Gradients(inputs[part], outputs[part]))
    dense.add("w", DenseGradients(values))
    found = assembled(factors, "w", mask)
    torch.testing.assert_close(found, assembled(dense, "w", mask), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found, explicit(values, block_size, 0.0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kept_share", [1.0, 0.6])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_a_relative_dampening_is_of_the_mean_square_of_the_gradients_of_kept_weights(block_size, kept_share):
    gradients, mask = random_gradients((5, 7)) * 1e-4, random_mask((5, 7), kept_share)
    absolute = 0.03 * float((gradients.double() ** 2).mean(dim=0)[mask].mean())
    fisher = BlockFisher({"w": mask}, block_size, 1e9).dampened("3%")
    fisher.add("w", DenseGradients(gradients))
    assert fisher.added("w") == pytest.approx(absolute, rel=1e-5)
    expected = explicit(gradients, block_size, absolute, mask)
    torch.testing.assert_close(assembled(fisher, "w", mask), expected, rtol=1e-4, atol=1e-14)


def test_a_relative_dampening_without_gradients_is_above_zero():
    mask = torch.ones(2, 3, dtype=torch.bool)
    zeros = BlockFisher({"w": mask, "gone": ~mask}, 3, "1%")
    zeros.add("w", DenseGradients(torch.zeros(4, 2, 3)))
    assert zeros.added("w") == zeros.added("gone") == fisher_module.FLOOR > 0
    assert list(zeros.slabs("gone")) == []


def test_reading_the_slabs_leaves_the_sums_as_they_are():
    mask = random_mask((4, 6), 0.8)
    fisher = BlockFisher({"w": mask}, 10, 0.1)
    fisher.add("w", DenseGradients(random_gradients((4, 6))))
    assert torch.equal(assembled(fisher, "w", mask), assembled(fisher, "w", mask))


def recursion(gradients, dampening):
    """Paper, eq. 5, in float64 over one block's gradients [m, B]."""
    inverse = torch.eye(gradients.shape[1], dtype=torch.float64) / dampening
    for g in gradients.double():
        v = inverse @ g
        inverse -= torch.outer(v, v) / (len(gradients) + g @ v)
    return inverse


@pytest.mark.parametrize("block_size", [1, 5, 10, 24, 50])
def test_the_papers_recursion_gives_the_inverse_of_what_is_accumulated(block_size):
    gradients, kept = random_gradients((4, 6)), torch.ones(4, 6, dtype=torch.bool)
    summed = BlockFisher({"w": kept}, block_size, 0.01)
    recursive = RecursiveFisher({"w": kept}, block_size, 0.01, num_gradients=40)
    for chunk in gradients.split([16, 24]):
        summed.add("w", DenseGradients(chunk))
        recursive.add("w", DenseGradients(chunk))
    inverse = torch.linalg.inv(explicit(gradients, block_size, 0.01))
    for index, start in enumerate(range(0, 24, block_size)):
        stop = min(start + block_size, 24)
        block = slice(start, stop)
        expected = recursion(gradients.flatten(1)[:, block], 0.01)
        torch.testing.assert_close(expected, inverse[block, block], rtol=1e-8, atol=1e-8)
        found = recursive.inverse("w")[index, : stop - start, : stop - start].double()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(assembled(recursive, "w", kept), assembled(summed, "w", kept), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("group", [1, 2])
def test_the_papers_recursion_decouples_pruned_coordinates_too(group):
    gradients, mask = random_gradients((4, 6)), random_mask((4, 6), 0.6, group)
    recursive = RecursiveFisher({"w": mask}, 10, 0.01, num_gradients=40)
    recursive.add("w", DenseGradients(gradients))
    torch.testing.assert_close(
        assembled(recursive, "w", mask, group), explicit(gradients, 10, 0.01, mask), rtol=2e-3, atol=2e-3
    )


def test_the_papers_recursion_without_dampening_is_refused():
    with pytest.raises(UserError, match="dampening"):
        RecursiveFisher({"w": torch.ones(2, 2, dtype=torch.bool)}, 2, 0.0, num_gradients=4)


@pytest.mark.usefixtures("way")
def test_inverse_equals_the_general_one_at_every_order():
    generator = torch.Generator().manual_seed(0)
    for order in range(1, 61):
        factors = torch.randn(3, order, order + 2, dtype=torch.float64, generator=generator)
        matrices = torch.bmm(factors, factors.transpose(1, 2)) / order + 0.05 * torch.eye(order, dtype=torch.float64)
        before = matrices.clone()
        found = spd_inverse(matrices, "w")
        torch.testing.assert_close(found, torch.linalg.inv(matrices), rtol=1e-9, atol=1e-10)
        assert torch.equal(matrices, before)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("order", [1, 25, 26, 60])
@pytest.mark.parametrize("place", ["first", "last"])
def test_matrix_that_is_not_positive_definite_names_its_tensor(order, place):
    matrices = torch.eye(order, dtype=torch.float64).repeat(4, 1, 1)
    at = 0 if place == "first" else order - 1
    matrices[2, at, at] = 0
    with pytest.raises(UserError, match=r"some\.weight.*1 blocks.*dampening"):
        spd_inverse(matrices, "some.weight")


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_gradient_that_is_not_finite_names_its_tensor(value):
    gradients = torch.zeros(3, 2, 2)
    gradients[1, 1, 0] = value
    fisher = BlockFisher({"some.weight": torch.ones(2, 2, dtype=torch.bool)}, 2, 1e-7)
    fisher.add("some.weight", DenseGradients(gradients))
    with pytest.raises(UserError, match=r"some\.weight.*not finite"):
        list(fisher.slabs("some.weight"))


@pytest.mark.parametrize("block_size", [1, 3, 50, 64, 200])
def test_memory_estimate_is_what_the_blocks_take(block_size):
    masks = {"a": torch.ones(1, 101, dtype=torch.bool), "b": torch.ones(10, 5, dtype=torch.bool)}
    fisher = BlockFisher(masks, block_size, 1e-7)
    for name, mask in masks.items():
        fisher.add(name, DenseGradients(random_gradients(mask.shape, 2)))
        held = fisher._blocks[name].numel() * fisher._blocks[name].element_size()
        assert BlockFisher.memory_bytes(mask.numel(), block_size) == held


def test_blocks_of_fifty_take_fifty_floats_a_weight():
    assert BlockFisher.memory_bytes(1000, 50) == 1000 * 50 * 4
    assert BlockFisher.memory_bytes(1001, 50) == 1050 * 50 * 4
