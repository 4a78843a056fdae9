"""The stage of matrix products: groups of sixteen rows, whatever their block type, shared out among the threads.

With a list of experts (`experts.py`), each of them has a matrix and rows of its own. Knows no layout of blocks.
"""

from lanes import load_f32, poll, splat_f32, take, team, thread, wide
from matmul import (
    bf16, f16, f32, iq4_nl, iq4_xs, q2_k, q3_k, q4_0, q4_1, q4_2, q4_3, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0,
)  # fmt: skip
from tiles import eight, four, one

GRAIN_BYTES = 1 << 14  # of weights that a thread takes at a time when there is one token

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


def group(product, w, o, nb, act, i, dst, width, accumulate, tokens, bias):
    """Sixteen outputs of every token: i is the first token's first block, dst the place of its outputs, width their
    stride, bias the byte of what is added to each, or below 0."""
    f = act[0]
    c = splat_f32(0.0)
    if bias >= 0:
        c = load_f32(w, bias)
    if tokens == 1:
        tile = one()
        tile[3][1](f, dst, width, product(tile, w, o, nb, act, i), c, accumulate, 1)
        return
    last = i + (tokens - 1) * nb  # tiles are filled up with the last token
    if wide():
        tile = eight()
        for t in range(0, tokens, 8):
            at = i + t * nb
            front = (at, min(at + nb, last), min(at + 2 * nb, last), min(at + 3 * nb, last))
            back = (min(at + 4 * nb, last), min(at + 5 * nb, last), min(at + 6 * nb, last), min(at + 7 * nb, last))
            a = product(tile, w, o, nb, act, (front, back))
            tile[3][1](f, dst + t * width, width, a, c, accumulate, tokens - t)
    else:
        tile = four()
        for t in range(0, tokens, 4):
            at = i + t * nb
            a = product(tile, w, o, nb, act, (at, min(at + nb, last), min(at + 2 * nb, last), min(at + 3 * nb, last)))
            tile[3][1](f, dst + t * width, width, a, c, accumulate, tokens - t)


def any_group(kind, w, o, nb, act, i, dst, width, accumulate, tokens, bias):
    """`group` for any block type."""
    if kind == Q4_0:
        group(q4_0, w, o, nb, act, i, dst, width, accumulate, tokens, bias)
    elif kind == Q4_1:
        group(q4_1, w, o, nb, act, i, dst, width, accumulate, tokens, bias)
    elif kind == Q8_0:
        group(q8_0, w, o, nb, act, i, dst, width, accumulate, tokens, bias)
    elif kind == Q4_K:
        group(q4_k, w, o, nb, act, i, dst, width, accumulate, tokens, bias)
    elif kind == Q6_K:
        group(q6_k, w, o, nb, act, i, dst, width, accumulate, tokens, bias)
    elif kind == Q5_K:
        group(q5_k, w, o, nb, act, i, dst, width, accumulate, tokens, bias)
    elif kind == Q5_0:
        group(q5_0, w, o, nb, act, i, dst, width, accumulate, tokens, bias)
    elif kind == Q5_1:
        group(q5_1, w, o, nb, act, i, dst, width, accumulate, tokens, bias)
    elif kind == Q3_K:
        group(q3_k, w, o, nb, act, i, dst, width, accumulate, tokens, bias)
    elif kind == Q2_K:
        group(q2_k, w, o, nb, act, i, dst, width, accumulate, tokens, bias)
    elif kind == IQ4_NL:
        group(iq4_nl, w, o, nb, act, i, dst, width, accumulate, tokens, bias)
    elif kind == IQ4_XS:
        group(iq4_xs, w, o, nb, act, i, dst, width, accumulate, tokens, bias)
    elif kind == Q4_2:
        group(q4_2, w, o, nb, act, i, dst, width, accumulate, tokens, bias)
    elif kind == Q4_3:
        group(q4_3, w, o, nb, act, i, dst, width, accumulate, tokens, bias)
    elif kind == F16:
        group(f16, w, o, nb, act, i, dst, width, accumulate, tokens, bias)
    elif kind == BF16:
        group(bf16, w, o, nb, act, i, dst, width, accumulate, tokens, bias)
    else:
        group(f32, w, o, nb, act, i, dst, width, accumulate, tokens, bias)


def matmul(stage, work, row, stages, w, act, stop, tokens):
    """columns: 3 block type, 4 first byte, 5 bytes of a group, 6 groups, 7 source, 8 its width, 9 target, 10 its width,
    11 add to the target, 12 first byte of the biases or -1, 13 the list of experts, each of which has so many groups
    and takes its own rows of the source, or -1"""
    groups = stage[6]
    if stage[13] >= 0:
        groups *= int(act[0][stage[13]])
    threads = team()
    for turn in range(threads):
        # A thread's own share is one stretch, as memory likes it; then it helps with what others have left of theirs.
        owner = (thread() + turn) % threads
        base, end = groups * owner // threads, groups * (owner + 1) // threads
        share(stage, work, owner * stages + row, w, act, stop, tokens, base, end)


def share(stage, work, counter, w, act, stop, tokens, base, end):
    """The groups from base to end of a product, as far as no other thread takes them."""
    grain = 1
    if tokens == 1:
        grain = max(1, GRAIN_BYTES // stage[5])
    begin = base + take(work, counter, grain)
    while begin < end and poll(stop) == 0:
        for g in range(begin, min(begin + grain, end)):
            product_group(stage, w, act, tokens, g)
        begin = base + take(work, counter, grain)


def product_group(stage, w, act, tokens, g):
    """Group g of a product."""
    nb, i, dst, width = stage[8] // 32, stage[7] // 32, stage[9], stage[10]
    if stage[13] >= 0:
        f = act[0]
        entry = stage[13] + 4 * (g // stage[6] + 1)
        at = int(f[entry + 1])  # the expert's first row
        h = g % stage[6]
        o = stage[4] + (int(f[entry]) * stage[6] + h) * stage[5]
        any_group(
            stage[3], w, o, nb, act, i + at * nb, dst + at * width + h * 16, width, stage[11], int(f[entry + 2]), -1,
        )  # fmt: skip
    elif stage[12] >= 0:
        o = stage[4] + g * stage[5]
        any_group(stage[3], w, o, nb, act, i, dst + g * 16, width, stage[11], tokens, stage[12] + g * 64)
    else:
        any_group(stage[3], w, stage[4] + g * stage[5], nb, act, i, dst + g * 16, width, stage[11], tokens, -1)
