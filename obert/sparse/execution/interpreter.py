"""The loop that all threads run: segments one after the other, their work shared through a counter.

A thread takes the next number, and the numbers of all segments follow one another, so that each thread knows by itself
what a number stands for. It waits until all lower segments are complete. Who is late finds nothing left to do.
"""

from __future__ import annotations

from numba.extending import overload

from obert.sparse.execution.places import ACTIVATE, ADD, AFFINE, ATTENTION, EMBED, FIRST, LINEAR, NORM, QUANTIZE, TILES
from obert.sparse.kernels.attention import attention
from obert.sparse.kernels.attention8 import attention8
from obert.sparse.kernels.dots import block_bytes
from obert.sparse.kernels.linear import linear
from obert.sparse.kernels.linear8 import linear8
from obert.sparse.kernels.pointwise import (
    ACTIVATIONS,
    activate,
    add_rows,
    affine,
    embed,
    first_rows,
    norm,
    norm_i32,
    scale_i32,
)
from obert.sparse.kernels.pointwise8 import gelu_quantize, quantize, relu_quantize, scaled_quantize
from obert.sparse.kernels.vectors import (
    atomic_load,
    f32_at,
    fetch_add,
    give_way,
    i64_at,
    jit,
    lanes_of,
    load,
    pause,
    row_bytes,
    store,
    ticks,
)

# Columns of the tables of int64 that the loop reads, in bytes; `layout.py` writes them. I_PART is how many features a
# part has; of embeddings, which have no parts, the first row of indices.
I_CODE, I_PARTS, I_PART, I_X, I_Y, I_OUT, I_FEATURES, I_TABLE, I_SECOND, I_NUMBER, I_FLOATS = range(0, 88, 8)
INSTRUCTION = 88
S_KIND, S_STREAM, S_FIRST, S_COUNT, S_QUERY, S_KEY, S_VALUE, S_OUT, S_HEADS, S_HEAD_SIZE, S_TABLE = range(0, 88, 8)
SEGMENT = 88
(
    J_SEGMENTS, J_SEGMENT_COUNT, J_INSTRUCTIONS, J_COUNTERS, J_SPLIT, J_TILES, J_SEQUENCE_TILES, J_LASTING,
    J_LASTING_STRIDE, J_SEQUENCE_LASTING, J_SEQUENCE_STRIDE, J_SCRATCH, J_SCRATCH_STRIDE, J_ATTENTION,
    J_ATTENTION_STRIDE, J_INDICES, J_TOKENS, J_SEQUENCES, J_STARTS, J_KEPT, J_MASKED, J_MASK, J_CHUNK, J_CHUNKS,
    J_TICKS,
) = range(0, 200, 8)  # fmt: skip
JOB = 200
_GELU = ACTIVATIONS.index("gelu")
_SPINS = 4000  # before a waiting thread lets others run


@jit
def _at(V, operand, lasting, scratch):
    """The address of a value's first row; 0 of none. An operand is 2 * row, plus 1 in the scratch memory."""
    if operand < 0:
        return 0
    rows = (operand >> 1) * row_bytes(V)
    return (scratch if operand & 1 else lasting) + rows


def multiply(V, row, x, y, out, first, last):
    """The linear layer of an instruction: of integers or of floats, by the kind."""


def attend(V, q, k, v, stride, start, keys, first, last, head, size, mask, table, scratch, out):
    """The attention of one head: of integers or of floats, by the kind."""


@overload(multiply, inline="never")
def _multiply(V, row, x, y, out, first, last):
    if V.eight_bits:
        return lambda V, row, x, y, out, first, last: linear8(V, i64_at(row + I_TABLE), x, out, first, last)
    return lambda V, row, x, y, out, first, last: linear(V, i64_at(row + I_TABLE), x, y, out, first, last)


@overload(attend, inline="never")
def _attend(V, q, k, v, stride, start, keys, first, last, head, size, mask, table, scratch, out):
    if V.eight_bits:

        def attend_(V, q, k, v, stride, start, keys, first, last, head, size, mask, table, scratch, out):
            attention8(V, q, k, v, stride, start, keys, first, last, head, size, mask, table, scratch, out, stride)
    else:

        def attend_(V, q, k, v, stride, start, keys, first, last, head, size, mask, table, scratch, out):
            rows = head * size * row_bytes(V)
            attention(
                V, q + rows, k + rows, v + rows, stride, start, keys, first, last, size, mask, f32_at(table), scratch,
                out + rows, stride,
            )  # fmt: skip

    return attend_


