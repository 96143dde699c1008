"""Attention in float32: softmax(scale * query . key + mask) . value, for queries of one head of one sequence.

A group of queries is taken at a time. Their scores lie in scratch memory as [key][query], so that both products are of
one form: numbers of one operand are broadcast and multiplied into a vector of queries, and a few of them at once share
the vector. The softmax between them runs down the scores.
"""

from __future__ import annotations

import math

import numpy as np

from obert.sparse.kernels.broadcast import multiply_each, store_each, zeros_each
from obert.sparse.kernels.functions import exp2
from obert.sparse.kernels.processor import REGISTER
from obert.sparse.kernels.vectors import (
    Kind,
    add,
    div,
    f32_at,
    inner,
    jit,
    lanes_of,
    load,
    maximum,
    mul,
    prefetch,
    prefetch_to_read,
    row_bytes,
    splat,
    store,
    sub,
)

COLUMN = Kind(16)  # tokens of one sequence that lie side by side
GROUP = Kind(32 if REGISTER == 16 else 16)  # queries whose scores are computed together
SHARED = 8 if REGISTER == 16 else 4  # numbers broadcast to one vector: as many sums as registers hold
_LEAST = np.finfo(np.float32).min
_LOG2_E = np.float32(math.log2(math.e))


def scratch_bytes(keys: int, head_size: int) -> int:
    """Of the memory that a call needs for itself."""
    return (-(-keys // COLUMN.lanes) * COLUMN.lanes + head_size) * GROUP.lanes * 4


@inner
def _copy_columns(group, head_size, source, source_step, source_stride, target, target_step, target_stride):
    """Copy a group's columns, each [head_size][16], which are `stride` bytes apart."""
    for _ in range(0, lanes_of(group), lanes_of(COLUMN)):
        for feature in range(head_size):
            store(target + feature * target_step, load(COLUMN, source + feature * source_step))
        source += source_stride
        target += target_stride


@inner
def _scores(kind, group, queries, step, k, v, stride, start, keys, head_size, scores):
    """Products of all keys, rounded up to SHARED of them: what lies behind the sequence is computed and never used."""
    row, lanes = row_bytes(kind), lanes_of(kind)
    one = splat(group, np.float32(1))
    for key in range(0, keys, SHARED):
        place = k + (start + key) // lanes * stride + (start + key) % lanes * 4
        sums = zeros_each(group, SHARED)
        for feature in range(head_size):
            sums = multiply_each(sums, load(group, queries + feature * step), place + feature * row, 4)
            prefetch_to_read(place + feature * row + (v - k))  # the values are needed next
        store_each(scores + key * row_bytes(group), row_bytes(group), sums, one)


@inner
def _softmax(group, scores, keys, mask, scale):
    """Numerators of the softmax over the keys, in place; returns the inverse of their sum."""
    step = row_bytes(group)
    if mask != 0:
        for key in range(keys):
            place, added = scores + key * step, max(f32_at(mask + key * 4) / np.float32(scale), _LEAST)
            store(place, add(load(group, place), splat(group, added)))
    top = load(group, scores)
    for key in range(1, keys):
        top = maximum(load(group, scores + key * step), top)
    factor = splat(group, np.float32(scale) * _LOG2_E)
    total = splat(group, np.float32(0))
    for key in range(keys):
        place = scores + key * step
        numerator = exp2(mul(sub(load(group, place), top), factor))
        total = add(total, numerator)
        store(place, numerator)
    return div(splat(group, np.float32(1)), total)


@inner
def _weigh(kind, group, probabilities, inverse, v, stride, start, keys, head_size, out, step):
    """Sums of values weighted with probabilities, SHARED features at a time, or one where a head has fewer."""
    row, lanes = row_bytes(kind), lanes_of(kind)
    count, value_step, out_step = SHARED, row, step
    if head_size < SHARED:
        count, value_step, out_step = 1, 0, 0
    for begin in range(0, head_size, count):
        feature = min(begin, head_size - count)  # the last ones may be computed twice
        for place in range(out + feature * step, out + (feature + count) * step, step):
            prefetch(place)
            prefetch(place + row_bytes(group) - 4)
        sums = zeros_each(group, SHARED)
        key = 0
        while key < keys:
            column = (start + key) % lanes
            place = v + (start + key) // lanes * stride + feature * row + column * 4
            last = min(keys, key + lanes - column)
            for source in range(key, last):
                x = load(group, probabilities + source * row_bytes(group))
                sums = multiply_each(sums, x, place + (source - key) * 4, value_step)
            key = last
        store_each(out + feature * step, out_step, sums, inverse)


@inner
def _attend(kind, group, q, k, v, stride, start, keys, token, head_size, mask, scale, scratch, context, context_stride):
    """Attention of one group of queries, the first of which is at `token` of the stream."""
    row, lanes = row_bytes(kind), lanes_of(kind)
    column, step, to_next = token % lanes, row_bytes(group), row_bytes(COLUMN)
    q += token // lanes * stride + column * 4
    context += token // lanes * context_stride + column * 4
    queries, out, tile_step, scores = q, context, row, scratch + head_size * step
    together = column + lanes_of(group) <= lanes
    q_next, context_next = to_next, to_next  # from one column to the next
    if column + lanes_of(COLUMN) == lanes:
        q_next, context_next = stride - column * 4, context_stride - column * 4
    if not together:
        queries, out, tile_step = scratch, scratch, step
        _copy_columns(group, head_size, q, row, q_next, scratch, step, to_next)
    _scores(kind, group, queries, tile_step, k, v, stride, start, keys, head_size, scores)
    inverse = _softmax(group, scores, keys, mask, scale)
    _weigh(kind, group, scores, inverse, v, stride, start, keys, head_size, out, tile_step)
    if not together:
        _copy_columns(group, head_size, scratch, step, to_next, context, row, context_next)


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
        scale: of scores, positive.
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
