"""One step of a model: a program of stages, run by all threads together inside one parallel region.

The program is a table; each row is one stage: what it does and where its operands begin in the flat arrays. Rows are
written by `nbllm/runtime/program.py`, whose names for the columns are those below. Between stages that depend on each
other stands a barrier, at which the stop flag is looked at; nothing is allocated, and no value depends on the number
of threads. Knows no architecture, file or text.
"""

import numpy as np

from attention import TILE, attend_tile, clear_result, finish, merge
from elementwise import keep_key, keep_value, quantise, rms_norm, rope, silu_mul
from lanes import barrier, poll, take, team, thread, view, wide
from matmul import bf16, f16, f32, iq4_nl, iq4_xs, q2_k, q3_k, q4_0, q4_1, q4_2, q4_3, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0
from tiles import eight, four, one

# stages (column 0); column 1 is 1 where a barrier follows, column 2 where only the tokens with outputs take part
MATMUL = 0
RMS_NORM = 1
QUANTISE = 2
ROPE_KEEP = 3
ATTEND = 4
MERGE = 5
SILU_MUL = 6

GRAIN_BYTES = 1 << 14  # of weights that a thread takes at a time when there is one token
GRAIN = 256  # activations that it takes at a time

# block types, by ggml's numbers
F32 = 0  # what is none of the others
F16 = 1
Q4_0 = 2
Q4_1 = 3
Q4_2 = 4
Q4_3 = 5
Q5_0 = 6
Q5_1 = 7
Q8_0 = 8
Q2_K = 10
Q3_K = 11
Q4_K = 12
Q5_K = 13
Q6_K = 14
IQ4_NL = 20
IQ4_XS = 23
BF16 = 30


def group(product, w, o, nb, act, i, dst, width, accumulate, tokens):
    """Sixteen outputs of every token: i is the first token's first block, dst the place of its outputs, width their stride."""
    f = act[0]
    if tokens == 1:
        tile = one()
        tile[3][1](f, dst, width, product(tile, w, o, nb, act, i), accumulate, 1)
        return
    last = i + (tokens - 1) * nb  # tiles are filled up with the last token
    if wide():
        tile = eight()
        for t in range(0, tokens, 8):
            at = i + t * nb
            front = (at, min(at + nb, last), min(at + 2 * nb, last), min(at + 3 * nb, last))
            back = (min(at + 4 * nb, last), min(at + 5 * nb, last), min(at + 6 * nb, last), min(at + 7 * nb, last))
            a = product(tile, w, o, nb, act, (front, back))
            tile[3][1](f, dst + t * width, width, a, accumulate, tokens - t)
    else:
        tile = four()
        for t in range(0, tokens, 4):
            at = i + t * nb
            a = product(tile, w, o, nb, act, (at, min(at + nb, last), min(at + 2 * nb, last), min(at + 3 * nb, last)))
            tile[3][1](f, dst + t * width, width, a, accumulate, tokens - t)


