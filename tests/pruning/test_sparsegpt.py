"""SparseGPT against columns that are removed one at a time with everything fitted anew by the normal equations."""

import numpy as np
import pytest
import torch

from obert.foundation.errors import UserError
from obert.masks.patterns import Pattern
from obert.pruning import prune_event
from obert.pruning.sparsegpt import SparseGPT

CLOSE = {"rtol": 1e-7, "atol": 1e-9}


def hessian_of(inputs, dampening):
    tokens = inputs.flatten(0, 1).numpy()
    found = tokens.T @ tokens / len(tokens)
    return found + dampening * np.diag(found).mean() * np.eye(len(found))


def fitted(row, hessian, fixed):
    """`fixed` holds new values of some coordinates; the others are where 1/2 (w - row)' H (w - row) is least."""
    result, known = row.copy(), np.array(sorted(fixed))
    free = np.array([i for i in range(len(row)) if i not in fixed], dtype=int)
    change = np.array([fixed[i] for i in known]) - row[known]
    result[known] += change
    if len(free):
        result[free] -= np.linalg.solve(hessian[np.ix_(free, free)], hessian[np.ix_(free, known)] @ change)
    return result


def by_columns(row, hessian, pruned):
    """From left to right: a pruned weight is set to zero, and all to its right are fitted with what is left fixed."""
    now, fixed = row.copy(), {}
    for i, gone in enumerate(pruned):
        fixed[i] = 0.0 if gone else now[i]
        now = fitted(row, hessian, fixed)
    return now


def updated(context, method, pruned):
    with torch.no_grad():
        change = method.propose(context).update({"w": pruned}).changes["w"]
    assert not change[pruned].any()
    return ((context.weights["w"] + change) * ~pruned).numpy()


@pytest.mark.parametrize("block_size", [3, 4, 12, 128])
@pytest.mark.parametrize("dampening", [0.0, 0.01])
def test_a_given_mask_is_made_up_for_column_by_column(layer_on, correlated, block_size, dampening):
    """Whatever the blocks, which only put updates off."""
    weight, inputs = correlated(5, 12)
    pruned = torch.rand(5, 12, generator=torch.Generator().manual_seed(3)) < 0.5
    method = SparseGPT(examples=16, block_size=block_size, dampening=dampening)
    found, hessian = updated(layer_on(weight, inputs), method, pruned), hessian_of(inputs, dampening)
    expected = [by_columns(*rows) for rows in zip(weight.numpy(), [hessian] * 5, pruned.numpy(), strict=True)]
    np.testing.assert_allclose(found, expected, **CLOSE)


@pytest.mark.parametrize("first", [0, 8])
def test_where_all_that_is_pruned_comes_first_the_update_is_optimal_brain_surgeons(layer_on, correlated, first):
    """In one block, the whole optimum; at the start of the last block, that with the columns before it fixed."""
    weight, inputs = correlated(4, 12)
    pruned = torch.zeros(4, 12, dtype=torch.bool)
    pruned[:, first : first + 2] = True
    found = updated(layer_on(weight, inputs), SparseGPT(examples=16, block_size=12 - first or 12, dampening=0), pruned)
    tokens = inputs.flatten(0, 1).numpy()
    for row, result in zip(weight.numpy(), found, strict=True):
        wanted = tokens @ row - tokens[:, :first] @ row[:first]
        rest = np.linalg.lstsq(tokens[:, first + 2 :], wanted, rcond=None)[0]
        np.testing.assert_allclose(result, [*row[:first], 0, 0, *rest], **CLOSE)


