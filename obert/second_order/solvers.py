"""Which weights of a Fisher block to prune, and how the others make up for it: three answers to the same problem.

Pruning a set Q changes the loss by 1/2 dw' F dw at least, at dw = -F^-1[:, Q] (F^-1[Q, Q])^-1 w_Q (Kurtic et al.
2022, arXiv 2203.07259, eq. 3 and 4).

- `independent`, that paper: groups are ranked one by one, and their own updates are summed.
- `joint`: the same ranking; the exact update for all that is pruned in a block.
- `greedy`: groups are removed one at a time, the inverse downdated after each (a Schur complement), so that a group's
  cost counts what went before it in its block; the exact update for all.

`greedy` is the idea of CAP (Kuznedelev, Kurtic, Frantar and Alistarh, NeurIPS 2023, arXiv 2210.09223), which removes
the weights of a Fisher block one at a time and downdates its inverse. CAP has it from Optimal Brain Compression
(Frantar, Singh and Alistarh, NeurIPS 2022, arXiv 2208.11580), which does so in each row of a layer, with the Hessian of
the layer's output error. Cite CAP where you use this solver. Different here: whole groups of the pattern are removed,
each by its cheapest set; all layers are ranked together by the largest cost of a removal so far, where CAP ranks a
block's summed cost; and the weights that stay are solved for once, for the set that was chosen in the end, where both
sources store the weights after every removal. As far as we know, new are groups in Fisher blocks, that ranking, and the
downdates kept as vectors (`remove_in_turn`); the removal one at a time and the exact update are not. See
`docs/explanation/second_order_pruning.md`.

All of it is float64 on slabs of blocks [blocks, a, a]. On a CPU what pays is compiled (`compiled`), block by block;
elsewhere, and for patterns of groups, there is no loop over blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from obert.masks.patterns import Pattern
from obert.second_order import compiled
from obert.second_order.compiled import NEXT, NOT_CHOSEN
from obert.second_order.fisher import Slab, require_inverses, spd_inverse

Solver = Literal["independent", "joint", "greedy"]


def scores(solver: Solver, slab: Slab, weights: Tensor, pattern: Pattern, name: str) -> tuple[Tensor, Tensor]:
    """A score for each weight: the loss increase of the cheapest set with it in that the pattern lets be pruned.

    Args:
        weights: [blocks, a], those of the slab's positions; zero where not kept.
        name: the tensor's, for messages.

    Returns:
        Scores [blocks, a], and multipliers [blocks, a] that `update` takes: (F^-1[Q, Q])^-1 w_Q of the set Q that is
        cheapest in each group.
    """
    if solver == "greedy" and pattern.size == 1 and compiled.takes(slab.fisher):
        found, failed = compiled.greedy_scores(slab.fisher, weights, slab.kept)
        require_inverses(failed, name)
        return found, torch.zeros_like(weights)
    inverse = spd_inverse(slab.fisher, name)
    if solver == "greedy":
        return remove_in_turn(inverse, weights, slab.kept, pattern).scores, torch.zeros_like(weights)
    size = pattern.size
    result, multipliers = _cheapest_sets(_inside_groups(inverse, size), weights.unflatten(1, (-1, size)), pattern)
    return result.flatten(1), multipliers.flatten(1)


def update(
    solver: Solver, slab: Slab, weights: Tensor, pruned: Tensor, multipliers: Tensor, name: str, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The change of the weights that stay, and the loss increase 1/2 dw' F dw that the quadratic model predicts.

    Args:
        pruned: [blocks, a], True for the weights that are pruned now.
        multipliers: from `scores`.
        scale: factor of the change.

    Returns:
        Changes [blocks, a], zero where not kept or pruned, and the sum of the loss increases.
    """
    stays = slab.kept & ~pruned
    if solver == "independent":
        change = -torch.bmm(spd_inverse(slab.fisher, name), (multipliers * pruned).unsqueeze(2)).squeeze(2) * stays
    elif compiled.takes(slab.fisher):
        change, failed = compiled.solutions(slab.fisher, weights, pruned, stays)
        require_inverses(failed, name)
    else:
        force = torch.bmm(slab.fisher, (weights * pruned).unsqueeze(2)).squeeze(2) * stays
        free = slab.fisher * stays[:, :, None] * stays[:, None, :]
        free.diagonal(dim1=1, dim2=2).add_(~stays)
        change = torch.bmm(spd_inverse(free, name), force.unsqueeze(2)).squeeze(2)
    change *= scale
    total = (change - weights * pruned).unsqueeze(2)
    return change, torch.bmm(total.transpose(1, 2), torch.bmm(slab.fisher, total)).sum() / 2