@jit
def copy_rows(V, x, out, first, last):
    for place in range(first * row_bytes(V), last * row_bytes(V), row_bytes(V)):
        store(out + place, load(V, x + place))


@jit
def execute(V, row, lasting, scratch, indices, tokens, token, part, parts):
    """One instruction on one tile, or one of `parts` equal parts of it."""
    code = i64_at(row + I_CODE)
    features = i64_at(row + I_FEATURES)
    x = _at(V, i64_at(row + I_X), lasting, scratch)
    y = _at(V, i64_at(row + I_Y), lasting, scratch)
    out = _at(V, i64_at(row + I_OUT), lasting, scratch)
    table = i64_at(row + I_TABLE)
    second = i64_at(row + I_SECOND)
    number = i64_at(row + I_NUMBER)
    floats = i64_at(row + I_FLOATS)
    first, last = 0, features
    if parts > 1:
        size = i64_at(row + I_PART)
        first = part * size
        last = min(features, first + size)
    scale = f32_at(floats)  # of x in int32; 0 of float32
    if code == LINEAR:
        multiply(V, row, x, y, out, first, last)
    elif code == NORM and scale == 0:
        norm(V, x, y, table, second, f32_at(floats + 4), features, out)
    elif code == NORM:
        norm_i32(V, x, scale, y, table, second, f32_at(floats + 4), features, out)
    elif code == ACTIVATE:
        if scale != 0:
            scale_i32(V, x, scale, 0, out, first, last)
        elif x != out:
            copy_rows(V, x, out, first, last)
        if number >= 0:
            activate(V, number, out, first, last)
    elif code == QUANTIZE:
        x += first * row_bytes(V)
        out += first // 4 * block_bytes(V)
        _quantize(V, number, x, last - first, scale, f32_at(floats + 8), second, out)
    elif code == AFFINE:
        affine(V, x, table, second, out, first, last)
    elif code == ADD and scale == 0:
        add_rows(V, x, y, out, first, last)
    elif code == ADD:
        scale_i32(V, x, scale, y, out, first, last)
    elif code == EMBED:
        base = indices + i64_at(row + I_PART) * tokens * 8
        embed(V, table, second, number, base, tokens, token, out)


@jit
def _quantize(V, activation, x, features, scale, inverse, zero_point, out):
    if scale == 0:
        quantize(V, x, features, inverse, zero_point, out)
    elif activation < 0:
        scaled_quantize(V, x, features, scale, inverse, zero_point, out)
    elif activation == _GELU:
        gelu_quantize(V, x, features, scale, inverse, zero_point, out)
    else:
        relu_quantize(V, x, features, scale, inverse, zero_point, out)


@jit
def _attention(V, job, segment, item, scratch):
    """One head of one sequence, or a part of its queries."""
    chunks = i64_at(job + J_CHUNKS)
    heads = i64_at(segment + S_HEADS)
    size = i64_at(segment + S_HEAD_SIZE)
    sequence = item // (heads * chunks)
    head = item // chunks % heads
    start = i64_at(i64_at(job + J_STARTS) + sequence * 8)
    keys = i64_at(i64_at(job + J_KEPT) + sequence * 8)
    columns = (keys + 15) // 16 * 16
    first = item % chunks * i64_at(job + J_CHUNK)
    last = min(columns, first + i64_at(job + J_CHUNK))
    if first >= last:
        return
    mask = 0
    if i64_at(i64_at(job + J_MASKED) + sequence * 8):
        mask = i64_at(job + J_MASK) + start * 4
    lasting = i64_at(job + J_LASTING)
    stride = i64_at(job + J_LASTING_STRIDE)
    attend(
        V, _at(V, i64_at(segment + S_QUERY), lasting, 0), _at(V, i64_at(segment + S_KEY), lasting, 0),
        _at(V, i64_at(segment + S_VALUE), lasting, 0), stride, start, keys, first, last, head, size, mask,
        i64_at(segment + S_TABLE), scratch, _at(V, i64_at(segment + S_OUT), lasting, 0),
    )  # fmt: skip


@jit
def _wait(done, count):
    """Until so many pieces of work are complete. Whoever has taken one is at it, so this ends."""
    spins = 0
    while atomic_load(done) < count:
        spins += 1
        if spins > _SPINS:
            give_way()
        else:
            pause()