def chosen_by_blocks(weight, hessian, blocks, counts):
    """The mask and the weights: in each block, weights with the least w^2 / [F^-1]_jj, F of the columns from j on."""
    weight, pruned = weight.copy(), np.zeros(weight.shape, bool)
    start = weight.copy()
    for columns, count in zip(blocks, counts, strict=True):
        scale = np.array([np.linalg.inv(hessian[j:, j:])[0, 0] for j in columns])
        costs = weight[:, columns] ** 2 / scale
        lowest = np.argsort(costs, axis=None, kind="stable")[:count]
        pruned[lowest // len(columns), columns[0] + lowest % len(columns)] = True
        stop = columns[-1] + 1
        for row in range(len(weight)):
            known = np.concatenate([pruned[row, :stop], np.zeros(weight.shape[1] - stop, bool)])
            weight[row] = by_columns(start[row], hessian, known)
    return pruned, weight


def test_masks_are_chosen_block_by_block_after_the_updates_of_those_before(layer_on, correlated):
    """Blocks of 4, 4 and 2 columns of 5 rows at 0.55: 11 and 22 of the first 20 and 40 weights, 28 of all 50."""
    weight, inputs = correlated(5, 10)
    context = layer_on(weight, inputs, sparsity=0.55)
    event = prune_event(SparseGPT(examples=16, block_size=4), context, 0.55)
    blocks = [np.arange(4), np.arange(4, 8), np.arange(8, 10)]
    pruned, values = chosen_by_blocks(weight.numpy(), hessian_of(inputs, 0.01), blocks, [11, 11, 6])
    assert (~event.masks["w"].numpy() == pruned).all()
    np.testing.assert_allclose(context.weights["w"].numpy(), values * ~pruned, **CLOSE)
    dense = np.argsort(weight.numpy() ** 2 / np.diag(np.linalg.inv(hessian_of(inputs, 0.01))), axis=None)[:28]
    assert set(dense) != set(np.flatnonzero(pruned))  # one choice for all columns would have been another


def test_two_of_four_are_chosen_just_before_their_columns(layer_on, correlated):
    weight, inputs = correlated(3, 12)
    context = layer_on(weight, inputs, sparsity=0.5, pattern=Pattern.parse("2:4"))
    event = prune_event(SparseGPT(examples=16), context, 0.5)
    hessian, now, pruned = hessian_of(inputs, 0.01), weight.numpy().copy(), np.zeros((3, 12), bool)
    for start in (0, 4, 8):
        scale = np.array([np.linalg.inv(hessian[j:, j:])[0, 0] for j in range(start, start + 4)])
        for row in range(3):
            lowest = np.argsort(now[row, start : start + 4] ** 2 / scale)[:2]
            pruned[row, start + lowest] = True
            now[row] = by_columns(weight[row].numpy(), hessian, pruned[row])
    assert (~event.masks["w"].numpy() == pruned).all()
    np.testing.assert_allclose(context.weights["w"].numpy(), now * ~pruned, **CLOSE)


@pytest.mark.parametrize("where", ["left", "right", "anywhere"])
def test_what_is_pruned_already_stays_so_and_the_count_is_exact(layer_on, correlated, where):
    """Also where a block has lost more than its share."""
    weight, inputs = correlated(6, 16)
    kept = torch.rand(6, 16, generator=torch.Generator().manual_seed(1)) < 0.6
    if where != "anywhere":
        kept[:] = True
        kept[:, : 7 if where == "left" else None][:, 0 if where == "left" else 9 :] = False
    context = layer_on(weight * kept, inputs, masks={"w": kept})
    masks = prune_event(SparseGPT(examples=16, block_size=4), context, 0.5).masks
    assert int((~masks["w"]).sum()) == 48
    assert not (masks["w"] & ~kept).any()
    assert int((context.weights["w"] == 0).sum()) == 48


def test_inputs_that_are_always_zero_go_first_and_move_nothing(layer_on, correlated):
    weight, inputs = correlated(4, 8)
    inputs[..., 2] = 0
    weight[:, 2] = 9
    context = layer_on(weight, inputs, sparsity=0.25)
    masks = prune_event(SparseGPT(examples=16), context, 0.25).masks
    assert not masks["w"][:, 2].any()
    few = layer_on(weight, inputs, sparsity=1 / 32)
    prune_event(SparseGPT(examples=16), few, 1 / 32)
    assert few.weights["w"][:, 2].tolist() == [0, 9, 9, 9]


def test_a_hessian_without_an_inverse_is_told(layer_on, correlated):
    weight, inputs = correlated(2, 12)
    inputs[..., 1] = inputs[..., 0]
    with pytest.raises(UserError, match=r"layer of 'w' are too few or too much alike.*raise the dampening"):
        prune_event(SparseGPT(examples=16, dampening=0), layer_on(weight, inputs), 0.5)


def test_groups_must_not_straddle_blocks():
    with pytest.raises(UserError, match="block_size 128 must be a multiple of 3 for pattern 1x3"):
        SparseGPT().check_pattern(Pattern.parse("1x3"))