def _inside_groups(matrices: Tensor, size: int) -> Tensor:
    """The diagonal blocks of order `size` of matrices [n, a, a]: [n, a / size, size, size]."""
    tiles = matrices.unflatten(2, (-1, size)).unflatten(1, (-1, size))
    return tiles.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)


def _solve_small(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Solutions of positive definite systems [..., k, k] of small order by Gauss-Jordan, over all of them at once."""
    order = vectors.shape[-1]
    system = torch.cat([matrices, vectors.unsqueeze(-1)], dim=-1)
    for i in range(order):
        row = system[..., i, :] / system[..., i, i, None]
        system = system - system[..., :, i].unsqueeze(-1) * row.unsqueeze(-2)
        system[..., i, :] = row  # by no difference, which would lose it where the matrix is far from 1
    return system[..., -1]


def _cheapest_sets(inverse: Tensor, weights: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
    """Compare all the sets that the pattern lets be pruned in each group.

    Args:
        inverse: of the Fisher, inside the groups, [..., size, size].
        weights: [..., size].

    Returns:
        Each weight's score, and the multipliers of the cheapest set, zero elsewhere, each [..., size].
    """
    if pattern.size == 1:
        multipliers = weights / inverse[..., 0]
        return multipliers * weights / 2, multipliers
    best = torch.full_like(weights[..., 0], torch.inf)
    result, multipliers = torch.full_like(weights, torch.inf), torch.zeros_like(weights)
    for candidate in map(list, combinations(range(pattern.size), pattern.zeros)):
        values = weights[..., candidate]
        solution = _solve_small(inverse[..., candidate, :][..., candidate], values)
        cost = (solution * values).sum(dim=-1) / 2
        result[..., candidate] = torch.minimum(result[..., candidate], cost.unsqueeze(-1))
        better = (cost < best).unsqueeze(-1)
        everywhere = torch.zeros_like(weights)
        everywhere[..., candidate] = solution
        multipliers = torch.where(better, everywhere, multipliers)
        best = torch.minimum(best, cost)
    return result, multipliers


@dataclass(frozen=True)
class Removals:
    """Groups that were removed one at a time, and what is left.

    Attributes:
        scores: of the removed weights, NOT_CHOSEN elsewhere, [blocks, a].
        downdates: U [blocks, removed weights, a]: the inverse left is the one before less U'U.
        weights: at their optimum now, [blocks, a].
        open: True for the groups that are left, [blocks, a / size].
        highest: score of the last removal, [blocks, 1].
    """

    scores: Tensor
    downdates: Tensor
    weights: Tensor
    open: Tensor
    highest: Tensor


def remove_in_turn(
    inverse: Tensor,
    weights: Tensor,
    kept: Tensor,
    pattern: Pattern,
    limit: int | None = None,
    highest: Tensor | None = None,
) -> Removals:
    """Remove groups one at a time. Scores are the running maximum of the loss increases.

    A group's score is above those of the groups removed before it even where it costs less, by the least that float32
    shows: otherwise it could be pruned without them.

    With H the inverse left after earlier removals, a set Q costs 1/2 w_Q' (H_QQ)^-1 w_Q; then H loses
    H_:Q (H_QQ)^-1 H_Q:, and the weights move to their optimum. The downdates are kept as vectors U (H = H_0 - U'U), so
    that a step touches the columns it needs and never the whole of H. What all groups need is held by place in the
    group, then block and group, which keeps the innermost loops long.

    Args:
        inverse: [blocks, a, a].
        weights: [blocks, a], those of the slab's positions; zero where not kept.
        limit: removals of a block at most, all by default.
        highest: scores are above these [blocks, 1], those of removals before.
    """
    size, zeros = pattern.size, pattern.zeros
    blocks, order = weights.shape
    closed = ~kept.unflatten(1, (-1, size)).all(dim=2)
    steps = int((~closed).sum(dim=1).max())
    steps = steps if limit is None else min(steps, limit)
    values = weights.unflatten(1, (-1, size)).permute(2, 0, 1).contiguous()
    tiles = _inside_groups(inverse, size).permute(2, 3, 0, 1).contiguous()
    candidates = torch.tensor(list(combinations(range(size), zeros)), device=weights.device)
    whole = candidates.expand(blocks, -1) if len(candidates) == 1 else None  # of a group, if all of it is pruned
    downdates = inverse.new_empty(blocks, steps * zeros, order)
    result = torch.full_like(weights, NOT_CHOSEN)
    highest = weights.new_zeros(blocks, 1) if highest is None else highest
    every = torch.arange(blocks, device=weights.device)[:, None]
    for step in range(steps):
        if whole is not None:
            costs = _cost(tiles, values)
        else:
            costs, chosen = torch.stack([_cost(tiles[c][:, c], values[c]) for c in candidates]).min(dim=0)
        cost, group = costs.masked_fill_(closed, torch.inf).min(dim=1, keepdim=True)
        members = candidates[chosen.gather(1, group).squeeze(1)] if whole is None else whole  # [blocks, zeros]
        live = torch.isfinite(cost)  # blocks with fewer groups are done before the others
        removed = group * size + members
        highest = torch.maximum(highest * NEXT, torch.where(live, cost, 0))
        result.scatter_(1, removed, torch.where(live, highest, result.gather(1, removed)))
        closed.scatter_(1, group, True)

        done = step * zeros
        columns = inverse[every, removed]
        if done:
            past = downdates[:, :done]
            ratios = past.gather(2, removed[:, None, :].expand(-1, done, -1))
            columns = columns.baddbmm_(ratios.transpose(1, 2), past, alpha=-1)
        for k in range(zeros):  # Cholesky of H_QQ, one member at a time, carried along all columns
            row = columns[:, k]
            root = row.gather(1, removed[:, k : k + 1]).clamp_min(torch.finfo(row.dtype).tiny).rsqrt()
            vector = row * (root * live)
            downdates[:, done + k] = vector
            places = vector.unflatten(1, (-1, size)).permute(2, 0, 1).contiguous()
            values -= places * (values[members[:, k : k + 1], every, group] * root)
            tiles -= places.unsqueeze(1) * places
            if k + 1 < zeros:
                later = vector.gather(1, removed[:, k + 1 :])
                columns[:, k + 1 :] -= later.unsqueeze(2) * vector.unsqueeze(1)
    return Removals(result, downdates, values.permute(1, 2, 0).flatten(1), ~closed, highest)


def _cost(matrices: Tensor, vectors: Tensor) -> Tensor:
    """1/2 v' M^-1 v of positive definite M [k, k, ...] and v [k, ...], by elimination over all of them at once."""
    total = torch.zeros_like(vectors[0])
    for left in range(len(vectors) - 1, -1, -1):
        total += vectors[0].square() / matrices[0, 0]
        if left:
            ratios = matrices[0, 1:] / matrices[0, 0]
            vectors = vectors[1:] - ratios * vectors[0]
            matrices = matrices[1:, 1:] - ratios.unsqueeze(1) * matrices[0, 1:]
    return total / 2