def matmul(stage, work, row, w, act, stop, tokens):
    """columns: 3 block type, 4 first byte, 5 bytes of a group, 6 groups, 7 source, 8 its width, 9 target, 10 its width,
    11 add to the target"""
    kind, o, size, groups = stage[3], stage[4], stage[5], stage[6]
    nb, i = stage[8] // 32, stage[7] // 32
    dst, width, accumulate = stage[9], stage[10], stage[11]
    grain = 1
    if tokens == 1:
        grain = max(1, GRAIN_BYTES // size)
    begin = take(work, row, grain)
    while begin < groups and poll(stop) == 0:
        for g in range(begin, min(begin + grain, groups)):
            wo, to = o + g * size, dst + g * 16
            if kind == Q4_0:
                group(q4_0, w, wo, nb, act, i, to, width, accumulate, tokens)
            elif kind == Q4_1:
                group(q4_1, w, wo, nb, act, i, to, width, accumulate, tokens)
            elif kind == Q8_0:
                group(q8_0, w, wo, nb, act, i, to, width, accumulate, tokens)
            elif kind == Q4_K:
                group(q4_k, w, wo, nb, act, i, to, width, accumulate, tokens)
            elif kind == Q6_K:
                group(q6_k, w, wo, nb, act, i, to, width, accumulate, tokens)
            elif kind == Q5_K:
                group(q5_k, w, wo, nb, act, i, to, width, accumulate, tokens)
            elif kind == Q5_0:
                group(q5_0, w, wo, nb, act, i, to, width, accumulate, tokens)
            elif kind == Q5_1:
                group(q5_1, w, wo, nb, act, i, to, width, accumulate, tokens)
            elif kind == Q3_K:
                group(q3_k, w, wo, nb, act, i, to, width, accumulate, tokens)
            elif kind == Q2_K:
                group(q2_k, w, wo, nb, act, i, to, width, accumulate, tokens)
            elif kind == IQ4_NL:
                group(iq4_nl, w, wo, nb, act, i, to, width, accumulate, tokens)
            elif kind == IQ4_XS:
                group(iq4_xs, w, wo, nb, act, i, to, width, accumulate, tokens)
            elif kind == Q4_2:
                group(q4_2, w, wo, nb, act, i, to, width, accumulate, tokens)
            elif kind == Q4_3:
                group(q4_3, w, wo, nb, act, i, to, width, accumulate, tokens)
            elif kind == F16:
                group(f16, w, wo, nb, act, i, to, width, accumulate, tokens)
            elif kind == BF16:
                group(bf16, w, wo, nb, act, i, to, width, accumulate, tokens)
            else:
                group(f32, w, wo, nb, act, i, to, width, accumulate, tokens)
        begin = take(work, row, grain)


def norm(stage, work, row, consts, w, act, start, tokens):
    """columns: 3 first byte of the weights, 4 source, 5 target, 6 width, 7 place of eps in consts"""
    f = act[0]
    width = stage[6]
    t = take(work, row, 1)
    while t < tokens:
        dst = stage[5] + t * width
        rms_norm(f, stage[4] + (start + t) * width, dst, width, w, stage[3], consts[stage[7]])
        quantise(act, dst, width)
        t = take(work, row, 1)


def rope_keep(stage, work, row, consts, act, angles, k, v, position, tokens):
    """columns: 3 queries, 4 keys, 5 values, 6 heads, 7 key/value heads, 8 head_dim, 9 their place in the cache, 10 elements
    of a head there, 11 place of the queries' scale in consts, 12 rotated pairs, 13 width of the queries, 14 of the keys"""
    f = act[0]
    heads, kv_heads, head_dim, half = stage[6], stage[7], stage[8], stage[12]
    every = heads + kv_heads
    unit = take(work, row, 1)
    while unit < tokens * every:
        t = unit // every
        h = unit % every
        a = (position + t) * 2 * half
        if h < heads:
            rope(f, stage[3] + t * stage[13] + h * head_dim, head_dim, half, angles, a, consts[stage[11]])
        else:
            h -= heads
            place = stage[9] + h * stage[10]
            i = t * stage[14] + h * head_dim
            rope(f, stage[4] + i, head_dim, half, angles, a, np.float32(1))
            keep_key(f, stage[4] + i, head_dim, k, place, position + t)
            keep_value(f, stage[5] + i, head_dim, v, place, position + t)
        unit = take(work, row, 1)


def attend(stage, work, row, act, k, v, s, stop, position, tokens, split):
    """columns: 3 queries, 4 target, 5 heads, 6 key/value heads, 7 head_dim, 8 place in the cache, 9 elements of a head there,
    10 where in s, after the threads' own scratch, partial results begin, 11 width of the queries and of the target

    With split > 0, that many tiles are units of their own, whose partial results the stage MERGE puts together.
    """
    f = act[0]
    heads, kv_heads, head_dim = stage[5], stage[6], stage[7]
    per_kv = heads // kv_heads
    width = stage[11]
    size = 32 + head_dim
    queries = tokens * per_kv
    quads = (queries + 3) // 4
    scores = thread() * (4 * TILE + 8 * size)
    part = scores + 4 * TILE
    run = part + 4 * size
    tiles = max(split, 1)
    unit = take(work, row, 1)
    while unit < kv_heads * quads * tiles and poll(stop) == 0:
        # the longest come first, so that the threads end together
        c = unit // tiles
        h = c % kv_heads
        i0 = (quads - 1 - c // kv_heads) * 4
        i1 = min(i0 + 1, queries - 1)
        i2 = min(i0 + 2, queries - 1)
        i3 = min(i0 + 3, queries - 1)
        q = stage[3] + h * per_kv * head_dim
        q0 = q + i0 // per_kv * width + i0 % per_kv * head_dim
        q1 = q + i1 // per_kv * width + i1 % per_kv * head_dim
        q2 = q + i2 // per_kv * width + i2 % per_kv * head_dim
        q3 = q + i3 // per_kv * width + i3 % per_kv * head_dim
        n0 = position + i0 // per_kv + 1
        n1 = position + i1 // per_kv + 1
        n2 = position + i2 // per_kv + 1
        n3 = position + i3 // per_kv + 1
        place = stage[8] + h * stage[9]
        if split > 0:
            p = unit % tiles * TILE
            at = stage[10] + ((h * quads * 4 + i0) * tiles + unit % tiles * 4) * size
            attend_tile(
                f, q0, q1, q2, q3, n0 - p, n1 - p, n2 - p, n3 - p, k, v, place + p * head_dim, head_dim, s, scores, at
            )  # fmt: skip
        else:
            for i in range(4):
                clear_result(s, run + i * size, head_dim)
            for p in range(0, n3, TILE):
                attend_tile(
                    f, q0, q1, q2, q3, n0 - p, n1 - p, n2 - p, n3 - p, k, v, place + p * head_dim, head_dim, s, scores, part
                )  # fmt: skip
                for i in range(4):
                    merge(s, run + i * size, part + i * size, head_dim)
            for i in range(min(4, queries - i0)):
                j = i0 + i
                dst = stage[4] + j // per_kv * width + (h * per_kv + j % per_kv) * head_dim
                finish(s, run + i * size, head_dim, f, dst)
                if head_dim % 32 == 0:
                    quantise(act, dst, head_dim)
        unit = take(work, row, 1)


def merge_tiles(stage, work, row, act, s, tokens, split):
    """Columns as for `attend`."""
    f = act[0]
    heads, kv_heads, head_dim = stage[5], stage[6], stage[7]
    per_kv = heads // kv_heads
    size = 32 + head_dim
    quads = (tokens * per_kv + 3) // 4
    run = thread() * (4 * TILE + 8 * size) + 4 * TILE + 4 * size
    if split > 0:
        unit = take(work, row, 1)
        while unit < tokens * heads:
            t = unit // heads
            h = unit % heads // per_kv
            i = t * per_kv + unit % heads % per_kv
            clear_result(s, run, head_dim)
            for tile in range(split):
                at = stage[10] + (h * quads * 4 + i // 4 * 4) * split * size + (tile * 4 + i % 4) * size
                merge(s, run, at, head_dim)
            dst = stage[4] + t * stage[11] + unit % heads * head_dim
            finish(s, run, head_dim, f, dst)
            if head_dim % 32 == 0:
                quantise(act, dst, head_dim)
            unit = take(work, row, 1)


def quantise_rows(stage, work, row, act, tokens):
    """columns: 3 place, 4 width"""
    t = take(work, row, 1)
    while t < tokens:
        quantise(act, stage[3] + t * stage[4], stage[4])
        t = take(work, row, 1)


def gated(stage, work, row, act, tokens):
    """columns: 3 gate, 4 up, 5 target, 6 width"""
    f = act[0]
    width = stage[6]
    end = tokens * width
    i = take(work, row, GRAIN)
    while i < end:
        n = min(GRAIN, end - i)
        silu_mul(f, stage[3] + i, stage[4] + i, stage[5] + i, n)
        quantise(act, stage[5] + i, n)
        i = take(work, row, GRAIN)


def run(program, consts, angles, w, act, k, v, s, stop, state, work, position, tokens, outputs, split):
    """What every thread does. Each takes its share of a stage, a piece at a time, from the stage's counter in `work`."""
    for row in range(program.shape[0]):
        stage = program[row]
        op = stage[0]
        start = 0
        if stage[2] == 1:
            start = tokens - outputs
        n = tokens - start
        if op == MATMUL:
            matmul(stage, work, row, w, act, stop, n)
        elif op == RMS_NORM:
            norm(stage, work, row, consts, w, act, start, n)
        elif op == QUANTISE:
            quantise_rows(stage, work, row, act, n)
        elif op == ROPE_KEEP:
            rope_keep(stage, work, row, consts, act, angles, k, v, position, n)
        elif op == ATTEND:
            attend(stage, work, row, act, k, v, s, stop, position, n, split)
        elif op == MERGE:
            merge_tiles(stage, work, row, act, s, n, split)
        else:
            gated(stage, work, row, act, n)
        if stage[1] == 1 and barrier(state, stop, team()) != 0:
            break


# pythran export step(int64[:, :] order(C), float32[:], float32[:], uint8[:], float32[:], int8[:], float32[:], int32[:], float32[:], float32[:], float32[:], uint16[:], uint16[:], float32[:], int32[:], int32[:], int32[:], int, int, int, int, int)
def step(
    program, consts, angles, w, f, x, xd, xs, xm, xl, xr, k, v, s, stop, state, work, position, tokens, outputs, split, threads
):  # fmt: skip
    """Run `program` for `tokens` tokens from `position` on, and leave logits for the last `outputs` of them in f.

    Parameters
    ----------
    program : (stages, columns) int64
    consts : float32, the numbers that stages name by their place
    angles : (positions, 2, pairs) float32, the cosines and sines of rope
    w : uint8, the packed weights
    f, x, xd, xs, xm, xl, xr : the activations (`matmul.py`)
    k, v : uint16, the key/value cache in half precision
    s : float32, scratch memory
    stop : (1,) int32, not 0 to stop
    state : (5,) int32, the threads' meeting place; 0 at first
    work : (stages,) int32, how much of each stage has been taken; 0 at first
    position, tokens, outputs, threads : int
    split : int, the number of tiles of the cache that attention treats as units of their own; 0 for none

    Returns
    -------
    int
        0, or 1 if the step was stopped: the activations and the cache from `position` on are then of no use.
    """
    #omp parallel num_threads(threads)
    if 1:
        act = (view(f), view(x), view(xd), view(xs), view(xm), view(xl), view(xr))
        run(
            program, view(consts), view(angles), view(w), act, view(k), view(v), view(s), view(stop), view(state), view(work),
            position, tokens, outputs, split,
        )  # fmt: skip
    return poll(stop)
