"""The loop that all threads run: segments one after the other, their work shared through a counter.

A thread takes the next number, and the numbers of all segments follow one another, so that each thread knows by itself
what a number stands for. It waits until all lower segments are complete. Who is late finds nothing left to do.
"""

from __future__ import annotations

from numba.extending import overload

from obert.sparse.linear import linear
from obert.sparse.linear8 import linear8
from obert.sparse.places import ACTIVATE, ADD, AFFINE, ATTENTION, EMBED, FIRST, LINEAR, NORM, QUANTIZE, TILES
from obert.sparse.pointwise import activate, add, affine, embed, norm
from obert.sparse.pointwise8 import quantize
from obert.sparse.vectors import (
    atomic_load,
    cycles,
    f32_at,
    f32_to,
    fetch_add,
    give_way,
    i64_at,
    jit,
    lanes_of,
    pause,
    row_bytes,
)

# Columns of the tables of int64 that the loop reads, in bytes; `layout.py` writes them.
I_CODE, I_PARTS, I_PART, I_X, I_Y, I_OUT, I_FEATURES, I_TABLE, I_SECOND, I_NUMBER, I_FLOATS = range(0, 88, 8)
INSTRUCTION = 88
S_KIND, S_STREAM, S_FIRST, S_COUNT, S_QUERY, S_KEY, S_VALUE, S_OUT, S_HEADS, S_HEAD_SIZE, S_FLOATS = range(0, 88, 8)
SEGMENT = 88
(
    J_SEGMENTS, J_SEGMENT_COUNT, J_INSTRUCTIONS, J_COUNTERS, J_SPLIT, J_TILES, J_SEQUENCE_TILES, J_LASTING,
    J_LASTING_STRIDE, J_SEQUENCE_LASTING, J_SEQUENCE_STRIDE, J_SCRATCH, J_SCRATCH_STRIDE, J_ATTENTION,
    J_ATTENTION_STRIDE, J_INDICES, J_INDEX_STRIDE, J_SEQUENCES, J_STARTS, J_KEPT, J_MASKED, J_MASK, J_CHUNK, J_CHUNKS,
    J_CYCLES,
) = range(0, 200, 8)  # fmt: skip
JOB = 200
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


def attend(V, row, query, key, value, stride, start, keys, first, last, mask, scratch, out):
    """The attention of one head."""


@overload(multiply, inline="never")
def _multiply(V, row, x, y, out, first, last):
    if V.eight_bits:
        return lambda V, row, x, y, out, first, last: linear8(V, i64_at(row + I_TABLE), x, out, first, last)
    return lambda V, row, x, y, out, first, last: linear(V, i64_at(row + I_TABLE), x, y, out, first, last)


@jit
def execute(V, row, lasting, scratch, indices, index_stride, part, parts):
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
    if code == LINEAR:
        multiply(V, row, x, y, out, first, last)
    elif code == NORM:
        norm(V, x, f32_at(floats), y, table, second, f32_at(floats + 4), features, out)
    elif code == ACTIVATE:
        activate(V, number, x, f32_at(floats), first, last, out)
    elif code == QUANTIZE:
        quantize(V, number, x, f32_at(floats), f32_at(floats + 8), second, first, last, out)
    elif code == AFFINE:
        affine(V, x, f32_at(floats), table, second, first, last, out)
    elif code == ADD:
        add(V, x, f32_at(floats), y, first, last, out)
    elif code == EMBED:
        embed(V, table, second, number, indices, index_stride, out)


@jit
def _first_rows(V, x, stride, starts, first, count, features, out):
    """Columns of the first tokens of sequences, one after the other."""
    lanes = lanes_of(V)
    for column in range(count):
        token = i64_at(starts + (first + column) * 8)
        place = x + token // lanes * stride + token % lanes * 4
        for feature in range(features):
            f32_to(out + feature * row_bytes(V) + column * 4, f32_at(place + feature * row_bytes(V)))


@jit
def _attention(V, W, job, segment, item, scratch):
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
    offset = head * size * row_bytes(V)
    attend(
        V, W, _at(V, i64_at(segment + S_QUERY), lasting, 0) + offset,
        _at(V, i64_at(segment + S_KEY), lasting, 0) + offset, _at(V, i64_at(segment + S_VALUE), lasting, 0) + offset,
        stride, start, keys, first, last, size, mask, i64_at(segment + S_FLOATS), scratch,
        _at(V, i64_at(segment + S_OUT), lasting, 0) + offset,
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
    """Add the cycles since `started` to a part's."""
    if place:
        fetch_add(place, cycles() - started)


@jit
def work(V, W, job, thread):
    """Run a job with whoever else runs it; thread 0 returns when it is complete.

    Args:
        V: tiles have that many tokens.
        W: a column of tokens of one sequence.
        job: address of a table of the columns J_*.
        thread: each has another, from 0.
    """
    counter = i64_at(job + J_COUNTERS)
    done = counter + 64
    instructions = i64_at(job + J_INSTRUCTIONS)
    indices, index_stride = i64_at(job + J_INDICES), i64_at(job + J_INDEX_STRIDE)
    scratch_base, scratch_stride = i64_at(job + J_SCRATCH), i64_at(job + J_SCRATCH_STRIDE)
    attention_scratch = i64_at(job + J_ATTENTION) + thread * i64_at(job + J_ATTENTION_STRIDE)
    spent = i64_at(job + J_CYCLES)
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
                    started = cycles()
                    tile = (mine - begun) // parts
                    execute(
                        V, row, lasting + tile * stride, scratch_base + tile * scratch_stride,
                        indices + tile * lanes * 8, index_stride, (mine - begun) % parts, parts,
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
                    started = cycles()
                    execute(
                        V, row, lasting + tile * stride, scratch_base + thread * scratch_stride,
                        indices + tile * lanes * 8, index_stride, 0, 1,
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
                started = cycles()
                _attention(V, W, job, segment, mine - begun, attention_scratch)
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
                _first_rows(
                    V, _at(V, i64_at(segment + S_QUERY), lasting, 0), stride, i64_at(job + J_STARTS), tile * lanes,
                    taken, i64_at(segment + S_HEAD_SIZE), _at(V, i64_at(segment + S_OUT), out, 0),
                )  # fmt: skip
                fetch_add(done, 1)
                mine = fetch_add(counter, 1)
            begun += made
    if thread == 0:
        _wait(done, begun)
