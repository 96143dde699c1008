"""What is compiled by Numba for a CPU: small matrices by the thousand, and parts of large ones.

A small matrix stays in the first cache, one after the other, where batched calls of LAPACK and of torch pay for each
step of each slab, and read the whole slab anew. All is float64. A matrix that is not positive definite is counted, and
left as it happens to be.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from numba import njit
from torch import Tensor

LARGEST = 96  # order; above it LAPACK's blocking is worth more than its calls cost
NOT_CHOSEN = float(np.finfo(np.float32).max)  # a finite score that is never the lowest
NEXT = 1 + 2**-22  # times this, a float32 is another one
_TINY = float(np.finfo(np.float64).tiny)

# Sums may be taken in another order, which lets the compiler use vectors; NaN and infinity are as ever.
_jit = njit(nogil=True, cache=True, error_model="numpy", boundscheck=False, fastmath={"contract", "reassoc", "nsz"})


def takes(matrices: Tensor) -> bool:
    """Whether these matrices [n, a, a] are for what is compiled here."""
    return matrices.device.type == "cpu" and matrices.dtype == torch.float64 and matrices.shape[-1] <= LARGEST


def inverses(matrices: Tensor) -> tuple[Tensor, int]:
    """Inverses of symmetric positive definite matrices [n, a, a], and how many are none."""
    found = matrices.contiguous().clone()
    return found, _in_threads(_inverses, len(found), found)


def greedy_scores(matrices: Tensor, weights: Tensor, kept: Tensor) -> tuple[Tensor, int]:
    """Scores of weights that are removed one at a time, and how many matrices are not positive definite.

    As `solvers.remove_in_turn` for a pattern of single weights, from the matrices themselves.

    Args:
        matrices: [n, a, a], such as `Slab.fisher`.
        weights, kept: [n, a].
    """
    scores = torch.empty_like(weights)
    failed = _in_threads(_greedy_scores, len(scores), matrices, weights, kept, scores)
    return scores, failed


def solutions(matrices: Tensor, weights: Tensor, pruned: Tensor, stays: Tensor) -> tuple[Tensor, int]:
    """The change dw of the weights that stay which makes 1/2 dw' F dw least, and how many matrices are no such F.

    Args:
        matrices: F [n, a, a].
        weights, pruned, stays: [n, a]; the pruned ones change by minus themselves, all others not at all.
    """
    changes = torch.zeros_like(weights)
    failed = _in_threads(_solutions, len(changes), matrices, weights, pruned, stays, changes)
    return changes, failed


def cut(matrices: Tensor, columns: Tensor) -> Tensor:
    """Rows and columns `columns` [n, b] of each of the matrices [n, a, a]: [n, b, b], on a CPU in float64.

    In one pass. torch takes rows, then columns, then puts the matrices together, which is eight times as long.
    """
    found = matrices.new_empty(*columns.shape, columns.shape[1])
    for arrays in zip(matrices, columns.contiguous(), found, strict=True):
        _cut(*(array.numpy() for array in arrays))
    return found


def _in_threads(function: Callable[..., int], count: int, *tensors: Tensor) -> int:
    """The sum of what a function returns for shares of the blocks, in as many threads as torch has."""
    arrays = [tensor.contiguous().numpy() for tensor in tensors]
    threads = min(torch.get_num_threads(), count)
    if threads < 2:
        return function(*arrays)
    bounds = [count * i // threads for i in range(threads + 1)]
    shares = [[array[start:stop] for array in arrays] for start, stop in pairwise(bounds)]
    with ThreadPoolExecutor(threads) as pool:  # not kept: a forked process would wait for threads that it has not
        return sum(pool.map(lambda share: function(*share), shares))


@_jit
def _cut(matrix: np.ndarray, columns: np.ndarray, found: np.ndarray) -> None:
    for i in range(len(columns)):
        for j in range(len(columns)):
            found[i, j] = matrix[columns[i], columns[j]]


@_jit
def _factor(m: np.ndarray, order: int, factor: np.ndarray) -> bool:
    """The lower L of L L' = m, whose lower triangle is read. False if m is not positive definite."""
    for j in range(order):
        left = m[j, j]
        for k in range(j):
            left -= factor[j, k] * factor[j, k]
        if not left > 0:
            return False
        factor[j, j] = np.sqrt(left)
        scale = 1 / factor[j, j]
        for i in range(j + 1, order):
            left = m[i, j]
            for k in range(j):
                left -= factor[i, k] * factor[j, k]
            factor[i, j] = left * scale
    return True


