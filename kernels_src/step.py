"""One step of a model: a program of stages, run by all threads together inside one parallel region.

The program is a table; each row is one stage: what it does and where its operands begin in the flat arrays. Rows are
written by `nbllm/runtime/program.py`, whose names for the columns are those below. Between stages that depend on each
other stands a barrier, at which the stop flag is looked at; nothing is allocated, and no value depends on the number
of threads. Knows no architecture, file or text.
"""

import numpy as np

from attention import PAGE
from elementwise import (
    PEAK,
    embed,
    gelu,
    keep_key,
    keep_key_8,
    keep_key_32,
    keep_value,
    keep_value_8,
    keep_value_32,
    multiply,
    norm,
    peak,
    quantise,
    rope,
    silu,
    soft_cap,
)
from experts import SIDE, choose, copy, mix, sort_rows, weigh_shared
from lanes import barrier, poll, take, team, view
from paged import attend, merge_pages
from products import matmul

# stages (column 0); column 1 is 1 where a barrier follows, column 2 where only the tokens with outputs take part
MATMUL = 0
NORM = 1
QUANTISE = 2
ROPE_KEEP = 3
ATTEND = 4
MERGE = 5
ACTIVATE = 6
PEAKS = 7
EMBED = 8
CHOOSE = 9
SORT = 10
GATHER = 11
MIX = 12

# what ACTIVATE does
SILU = 0
GELU = 1
SOFT_CAP = 2

GRAIN = 256  # activations that a thread takes at a time, at least

def norms(stage, work, row, consts, w, act, picked, tokens):
    """columns: 3 first byte of the weights, 4 source, 5 target, 6 width, 7 place of eps in consts, 8 first byte of the
    biases or -1, 9 take away the mean, 10 add to the target, 11 how many pieces of a token, 12 numbers of each, 13
    bytes from one piece's weights to the next's"""
    grain = share(tokens)
    begin = take(work, row, grain)
    while begin < tokens:
        for t in range(begin, min(begin + grain, tokens)):
            if stage[2] == 1:
                norm_pieces(stage, w, act, consts[stage[7]], stage[4] + picked[t] * stage[6], stage[5] + t * stage[6])
            else:
                norm_pieces(stage, w, act, consts[stage[7]], stage[4] + t * stage[6], stage[5] + t * stage[6])
        begin = take(work, row, grain)


