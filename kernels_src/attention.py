"""Attention of up to four queries over one page of PAGE cached positions, and how pages are merged.

Softmax is made page by page (Milakov and Gimelshein, 2018; Dao et al., 2022): a page gives its largest score m, the sum l
of exp(score - m) and the sum of exp(score - m) * value; two such partial results merge into one. Pages begin at fixed
positions and are merged in order, so the bits depend neither on who else is asking nor on who computes which page.

A partial result is 32 + head_dim floats: 16 copies of m, 16 lanes of l, the weighted values. A head's part of a page holds
keys (PAGE / 16, head_dim, 16) and values (PAGE, head_dim), either in half precision or in 8 bits; in 8 bits there is a scale
for each position, too. Knows nothing of layers, of threads, or of which page is whose.
"""

from lanes import (
    add,
    div,
    first,
    fma,
    largest,
    load_f32,
    max_f32,
    mul,
    soon,
    splat_f32,
    store_f32,
    sub,
    sum_f32,
    to_f32,
    widen_i8,
)
from elementwise import exp, soft_cap

PAGE = 128
AHEAD = 2048  # numbers: a core computes sooner than memory answers, so it has to ask early


def load_i8(a, i):
    """The 16 numbers in 8 bits at i, as floats."""
    return to_f32(widen_i8(a, i))


def unscaled(s, at, scales, i):
    """Half-precision numbers have no scale of their own."""


def scaled(s, at, scales, i):
    """Four rows of PAGE floats at `at` times the scales of the positions."""
    for p in range(0, PAGE, 16):
        c = load_f32(scales, i + p)
        store_f32(s, at + p, mul(load_f32(s, at + p), c))
        store_f32(s, at + PAGE + p, mul(load_f32(s, at + PAGE + p), c))
        store_f32(s, at + 2 * PAGE + p, mul(load_f32(s, at + 2 * PAGE + p), c))
        store_f32(s, at + 3 * PAGE + p, mul(load_f32(s, at + 3 * PAGE + p), c))


def score_page(load, f, q0, q1, q2, q3, k, v, o, head_dim, s, at):
    """s[at :] (4, PAGE) = the products of four queries in f with the keys of one page at o; its values are needed next."""
    for p in range(0, PAGE, 16):
        a0 = splat_f32(0.0)
        a1 = splat_f32(0.0)
        a2 = splat_f32(0.0)
        a3 = splat_f32(0.0)
        for d in range(head_dim):
            c = load(k, o + p * head_dim + d * 16)
            soon(k, o + p * head_dim + d * 16 + AHEAD)
            soon(v, o + p * head_dim + d * 16)
            a0 = fma(c, splat_f32(f[q0 + d]), a0)
            a1 = fma(c, splat_f32(f[q1 + d]), a1)
            a2 = fma(c, splat_f32(f[q2 + d]), a2)
            a3 = fma(c, splat_f32(f[q3 + d]), a3)
        store_f32(s, at + p, a0)
        store_f32(s, at + PAGE + p, a1)
        store_f32(s, at + 2 * PAGE + p, a2)
        store_f32(s, at + 3 * PAGE + p, a3)


def softmax_page(s, at, begin, end, part):
    """Turn PAGE scores at `at` into exp(score - m), positions outside of begin to end into 0; m and l go to s at part."""
    top = splat_f32(-1e30)
    for p in range(0, PAGE, 16):
        v = first(load_f32(s, at + p), end - p, splat_f32(-1e30))
        v = first(splat_f32(-1e30), begin - p, v)
        store_f32(s, at + p, v)
        top = largest(top, v)
    m = splat_f32(max_f32(top))
    total = splat_f32(0.0)
    for p in range(0, PAGE, 16):
        e = exp(sub(load_f32(s, at + p), m))
        store_f32(s, at + p, e)
        total = add(total, e)
    store_f32(s, part, m)
    store_f32(s, part + 16, total)


def value_page(load, s, at, v, o, head_dim, part, size):
    """Four partial results at part, `size` apart: their values weighted by the exponentials (4, PAGE) at `at`."""
    for d in range(0, head_dim, 16):
        a0 = splat_f32(0.0)
        a1 = splat_f32(0.0)
        a2 = splat_f32(0.0)
        a3 = splat_f32(0.0)
        for p in range(PAGE):
            c = load(v, o + p * head_dim + d)
            a0 = fma(c, splat_f32(s[at + p]), a0)
            a1 = fma(c, splat_f32(s[at + PAGE + p]), a1)
            a2 = fma(c, splat_f32(s[at + 2 * PAGE + p]), a2)
            a3 = fma(c, splat_f32(s[at + 3 * PAGE + p]), a3)
        store_f32(s, part + 32 + d, a0)
        store_f32(s, part + size + 32 + d, a1)
        store_f32(s, part + 2 * size + 32 + d, a2)
        store_f32(s, part + 3 * size + 32 + d, a3)


def attend_page(load, scaling, f, q0, q1, q2, q3, n0, n1, n2, n3, window, cap, k, v, ks, vs, o, head_dim, s, at, part):
    """Four partial results at part, for four queries that see the `window` positions before n0 to n3, counted from the page's
    first.

    cap : what soft-caps the scores, or 0.  load and scaling : what the cache's precision asks for.  k, v : the cache, where
    the head's part of the page is at o.  ks, vs : the scales of the positions, if they have any.  s : scratch memory, of
    which (4, PAGE) floats at `at` are used.
    """
    size = 32 + head_dim
    score_page(load, f, q0, q1, q2, q3, k, v, o, head_dim, s, at)
    scaling(s, at, ks, o // head_dim)
    if cap > 0:
        soft_cap(s, at, at, 4 * PAGE, cap)
    softmax_page(s, at, n0 - window, n0, part)
    softmax_page(s, at + PAGE, n1 - window, n1, part + size)
    softmax_page(s, at + 2 * PAGE, n2 - window, n2, part + 2 * size)
    softmax_page(s, at + 3 * PAGE, n3 - window, n3, part + 3 * size)
    scaling(s, at, vs, o // head_dim)
    value_page(load, s, at, v, o, head_dim, part, size)


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
