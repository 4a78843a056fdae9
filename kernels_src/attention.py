"""Attention of up to four queries over one tile of TILE cached positions, and how tiles are merged.

Softmax is made tile by tile (Milakov and Gimelshein, 2018; Dao et al., 2022): a tile gives its largest score m, the sum l
of exp(score - m) and the sum of exp(score - m) * value; two such partial results merge into one. Tiles begin at fixed
positions and are merged in order, so the bits depend neither on who else is asking nor on who computes which tile.

A partial result is 32 + head_dim floats: 16 copies of m, 16 lanes of l, the weighted values. Keys of a head are
(tiles of 16, head_dim, 16) and values (positions, head_dim), both half precision. Knows nothing of layers or threads.
"""

from lanes import (
    add,
    div,
    first,
    fma,
    largest,
    load_f16,
    load_f32,
    max_f32,
    mul,
    splat_f32,
    store_f32,
    sub,
    sum_f32,
)
from elementwise import exp

TILE = 128


def score_tile(f, q0, q1, q2, q3, k, o, head_dim, s, at):
    """s[at :] (4, TILE) = the products of four queries in f with the keys of one tile at o."""
    for p in range(0, TILE, 16):
        a0 = splat_f32(0.0)
        a1 = splat_f32(0.0)
        a2 = splat_f32(0.0)
        a3 = splat_f32(0.0)
        for d in range(head_dim):
            c = load_f16(k, o + p * head_dim + d * 16)
            a0 = fma(c, splat_f32(f[q0 + d]), a0)
            a1 = fma(c, splat_f32(f[q1 + d]), a1)
            a2 = fma(c, splat_f32(f[q2 + d]), a2)
            a3 = fma(c, splat_f32(f[q3 + d]), a3)
        store_f32(s, at + p, a0)
        store_f32(s, at + TILE + p, a1)
        store_f32(s, at + 2 * TILE + p, a2)
        store_f32(s, at + 3 * TILE + p, a3)


def softmax_tile(s, at, visible, part):
    """Turn TILE scores at `at` into exp(score - m), positions from `visible` on into 0; m and l go to s at part."""
    top = splat_f32(-1e30)
    for p in range(0, TILE, 16):
        v = first(load_f32(s, at + p), visible - p, splat_f32(-1e30))
        store_f32(s, at + p, v)
        top = largest(top, v)
    m = splat_f32(max_f32(top))
    total = splat_f32(0.0)
    for p in range(0, TILE, 16):
        e = exp(sub(load_f32(s, at + p), m))
        store_f32(s, at + p, e)
        total = add(total, e)
    store_f32(s, part, m)
    store_f32(s, part + 16, total)


def value_tile(s, at, v, o, head_dim, part, size):
    """Four partial results at part, `size` apart: their values weighted by the exponentials (4, TILE) at `at`."""
    for d in range(0, head_dim, 16):
        a0 = splat_f32(0.0)
        a1 = splat_f32(0.0)
        a2 = splat_f32(0.0)
        a3 = splat_f32(0.0)
        for p in range(TILE):
            c = load_f16(v, o + p * head_dim + d)
            a0 = fma(c, splat_f32(s[at + p]), a0)
            a1 = fma(c, splat_f32(s[at + TILE + p]), a1)
            a2 = fma(c, splat_f32(s[at + 2 * TILE + p]), a2)
            a3 = fma(c, splat_f32(s[at + 3 * TILE + p]), a3)
        store_f32(s, part + 32 + d, a0)
        store_f32(s, part + size + 32 + d, a1)
        store_f32(s, part + 2 * size + 32 + d, a2)
        store_f32(s, part + 3 * size + 32 + d, a3)


def attend_tile(f, q0, q1, q2, q3, n0, n1, n2, n3, k, v, o, head_dim, s, at, part):
    """Four partial results at part, for four queries that see n0 to n3 positions of the tile at o in both caches.

    s is scratch memory: (4, TILE) floats at `at`.
    """
    size = 32 + head_dim
    score_tile(f, q0, q1, q2, q3, k, o, head_dim, s, at)
    softmax_tile(s, at, n0, part)
    softmax_tile(s, at + TILE, n1, part + size)
    softmax_tile(s, at + 2 * TILE, n2, part + 2 * size)
    softmax_tile(s, at + 3 * TILE, n3, part + 3 * size)
    value_tile(s, at, v, o, head_dim, part, size)


def clear_result(s, run, head_dim):
    """The result of no positions at all."""
    store_f32(s, run, splat_f32(-1e30))
    for d in range(16, 32 + head_dim, 16):
        store_f32(s, run + d, splat_f32(0.0))


def merge(s, run, part, head_dim):
    """The result at run becomes that of its positions and those of the result at part."""
    m_run = load_f32(s, run)
    m_part = load_f32(s, part)
    m = largest(m_run, m_part)
    c_run = exp(sub(m_run, m))
    c_part = exp(sub(m_part, m))
    store_f32(s, run, m)
    for d in range(16, 32 + head_dim, 16):
        store_f32(s, run + d, fma(load_f32(s, run + d), c_run, mul(load_f32(s, part + d), c_part)))


def finish(s, run, head_dim, f, dst):
    """f[dst :] = the weighted mean of the values."""
    total = splat_f32(sum_f32(load_f32(s, run + 16)))
    for d in range(0, head_dim, 16):
        store_f32(f, dst + d, div(load_f32(s, run + 32 + d), total))
