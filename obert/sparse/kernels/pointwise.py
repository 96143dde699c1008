"""Operations that treat each token by itself, in float32: embeddings, activations, norms, sums.

A tile is [features][T tokens], one vector a feature. All addresses are int64 and those of rows of a tile are aligned;
`first` and `last` bound the features that a call computes, so that threads can share a tile.
"""

from __future__ import annotations

import numpy as np

from obert.sparse.kernels.functions import gelu, relu, tanh
from obert.sparse.kernels.transpose import transpose
from obert.sparse.kernels.vectors import (
    Kind,
    add,
    div,
    f32_at,
    f32_to,
    fma,
    i64_at,
    inner,
    jit,
    lanes_of,
    load,
    load_i32,
    mul,
    row_bytes,
    splat,
    sqrt,
    store,
    sub,
    to_f32,
)

ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "tanh")  # an activation's number is its place
COLUMN = Kind(16)  # tokens of one sequence that lie side by side
NEAR = 32  # features whose moments are taken together, while they are in the nearest cache


@jit
def embed(kind, tables, count, joined, indices, tokens, token, out):
    """Look up a tile's tokens in tables and add the rows, or put them one after the other if `joined`.

    Args:
        kind: of the tile.
        tables: [count][2] int64: the address of a table of float32, and how wide it is.
        count: how many tables.
        joined: 1 or 0. Tables that are added are equally wide.
        indices: [count][tokens] int64, the row of each token of the packed stream in each table; -1 gives zeros.
        tokens: of the whole stream.
        token: the first of the tile.
        out: the tile.
    """
    row = row_bytes(kind)
    step = joined  # tables to a run of features
    if joined == 0:
        step = count
    for begin in range(0, count, step):
        width = i64_at(tables + begin * 16 + 8)
        whole = width - width % lanes_of(COLUMN)
        for column in range(0, lanes_of(kind), lanes_of(COLUMN)):
            place = indices + (begin * tokens + token + column) * 8
            for feature in range(0, whole, lanes_of(COLUMN)):
                block = out + feature * row + column * 4
                for lane in range(lanes_of(COLUMN)):
                    total = splat(COLUMN, np.float32(0))
                    for lookup in range(step):
                        index = i64_at(place + (lookup * tokens + lane) * 8)
                        if index >= 0:
                            table = i64_at(tables + (begin + lookup) * 16)
                            total = add(total, load(COLUMN, table + (index * width + feature) * 4))
                    store(block + lane * row, total)
                transpose(COLUMN, block, row)
            for feature in range(whole, width):
                for lane in range(lanes_of(COLUMN)):
                    number = np.float32(0)
                    for lookup in range(step):
                        index = i64_at(place + (lookup * tokens + lane) * 8)
                        if index >= 0:
                            number += f32_at(i64_at(tables + (begin + lookup) * 16) + (index * width + feature) * 4)
                    f32_to(out + feature * row + (column + lane) * 4, number)
        out += width * row


@jit
def activate(kind, activation, x, first, last):
    """Apply one of ACTIVATIONS, by its number, in place."""
    step = row_bytes(COLUMN)
    begin, end = x + first * row_bytes(kind), x + last * row_bytes(kind)
    if activation == 0:
        for place in range(begin, end, step):
            store(place, gelu(load(COLUMN, place)))
    elif activation == 1:
        cubic, linear = splat(COLUMN, np.float32(0.044715 * 0.7978845608)), splat(COLUMN, np.float32(0.7978845608))
        half = splat(COLUMN, np.float32(0.5))
        for place in range(begin, end, step):
            value = load(COLUMN, place)
            argument = mul(value, fma(mul(value, value), cubic, linear))
            halved = mul(value, half)
            store(place, fma(halved, tanh(argument), halved))
    elif activation == 2:
        for place in range(begin, end, step):
            store(place, relu(load(COLUMN, place)))
    else:
        for place in range(begin, end, step):
            store(place, tanh(load(COLUMN, place)))


@inner
def _moments(kind, x, first, last, shift, mean, squares):
    """Mean and sum of squared distances of a tile's features up to `last`, from those up to `first`.

    The mean is counted from `shift`, a number near it, so that a large one costs no digits. Parts are put together as
    by Chan, Golub and LeVeque (1979).
    """
    row = row_bytes(kind)
    total, local_squares = splat(kind, np.float32(0)), splat(kind, np.float32(0))
    for place in range(x + first * row, x + last * row, row):
        total = add(total, sub(load(kind, place), shift))
    local = mul(total, splat(kind, np.float32(1 / (last - first))))
    for place in range(x + first * row, x + last * row, row):
        distance = sub(sub(load(kind, place), shift), local)
        local_squares = fma(distance, distance, local_squares)
    share = (last - first) / last
    step = sub(local, mean)
    squares = fma(mul(step, step), splat(kind, np.float32(first * share)), add(squares, local_squares))
    return fma(step, splat(kind, np.float32(share)), mean), squares