@_jit
def _invert(m: np.ndarray, order: int, factor: np.ndarray) -> bool:
    """Replace m by its inverse. `factor` is overwritten. False if m is not positive definite."""
    if not _factor(m, order, factor):
        return False
    for i in range(order):  # the inverse of L, row by row
        scale = 1 / factor[i, i]
        for j in range(i):
            m[i, j] = 0
        for k in range(i):
            for j in range(k + 1):
                m[i, j] -= factor[i, k] * m[k, j]
        for j in range(i):
            m[i, j] *= scale
        m[i, i] = scale
    for i in range(order):
        for j in range(i + 1):
            factor[i, j] = 0
    for k in range(order):  # L^-T L^-1, a row of L^-1 at a time
        for i in range(k + 1):
            for j in range(i + 1):
                factor[i, j] += m[k, i] * m[k, j]
    for i in range(order):
        for j in range(i + 1):
            m[i, j] = m[j, i] = factor[i, j]
    return True


@_jit
def _inverses(matrices: np.ndarray) -> int:
    count, order = matrices.shape[:2]
    factor, failed = np.empty((order, order)), 0
    for block in range(count):
        if not _invert(matrices[block], order, factor):
            failed += 1
    return failed


@_jit
def _greedy_scores(matrices: np.ndarray, weights: np.ndarray, kept: np.ndarray, scores: np.ndarray) -> int:
    count, order = weights.shape
    inverse, factor = np.empty((order, order)), np.empty((order, order))
    w, column, places = np.empty(order), np.empty(order), np.empty(order, np.int64)
    failed = 0
    for block in range(count):
        left = 0
        for i in range(order):
            scores[block, i] = NOT_CHOSEN
            if kept[block, i]:
                places[left], w[left] = i, weights[block, i]
                left += 1
        for i in range(left):
            for j in range(i + 1):
                inverse[i, j] = matrices[block, places[i], places[j]]
        if not _invert(inverse, left, factor):
            failed += 1
            continue
        highest = 0.0
        while left > 0:
            cheapest, q = np.inf, 0
            for i in range(left):
                cost = w[i] * w[i] / max(inverse[i, i], _TINY)
                if cost < cheapest:
                    cheapest, q = cost, i
            highest = max(highest * NEXT, cheapest / 2)
            scores[block, places[q]] = highest
            left -= 1
            # The last one takes the place of the one that goes: what is left is small and lies together.
            for j in range(left + 1):
                column[j] = inverse[q, j]
                inverse[q, j] = inverse[left, j]
            column[q], column[left] = column[left], column[q]
            for j in range(left):
                inverse[j, q] = inverse[j, left]
            if q < left:
                inverse[q, q] = inverse[left, left]
            places[q], w[q], gone = places[left], w[left], w[q]
            scale = 1 / max(column[left], _TINY)
            for i in range(left):
                ratio = column[i] * scale
                w[i] -= ratio * gone
                for j in range(left):
                    inverse[i, j] -= ratio * column[j]
    return failed


@_jit
def _solutions(
    matrices: np.ndarray, weights: np.ndarray, pruned: np.ndarray, stays: np.ndarray, changes: np.ndarray
) -> int:
    count, order = weights.shape
    free, factor = np.empty((order, order)), np.empty((order, order))
    force, places = np.empty(order), np.empty(order, np.int64)
    failed = 0
    for block in range(count):
        left, gone = 0, False
        for i in range(order):
            gone |= pruned[block, i]
            if stays[block, i]:
                places[left] = i
                left += 1
        if not gone or left == 0:
            continue
        for i in range(left):
            total = 0.0
            for j in range(order):
                if pruned[block, j]:
                    total += matrices[block, places[i], j] * weights[block, j]
            force[i] = total
            for j in range(i + 1):
                free[i, j] = matrices[block, places[i], places[j]]
        if not _factor(free, left, factor):
            failed += 1
            continue
        for i in range(left):
            for k in range(i):
                force[i] -= factor[i, k] * force[k]
            force[i] /= factor[i, i]
        for i in range(left - 1, -1, -1):
            force[i] /= factor[i, i]
            for k in range(i):
                force[k] -= factor[i, k] * force[i]
        for i in range(left):
            changes[block, places[i]] = force[i]
    return failed
