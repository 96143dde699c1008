"""Optimal Brain Surgeon in each row of a matrix, where all rows have one Hessian: that of their common inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from obert.foundation.errors import UserError
from obert.masks.patterns import Pattern
from obert.second_order import compiled
from obert.second_order.compiled import NOT_CHOSEN
from obert.second_order.solvers import remove_in_turn

LIMIT = 128  # removals before the inverse is written anew, cut to what is left
BYTES = {"cpu": 3e8, "cuda": 4e9}  # of the rows' own matrices that are worked on at a time


def inverted(hessian: Tensor, name: str) -> Tensor:
    """The inverse of a Hessian [in, in].

    Args:
        name: of the weight, for the message.

    Raises:
        UserError: there is none.
    """
    factor, failed = torch.linalg.cholesky_ex(hessian)
    rounding = len(hessian) * torch.finfo(hessian.dtype).eps * hessian.diagonal().max()
    if failed or factor.diagonal().min().square() < rounding:
        raise UserError(
            f"the inputs of the layer of '{name}' are too few or too much alike, their Hessian has no inverse: raise "
            "the dampening, or give more examples"
        )
    return torch.cholesky_inverse(factor)


def removal_scores(hessian: Tensor, inverse: Tensor, weights: Tensor, kept: Tensor, pattern: Pattern) -> Tensor:
    """Scores of removing groups one at a time in each row: the running maximum of what each removal adds to
    1/2 dw' H dw, with the others at their optimum.

    As in Optimal Brain Compression (arXiv 2208.11580), rows are independent. Their removals, merged by the lowest next
    cost, are in the order of these scores.

    Args:
        hessian: H, positive definite, float64 [in, in].
        inverse: of H.
        weights: float64 [out, in], zero where not kept.
        kept: [out, in].

    Returns:
        Scores [out, in]; those of groups that are pruned already mean nothing.
    """
    chosen = _rows_at_a_time(hessian)
    parts = zip(weights.split(chosen), kept.split(chosen), strict=True)
    return torch.cat([_scores(hessian, inverse, *part, pattern) for part in parts])


def refitted(hessian: Tensor, weights: Tensor, stays: Tensor) -> Tensor:
    """What is added to the weights that stay, so that 1/2 dw' H dw is least when the others are zero.

    Args:
        hessian: H, positive definite, float64 [in, in].
        weights: float64 [out, in].
        stays: [out, in].

    Returns:
        Changes [out, in], zero where a weight does not stay.
    """
    counts = stays.sum(dim=1)
    changes = torch.zeros_like(weights)
    for rows in counts.argsort(stable=True).split(_rows_at_a_time(hessian)):  # rows of about the same order together
        own, most = stays[rows], int(counts[rows].max())
        free = own.sort(dim=1, descending=True, stable=True)
        columns, real = free.indices[:, :most], free.values[:, :most]
        force = ((weights[rows] * ~own) @ hessian).gather(1, columns) * real
        matrices = _cut(hessian.expand(len(rows), -1, -1), columns) * (real.unsqueeze(1) & real.unsqueeze(2))
        matrices.diagonal(dim1=1, dim2=2).add_(~real)
        found = torch.cholesky_solve(force.unsqueeze(2), torch.linalg.cholesky(matrices)).squeeze(2)
        changes[rows] = torch.zeros_like(weights[rows]).scatter_(1, columns, found * real)
    return changes


def _rows_at_a_time(matrix: Tensor) -> int:
    return max(1, int(BYTES[matrix.device.type] // (8 * matrix.numel())))


def _scores(hessian: Tensor, inverse: Tensor, weights: Tensor, kept: Tensor, pattern: Pattern) -> Tensor:
    """Of some rows. What has been removed is cut from their inverses now and then, as a step's work goes by their
    order."""
    size, rows = pattern.size, len(weights)
    result, highest = torch.full_like(weights, NOT_CHOSEN), None
    places = torch.arange(weights.shape[1], device=weights.device).expand(rows, -1)
    current = inverse.expand(rows, -1, -1)
    if not kept.all():
        left = hessian * (kept.unsqueeze(1) & kept.unsqueeze(2))
        left.diagonal(dim1=1, dim2=2).add_(~kept)
        current = torch.cholesky_inverse(torch.linalg.cholesky(left))
    while kept.unflatten(1, (-1, size)).all(dim=2).any():
        done = remove_in_turn(current, weights, kept, pattern, LIMIT, highest)
        result.scatter_(1, places, torch.minimum(result.gather(1, places), done.scores))
        groups = done.open.sort(dim=1, descending=True, stable=True)
        most = int(groups.values.sum(dim=1).max())
        chosen = groups.indices[:, :most]
        columns = (chosen.unsqueeze(2) * size + torch.arange(size, device=chosen.device)).flatten(1)
        vectors = done.downdates.gather(2, columns.unsqueeze(1).expand(-1, done.downdates.shape[1], -1))
        current = _cut(current, columns).baddbmm_(vectors.transpose(1, 2), vectors, alpha=-1)
        weights, places, highest = done.weights.gather(1, columns), places.gather(1, columns), done.highest
        kept = groups.values[:, :most].repeat_interleave(size, dim=1)
    return result


def _cut(matrices: Tensor, columns: Tensor) -> Tensor:
    """Rows and columns `columns` [n, b] of each of the matrices [n, a, a]: [n, b, b]."""
    if matrices.device.type == "cpu":
        return compiled.cut(matrices, columns)
    return torch.stack([m[c].index_select(1, c) for m, c in zip(matrices, columns, strict=True)])