@inner
def _normalise(kind, x, shift, mean, squares, weight, bias, epsilon, features, out):
    """LayerNorm of a tile whose moments are known."""
    row = row_bytes(kind)
    variance = mul(squares, splat(kind, np.float32(1 / features)))
    inverse = div(splat(kind, np.float32(1)), sqrt(add(variance, splat(kind, np.float32(epsilon)))))
    for feature in range(features):
        distance = mul(sub(sub(load(kind, x + feature * row), shift), mean), inverse)
        scaled = fma(distance, splat(kind, f32_at(weight + feature * 4)), splat(kind, f32_at(bias + feature * 4)))
        store(out + feature * row, scaled)


@jit
def norm(kind, x, residual, weight, bias, epsilon, features, out):
    """LayerNorm over features of x, or of x + residual if that address is not 0; `out` may be either's address.

    A tile is one thread's: it takes microseconds, and each feature's result needs all the others.
    """
    mean, squares = splat(kind, np.float32(0)), splat(kind, np.float32(0))
    shift = load(kind, x)
    if residual != 0:
        shift = add(shift, load(kind, residual))
    for first in range(0, features, NEAR):
        last = min(features, first + NEAR)
        total = x
        if residual != 0:
            add_rows(kind, x, residual, out, first, last)
            total = out
        mean, squares = _moments(kind, total, first, last, shift, mean, squares)
    if residual != 0:
        x = out
    _normalise(kind, x, shift, mean, squares, weight, bias, epsilon, features, out)


@jit
def norm_i32(kind, x, scale, residual, weight, bias, epsilon, features, out):
    """As `norm`, of scale * x, x being int32."""
    mean, squares = splat(kind, np.float32(0)), splat(kind, np.float32(0))
    scale_i32(kind, x, scale, residual, out, 0, 1)
    shift = load(kind, out)
    for first in range(0, features, NEAR):
        last = min(features, first + NEAR)
        scale_i32(kind, x, scale, residual, out, max(1, first), last)
        mean, squares = _moments(kind, out, first, last, shift, mean, squares)
    _normalise(kind, out, shift, mean, squares, weight, bias, epsilon, features, out)


@jit
def affine(kind, x, weight, bias, out, first, last):
    """x * weight + bias, feature by feature; `out` may be the address of x."""
    row = row_bytes(kind)
    for feature in range(first, last):
        scale = splat(kind, f32_at(weight + feature * 4))
        shift = splat(kind, f32_at(bias + feature * 4))
        store(out + feature * row, fma(load(kind, x + feature * row), scale, shift))


@jit
def add_rows(kind, x, y, out, first, last):
    """x + y; `out` may be either's address."""
    row = row_bytes(kind)
    for place in range(first * row, last * row, row):
        store(out + place, add(load(kind, x + place), load(kind, y + place)))


@jit
def scale_i32(kind, x, scale, residual, out, first, last):
    """Float32 of int32 times a scale, plus the residual if its address is not 0; `out` may be either's address."""
    row = row_bytes(kind)
    factor = splat(kind, np.float32(scale))
    if residual != 0:
        for place in range(first * row, last * row, row):
            store(out + place, fma(to_f32(load_i32(kind, x + place)), factor, load(kind, residual + place)))
    else:
        for place in range(first * row, last * row, row):
            store(out + place, mul(to_f32(load_i32(kind, x + place)), factor))


@jit
def first_rows(kind, x, stride, starts, count, first, last, out):
    """Gather tokens of the packed stream into one tile, a column each; its other columns become zeros.

    Args:
        kind: of the tiles.
        x: the first tile; `stride` bytes to the next.
        stride: in bytes.
        starts: int64, the places of the tokens in the stream.
        count: how many, at most as many as a tile has columns.
        first: feature.
        last: feature, the first that is not computed.
        out: the tile.
    """
    row, lanes = row_bytes(kind), lanes_of(kind)
    for feature in range(first, last):
        store(out + feature * row, splat(kind, np.float32(0)))
    for column in range(count):
        token = i64_at(starts + column * 8)
        source = x + token // lanes * stride + token % lanes * 4
        for feature in range(first, last):
            f32_to(out + feature * row + column * 4, f32_at(source + feature * row))
