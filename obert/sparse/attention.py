"""Attention in float32: softmax(scale * query . key + mask) . value, for queries of one head of one sequence.

A group of queries is taken at a time. Their scores lie in scratch memory as [key][query], so that both products are of
one form: numbers of one operand are broadcast and multiplied into a vector of queries, and a few of them at once share
the vector. The softmax between them runs down the scores.
"""

from __future__ import annotations

import llvmlite.binding as llvm
import numpy as np
from numba import config

from obert.sparse.broadcast import f32_zeros, multiply_each, store_each
from obert.sparse.vectors import (
    Kind,
    add,
    div,
    exp,
    f32_at,
    jit,
    lanes_of,
    load,
    maximum,
    mul,
    row_bytes,
    splat,
    store,
    sub,
)

AVX512 = config.CPU_NAME in (None, "znver4", "cascadelake") and llvm.get_host_cpu_features()["avx512f"]

COLUMN = Kind(16)  # tokens of one sequence that lie side by side
GROUP = Kind(32 if AVX512 else 16)  # queries whose scores are computed together
SHARED = 8 if AVX512 else 4  # broadcast numbers for one vector: as many sums as registers hold


def scratch_bytes(keys: int, head_size: int) -> int:
    """Of the memory that a call needs for itself."""
    return (-(-keys // COLUMN.lanes) * COLUMN.lanes + head_size + SHARED + 1) * GROUP.lanes * 4


@jit
def _take_queries(kind, group, q, stride, token, head_size, scale, packed):
    """Copy a group of queries, times the scale, to [feature][query]."""
    row, lanes, factor = row_bytes(kind), lanes_of(kind), splat(COLUMN, np.float32(scale))
    for column in range(0, lanes_of(group), lanes_of(COLUMN)):
        source = q + (token + column) // lanes * stride + (token + column) % lanes * 4
        target = packed + column * 4
        for feature in range(head_size):
            store(target + feature * row_bytes(group), mul(load(COLUMN, source + feature * row), factor))


@jit
def _give_context(kind, group, packed, inverse, context, stride, token, head_size):
    """Copy the group's context from [feature][query], times the inverse of the sum of probabilities."""
    row, lanes = row_bytes(kind), lanes_of(kind)
    for column in range(0, lanes_of(group), lanes_of(COLUMN)):
        target = context + (token + column) // lanes * stride + (token + column) % lanes * 4
        factor = load(COLUMN, inverse + column * 4)
        for feature in range(head_size):
            place = packed + feature * row_bytes(group) + column * 4
            store(target + feature * row, mul(load(COLUMN, place), factor))


@jit
def _scores(kind, group, queries, k, stride, start, keys, head_size, scores):
    """Scores of all keys, rounded up to SHARED of them: what lies behind the sequence is computed and never used."""
    row, lanes, step = row_bytes(kind), lanes_of(kind), row_bytes(group)
    for key in range(0, keys, SHARED):
        place = k + (start + key) // lanes * stride + (start + key) % lanes * 4
        sums = f32_zeros(group, SHARED)
        for feature in range(head_size):
            sums = multiply_each(sums, load(group, queries + feature * step), place + feature * row, 4)
        store_each(scores + key * step, sums)


@jit
def _softmax(group, scores, keys, mask, inverse):
    """Numerators of the softmax over the keys, in place, and the inverse of their sum."""
    step = row_bytes(group)
    if mask != 0:
        for key in range(keys):
            place = scores + key * step
            store(place, add(load(group, place), splat(group, f32_at(mask + key * 4))))
    top = load(group, scores)
    for key in range(1, keys):
        top = maximum(load(group, scores + key * step), top)
    total = splat(group, np.float32(0))
    for key in range(keys):
        place = scores + key * step
        numerator = exp(sub(load(group, place), top))
        total = add(total, numerator)
        store(place, numerator)
    store(inverse, div(splat(group, np.float32(1)), total))


@jit
def _weigh(kind, group, probabilities, v, stride, start, keys, begin, end, shared, packed):
    """Sums of values weighted with probabilities, for features begin to end, so many at a time."""
    row, lanes, step = row_bytes(kind), lanes_of(kind), row_bytes(group)
    for feature in range(begin, end, shared):
        sums = f32_zeros(group, shared)
        key = 0
        while key < keys:
            column = (start + key) % lanes
            place = v + (start + key) // lanes * stride + feature * row + column * 4
            last = min(keys, key + lanes - column)
            for source in range(probabilities + key * step, probabilities + last * step, step):
                sums = multiply_each(sums, load(group, source), place, row)
                place += 4
            key = last
        store_each(packed + feature * step, sums)


@jit
def _attend(kind, group, q, k, v, stride, start, keys, token, head_size, mask, scale, scratch, context, context_stride):
    """Attention of one group of queries, the first of which is at `token` of the stream."""
    step = row_bytes(group)
    packed = scratch + step
    scores = packed + head_size * step
    _take_queries(kind, group, q, stride, token, head_size, scale, packed)
    _scores(kind, group, packed, k, stride, start, keys, head_size, scores)
    _softmax(group, scores, keys, mask, scratch)
    whole = head_size - head_size % SHARED
    _weigh(kind, group, scores, v, stride, start, keys, 0, whole, SHARED, packed)
    _weigh(kind, group, scores, v, stride, start, keys, whole, head_size, 1, packed)
    _give_context(kind, group, packed, scratch, context, context_stride, token, head_size)


@jit
def attention(
    kind, q, k, v, stride, start, keys, first, last, head_size, mask, scale, scratch, context, context_stride
):
    """Attention of some queries of one sequence, in one head.

    Args:
        kind: of the tiles.
        q: the head's first feature of the packed stream's first token; the same for k and v.
        k: the keys.
        v: the values.
        stride: bytes from one tile of q, k and v to the next.
        start: the sequence's first token, a multiple of 16.
        keys: how many of its tokens are attended to, at least 1.
        first: the first query, from the sequence's start: a multiple of 16.
        last: the first query that is not computed: a multiple of 16.
        head_size: features of a head.
        mask: the address of a number for each key, which is added to its scores; or 0.
        scale: of scores.
        scratch: `scratch_bytes(keys, head_size)` of memory, aligned, of no other thread.
        context: the head's first feature of the stream's first token in the result.
        context_stride: bytes from one tile of the result to the next.
    """
    query = start + first
    while query + lanes_of(GROUP) <= start + last:
        _attend(
            kind, GROUP, q, k, v, stride, start, keys, query, head_size, mask, scale, scratch, context, context_stride
        )
        query += lanes_of(GROUP)
    while query < start + last:
        _attend(
            kind, COLUMN, q, k, v, stride, start, keys, query, head_size, mask, scale, scratch, context, context_stride
        )
        query += lanes_of(COLUMN)