@jit
def _count(started, place):
    """Add the ticks since `started` to a part's."""
    if place:
        fetch_add(place, ticks() - started)


@jit
def work(V, job, thread):
    """Run a job with whoever else runs it; thread 0 returns when it is complete.

    Args:
        V: tiles have that many tokens.
        job: address of a table of the columns J_*.
        thread: each has another, from 0.
    """
    counter = i64_at(job + J_COUNTERS)
    done = counter + 64
    instructions = i64_at(job + J_INSTRUCTIONS)
    indices, tokens = i64_at(job + J_INDICES), i64_at(job + J_TOKENS)
    scratch_base, scratch_stride = i64_at(job + J_SCRATCH), i64_at(job + J_SCRATCH_STRIDE)
    attention_scratch = i64_at(job + J_ATTENTION) + thread * i64_at(job + J_ATTENTION_STRIDE)
    spent = i64_at(job + J_TICKS)
    lanes = lanes_of(V)
    begun = 0  # the first number of the segment, or of the instruction where those are split
    mine = fetch_add(counter, 1)
    for s in range(i64_at(job + J_SEGMENT_COUNT)):
        segment = i64_at(job + J_SEGMENTS) + s * SEGMENT
        kind = i64_at(segment + S_KIND)
        stream = i64_at(segment + S_STREAM)
        first = instructions + i64_at(segment + S_FIRST) * INSTRUCTION
        count = i64_at(segment + S_COUNT)
        if stream == 0:
            tiles, lasting = i64_at(job + J_TILES), i64_at(job + J_LASTING)
            stride, split = i64_at(job + J_LASTING_STRIDE), i64_at(job + J_SPLIT)
        else:
            tiles, lasting = i64_at(job + J_SEQUENCE_TILES), i64_at(job + J_SEQUENCE_LASTING)
            stride, split = i64_at(job + J_SEQUENCE_STRIDE), 1
        if kind == TILES and split:
            for i in range(count):
                row = first + i * INSTRUCTION
                parts = i64_at(row + I_PARTS)
                while mine < begun + tiles * parts:
                    _wait(done, begun)
                    started = ticks()
                    tile = (mine - begun) // parts
                    execute(
                        V, row, lasting + tile * stride, scratch_base + tile * scratch_stride,
                        indices, tokens, tile * lanes, (mine - begun) % parts, parts,
                    )  # fmt: skip
                    if spent:
                        _count(started, spent + i64_at(row + I_CODE) * 8)
                    fetch_add(done, 1)
                    mine = fetch_add(counter, 1)
                begun += tiles * parts
        elif kind == TILES:
            while mine < begun + tiles:
                _wait(done, begun)
                tile = mine - begun
                for i in range(count):
                    row = first + i * INSTRUCTION
                    started = ticks()
                    execute(
                        V, row, lasting + tile * stride, scratch_base + thread * scratch_stride,
                        indices, tokens, tile * lanes, 0, 1,
                    )  # fmt: skip
                    if spent:
                        _count(started, spent + i64_at(row + I_CODE) * 8)
                fetch_add(done, 1)
                mine = fetch_add(counter, 1)
            begun += tiles
        elif kind == ATTENTION:
            items = i64_at(job + J_SEQUENCES) * i64_at(segment + S_HEADS) * i64_at(job + J_CHUNKS)
            while mine < begun + items:
                _wait(done, begun)
                started = ticks()
                _attention(V, job, segment, mine - begun, attention_scratch)
                if spent:
                    _count(started, spent + (QUANTIZE + 1) * 8)
                fetch_add(done, 1)
                mine = fetch_add(counter, 1)
            begun += items
        elif kind == FIRST:
            made = i64_at(job + J_SEQUENCE_TILES)
            while mine < begun + made:
                _wait(done, begun)
                tile = mine - begun
                taken = min(lanes, i64_at(job + J_SEQUENCES) - tile * lanes)
                out = i64_at(job + J_SEQUENCE_LASTING) + tile * i64_at(job + J_SEQUENCE_STRIDE)
                first_rows(
                    V, _at(V, i64_at(segment + S_QUERY), lasting, 0), stride,
                    i64_at(job + J_STARTS) + tile * lanes * 8, taken, 0, i64_at(segment + S_HEAD_SIZE),
                    _at(V, i64_at(segment + S_OUT), out, 0),
                )  # fmt: skip
                fetch_add(done, 1)
                mine = fetch_add(counter, 1)
            begun += made
    if thread == 0:
        _wait(done, begun)