def share(tokens):
    """How many tokens a thread takes at a time: neighbours,
    as what threads write is slow where it lies in one line of memory."""
    return max(1, min(16, (tokens + team() - 1) // team()))


def norm_pieces(stage, w, act, eps, src, dst):
    """The pieces of one token."""
    n = stage[12]
    for piece in range(stage[11]):
        at = piece * n
        norm(act[0], src + at, dst + at, n, w, stage[3] + piece * stage[13], stage[8], stage[9], eps, stage[10])
    quantise(act, dst, stage[6])


def rope_keep(stage, work, row, consts, act, angles, cache, bits, where, tokens):
    """columns: 3 queries, 4 keys, 5 values, 6 heads, 7 key/value heads, 8 head_dim, 9 the layer's place in the cache,
    10 place of the queries' scale in consts, 11 rotated pairs, 12 width of the queries, 13 of the keys, 14 angles of a
    position, 15 where the layer's begin in them"""
    f = act[0]
    heads, kv_heads, head_dim = stage[6], stage[7], stage[8]
    every = heads + kv_heads
    grain = share(tokens)
    units = (tokens + grain - 1) // grain * every
    unit = take(work, row, 1)
    while unit < units:
        begin = unit // every * grain
        h = unit % every
        for t in range(begin, min(begin + grain, tokens)):
            a = where[2 * t] * stage[14] + stage[15]
            if h < heads:
                rope(f, stage[3] + t * stage[12] + h * head_dim, head_dim, stage[11], angles, a, consts[stage[10]])
            else:
                i = t * stage[13] + (h - heads) * head_dim
                rope(f, stage[4] + i, head_dim, stage[11], angles, a, np.float32(1))
                o = stage[9] + (where[2 * t + 1] * kv_heads + h - heads) * PAGE * head_dim
                keep(act, stage[4] + i, stage[5] + i, head_dim, cache, bits, o, where[2 * t] % PAGE)
        unit = take(work, row, 1)


def keep(act, i, j, head_dim, cache, bits, o, position):
    """Put the key at i and the value at j into the cache, where the head's part of the page is at o."""
    f, x = act[0], act[1]
    k, v, k8, v8, ks, vs = cache
    if bits == 8:
        keep_key_8(f, x, i, head_dim, k8, ks, o, position)
        keep_value_8(f, x, j, head_dim, v8, vs, o, position)
    elif bits == 32:
        keep_key_32(f, i, head_dim, ks, o, position)
        keep_value_32(f, j, head_dim, vs, o, position)
    else:
        keep_key(f, i, head_dim, k, o, position)
        keep_value(f, j, head_dim, v, o, position)


def quantise_rows(stage, work, row, act, tokens):
    """columns: 3 place, 4 width"""
    t = take(work, row, 1)
    while t < tokens:
        quantise(act, stage[3] + t * stage[4], stage[4])
        t = take(work, row, 1)


def activate(stage, work, row, consts, act, tokens):
    """columns: 3 source, 4 what it is multiplied with afterwards or -1, 5 target, 6 width, 7 what is done, 8 place in
    consts of what caps"""
    f = act[0]
    end = tokens * stage[6]
    grain = GRAIN
    while grain < 16 * GRAIN and grain * 16 * team() < end:
        grain *= 2
    i = take(work, row, grain)
    while i < end:
        n = min(grain, end - i)
        if stage[7] == SILU:
            silu(f, stage[3] + i, stage[5] + i, n)
        elif stage[7] == GELU:
            gelu(f, stage[3] + i, stage[5] + i, n)
        else:
            soft_cap(f, stage[3] + i, stage[5] + i, n, consts[stage[8]])
        if stage[4] >= 0:
            multiply(f, stage[4] + i, stage[5] + i, n)
        quantise(act, stage[5] + i, n)
        i = take(work, row, grain)


def embeddings(stage, work, row, consts, w, f, where, tokens):
    """columns: 3 place, 4 width, 5 place of their scale in consts,
    6 first byte of what is added at each position, or -1"""
    t = take(work, row, 1)
    while t < tokens:
        if stage[6] >= 0:
            embed(f, stage[3] + t * stage[4], stage[4], consts[stage[5]], w, stage[6] + where[2 * t] * stage[4] * 4)
        else:
            embed(f, stage[3] + t * stage[4], stage[4], consts[stage[5]], w, -1)
        t = take(work, row, 1)


def choose_experts(stage, work, row, f, tokens):
    """columns: 3 logits, 4 their width, 5 experts, 6 how many are chosen, 7 choices, 8 whether their weights make 1, 9
    the shared expert's logit, or -1, 10 its width"""
    t = take(work, row, 1)
    while t < tokens:
        o = stage[7] + t * 4 * SIDE
        choose(f, stage[3] + t * stage[4], stage[5], stage[6], o, stage[8])
        if stage[9] >= 0:
            weigh_shared(f, stage[9] + t * stage[10], o)
        t = take(work, row, 1)


def sort_experts(stage, work, row, f, tokens):
    """columns: 3 choices, 4 experts, 5 how many are chosen, 6 the list of experts"""
    if take(work, row, 1) == 0:
        sort_rows(f, stage[3], tokens, stage[4], stage[5], stage[6])


def gather(stage, work, row, act, tokens):
    """columns: 3 choices, 4 how many, 5 source, 6 target, 7 width"""
    f, used, width = act[0], stage[4], stage[7]
    unit = take(work, row, 1)
    while unit < tokens * used:
        t = unit // used
        dst = stage[6] + int(f[stage[3] + t * 4 * SIDE + 2 * SIDE + unit % used]) * width
        copy(f, stage[5] + t * width, dst, width)
        quantise(act, dst, width)
        unit = take(work, row, 1)


def mix_experts(stage, work, row, f, tokens):
    """columns: 3 choices, 4 how many, 5 rows, 6 target, 7 width, 8 what the shared expert gives, or -1"""
    width = stage[7]
    t = take(work, row, 1)
    while t < tokens:
        if stage[8] >= 0:
            mix(f, stage[3] + t * 4 * SIDE, stage[4], stage[5], width, stage[8] + t * width, stage[6] + t * width)
        else:
            mix(f, stage[3] + t * 4 * SIDE, stage[4], stage[5], width, -1, stage[6] + t * width)
        t = take(work, row, 1)


def find_peaks(stage, work, row, f, peaks, stop, outputs):
    """columns: 3 logits, 4 their width, 5 how many count"""
    n = (stage[5] + PEAK - 1) // PEAK  # of a row
    begin = take(work, row, GRAIN)
    while begin < outputs * n and poll(stop) == 0:
        for unit in range(begin, min(begin + GRAIN, outputs * n)):
            at = unit % n * PEAK
            peaks[unit] = peak(f, stage[3] + unit // n * stage[4] + at, stage[5] - at)
        begin = take(work, row, GRAIN)


def run(program, consts, angles, w, act, cache, bits, s, peaks, stop, state, work, where, spans, pages, picked, split):
    """What every thread does. Each takes its share of a stage, a piece at a time,
    from the stage's counters in `work`."""
    stages, tokens, outputs = program.shape[0], where.shape[0] // 2, picked.shape[0]
    for row in range(stages):
        stage = program[row]
        op = stage[0]
        n = tokens
        if stage[2] == 1:
            n = outputs
        if op == MATMUL:
            matmul(stage, work, row, stages, w, act, stop, n)
        elif op == NORM:
            norms(stage, work, row, consts, w, act, view(picked), n)
        elif op == QUANTISE:
            quantise_rows(stage, work, row, act, n)
        elif op == ROPE_KEEP:
            rope_keep(stage, work, row, consts, act, angles, cache, bits, view(where), n)
        elif op == ATTEND:
            attend(stage, work, row, consts, act, cache, bits, s, stop, view(where), spans, view(pages), split, n)
        elif op == MERGE:
            merge_pages(stage, work, row, act, s, n, split)
        elif op == PEAKS:
            find_peaks(stage, work, row, act[0], peaks, stop, n)
        elif op == ACTIVATE:
            activate(stage, work, row, consts, act, n)
        elif op == EMBED:
            embeddings(stage, work, row, consts, w, act[0], view(where), n)
        elif op == CHOOSE:
            choose_experts(stage, work, row, act[0], n)
        elif op == SORT:
            sort_experts(stage, work, row, act[0], n)
        elif op == GATHER:
            gather(stage, work, row, act, n)
        else:
            mix_experts(stage, work, row, act[0], n)
        if stage[1] == 1 and (split > 0 or op != MERGE) and barrier(state, stop, team()) != 0:
            break


# pythran export step(
#     int64[:, :] order(C), float32[:], float32[:], uint8[:], float32[:], int8[:], float32[:], int32[:], float32[:],
#     float32[:], float32[:], uint16[:], uint16[:], int8[:], int8[:], float32[:], float32[:], int, float32[:],
#     float32[:], int32[:], int32[:], int32[:], int64[:], int64[:, :] order(C), int64[:], int64[:], int, int)
def step(
    program, consts, angles, w, f, x, xd, xs, xm, xl, xr, k, v, k8, v8, ks, vs, bits, s, peaks, stop, state, work,
    where, spans, pages, picked, split, threads,
):  # fmt: skip
    """Run `program` for some tokens, of one sequence or of several, and leave the logits of those picked in f.

    Parameters
    ----------
    program : (stages, columns) int64
    consts : float32, the numbers that stages name by their place
    angles : (positions, tables, 2, pairs) float32, the cosines and sines of rope
    w : uint8, the packed weights
    f, x, xd, xs, xm, xl, xr : the activations (`matmul.py`)
    k, v : uint16, the cache of keys and of values in half precision, (layers, pages, key/value heads, a page of a head)
    k8, v8, ks, vs : int8 and float32, the same cache in 8 bits and its scales; of the two caches one is used
    bits : 16 or 8, which; or 32, and ks and vs are the cache itself
    s : float32, scratch memory
    peaks : (outputs, blocks of PEAK logits) float32; the largest of each block, or not a number if one is not finite
    stop : (1,) int32, not 0 to stop
    state : (5,) int32, the threads' meeting place; 0 at first
    work : (threads, stages) int32, how much of each stage has been taken; 0 at first
    where : (tokens, 2) int64, each token's position in its sequence, and the page that this is in
    spans : (spans, 5) int64, tokens that are attended together: the first of them, how many, where in `pages` those of
        the first begin, how many of these all have in common, and how far further on those of each next token begin, or
        0 where the tokens follow each other in one sequence; else they have MOST_QUERIES at most
    pages : int64, numbers of pages
    picked : (outputs,) int64, the tokens whose logits are wanted
    split : int, the number of pages of the only span that attention treats as units of their own; 0 for none
    threads : int

    Returns
    -------
    int
        0, or 1 if the step was stopped: the activations and what was to come into the cache are then of no use.
    """
    #omp parallel num_threads(threads)
    if 1:
        act = (view(f), view(x), view(xd), view(xs), view(xm), view(xl), view(xr))
        cache = (view(k), view(v), view(k8), view(v8), view(ks), view(vs))
        run(
            program, view(consts), view(angles), view(w), act, cache, bits, view(s), view(peaks), view(stop),
            view(state), view(work), where, spans, pages, picked, split,
        )  # fmt: skip
    return poll(stop)
