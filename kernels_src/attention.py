"""Attention of up to four queries, or eight, over one page of PAGE cached positions, and how pages are merged.

Softmax is made page by page (Milakov and Gimelshein, 2018; Dao et al., 2022): a page gives its largest score m, the sum
l of exp(score - m) and the sum of exp(score - m) * value; two such partial results merge into one. Pages begin at fixed
positions and are merged in order, so the bits depend neither on who else is asking nor on who computes which page.

A partial result is 32 + head_dim floats: 16 copies of m, 16 lanes of l, the weighted values. A head's part of a page
holds keys (PAGE / 16, head_dim, 16) and values (PAGE, head_dim), either in half precision or in 8 bits; in 8 bits there
is a scale for each position, too. Knows nothing of layers, of threads, or of which page is whose.
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
    wide,
    widen_i8,
)
from elementwise import exp, soft_cap

PAGE = 128
AHEAD = 2048  # numbers: a core computes sooner than memory answers, so it has to ask early


def load_i8(a, i):
    """The 16 numbers in 8 bits at i, as floats."""
    return to_f32(widen_i8(a, i))


def unscaled(s, at, scales, i, stretch):
    """Half-precision numbers have no scale of their own."""


def scaled(s, at, scales, i, stretch):
    """The first `stretch` of each of four rows of PAGE floats at `at` times the scales of the positions."""
    for p in range(0, stretch, 16):
        c = load_f32(scales, i + p)
        store_f32(s, at + p, mul(load_f32(s, at + p), c))
        store_f32(s, at + PAGE + p, mul(load_f32(s, at + PAGE + p), c))
        store_f32(s, at + 2 * PAGE + p, mul(load_f32(s, at + 2 * PAGE + p), c))
        store_f32(s, at + 3 * PAGE + p, mul(load_f32(s, at + 3 * PAGE + p), c))


# What follows comes in three shapes, which do the same for each query in the same order. More sums at a time hide the
# time that each takes, as far as the processor has registers for them: four queries and 16 numbers; four queries and
# twice 16, or eight queries and 16, if `wide()`.


def score_16(load, f, q, k, v, o, head_dim, s, at, p):
    """s[at + p :] of four rows = the products of four queries in f with 16 keys at o;
    their values at v are needed next."""
    a0, a1, a2, a3 = splat_f32(0.0), splat_f32(0.0), splat_f32(0.0), splat_f32(0.0)
    for d in range(head_dim):
        i = o + p * head_dim + d * 16
        c = load(k, i)
        soon(k, i + AHEAD)
        soon(v, i)
        a0 = fma(c, splat_f32(f[q[0] + d]), a0)
        a1 = fma(c, splat_f32(f[q[1] + d]), a1)
        a2 = fma(c, splat_f32(f[q[2] + d]), a2)
        a3 = fma(c, splat_f32(f[q[3] + d]), a3)
    put_four(s, at + p, PAGE, a0, a1, a2, a3)


def score_32(load, f, q, k, v, o, head_dim, s, at, p):
    """The same with 32 keys."""
    a0, a1, a2, a3 = splat_f32(0.0), splat_f32(0.0), splat_f32(0.0), splat_f32(0.0)
    b0, b1, b2, b3 = splat_f32(0.0), splat_f32(0.0), splat_f32(0.0), splat_f32(0.0)
    for d in range(head_dim):
        i = o + p * head_dim + d * 16
        j = i + 16 * head_dim
        c, e = load(k, i), load(k, j)
        soon(k, i + AHEAD)
        soon(k, j + AHEAD)
        soon(v, i)
        soon(v, j)
        x0, x1, x2, x3 = splat_f32(f[q[0] + d]), splat_f32(f[q[1] + d]), splat_f32(f[q[2] + d]), splat_f32(f[q[3] + d])
        a0, a1, a2, a3 = fma(c, x0, a0), fma(c, x1, a1), fma(c, x2, a2), fma(c, x3, a3)
        b0, b1, b2, b3 = fma(e, x0, b0), fma(e, x1, b1), fma(e, x2, b2), fma(e, x3, b3)
    put_four(s, at + p, PAGE, a0, a1, a2, a3)
    put_four(s, at + p + 16, PAGE, b0, b1, b2, b3)


def score_eight(load, f, q, r, k, v, o, head_dim, s, at, p):
    """The same with 16 keys, and four further queries, whose rows follow."""
    a0, a1, a2, a3 = splat_f32(0.0), splat_f32(0.0), splat_f32(0.0), splat_f32(0.0)
    b0, b1, b2, b3 = splat_f32(0.0), splat_f32(0.0), splat_f32(0.0), splat_f32(0.0)
    for d in range(head_dim):
        i = o + p * head_dim + d * 16
        c = load(k, i)
        soon(k, i + AHEAD)
        soon(v, i)
        a0, a1 = fma(c, splat_f32(f[q[0] + d]), a0), fma(c, splat_f32(f[q[1] + d]), a1)
        a2, a3 = fma(c, splat_f32(f[q[2] + d]), a2), fma(c, splat_f32(f[q[3] + d]), a3)
        b0, b1 = fma(c, splat_f32(f[r[0] + d]), b0), fma(c, splat_f32(f[r[1] + d]), b1)
        b2, b3 = fma(c, splat_f32(f[r[2] + d]), b2), fma(c, splat_f32(f[r[3] + d]), b3)
    put_four(s, at + p, PAGE, a0, a1, a2, a3)
    put_four(s, at + 4 * PAGE + p, PAGE, b0, b1, b2, b3)


def put_four(s, at, apart, a0, a1, a2, a3):
    store_f32(s, at, a0)
    store_f32(s, at + apart, a1)
    store_f32(s, at + 2 * apart, a2)
    store_f32(s, at + 3 * apart, a3)


def put_values(s, at, apart, a0, a1, a2, a3):
    """As `put_four`, and -0 becomes 0, so that positions that count for nothing may be left out or not."""
    z = splat_f32(0.0)
    put_four(s, at, apart, add(a0, z), add(a1, z), add(a2, z), add(a3, z))


def value_16(load, s, at, v, o, head_dim, end, part, size, d):
    """16 numbers from d on of four partial results at part, `size` apart: `end` values weighted by the rows at `at`."""
    a0, a1, a2, a3 = splat_f32(0.0), splat_f32(0.0), splat_f32(0.0), splat_f32(0.0)
    for p in range(end):
        c = load(v, o + p * head_dim + d)
        a0 = fma(c, splat_f32(s[at + p]), a0)
        a1 = fma(c, splat_f32(s[at + PAGE + p]), a1)
        a2 = fma(c, splat_f32(s[at + 2 * PAGE + p]), a2)
        a3 = fma(c, splat_f32(s[at + 3 * PAGE + p]), a3)
    put_values(s, part + 32 + d, size, a0, a1, a2, a3)


def value_32(load, s, at, v, o, head_dim, end, part, size, d):
    """The same for 32 numbers."""
    a0, a1, a2, a3 = splat_f32(0.0), splat_f32(0.0), splat_f32(0.0), splat_f32(0.0)
    b0, b1, b2, b3 = splat_f32(0.0), splat_f32(0.0), splat_f32(0.0), splat_f32(0.0)
    for p in range(end):
        c, e = load(v, o + p * head_dim + d), load(v, o + p * head_dim + d + 16)
        x0, x1 = splat_f32(s[at + p]), splat_f32(s[at + PAGE + p])
        x2, x3 = splat_f32(s[at + 2 * PAGE + p]), splat_f32(s[at + 3 * PAGE + p])
        a0, a1, a2, a3 = fma(c, x0, a0), fma(c, x1, a1), fma(c, x2, a2), fma(c, x3, a3)
        b0, b1, b2, b3 = fma(e, x0, b0), fma(e, x1, b1), fma(e, x2, b2), fma(e, x3, b3)
    put_values(s, part + 32 + d, size, a0, a1, a2, a3)
    put_values(s, part + 48 + d, size, b0, b1, b2, b3)


def value_eight(load, s, at, v, o, head_dim, end, left, right, size, d):
    """The same for 16 numbers of eight partial results: four at `left`, four at `right`."""
    a0, a1, a2, a3 = splat_f32(0.0), splat_f32(0.0), splat_f32(0.0), splat_f32(0.0)
    b0, b1, b2, b3 = splat_f32(0.0), splat_f32(0.0), splat_f32(0.0), splat_f32(0.0)
    for p in range(end):
        c = load(v, o + p * head_dim + d)
        a0, a1 = fma(c, splat_f32(s[at + p]), a0), fma(c, splat_f32(s[at + PAGE + p]), a1)
        a2, a3 = fma(c, splat_f32(s[at + 2 * PAGE + p]), a2), fma(c, splat_f32(s[at + 3 * PAGE + p]), a3)
        b0, b1 = fma(c, splat_f32(s[at + 4 * PAGE + p]), b0), fma(c, splat_f32(s[at + 5 * PAGE + p]), b1)
        b2, b3 = fma(c, splat_f32(s[at + 6 * PAGE + p]), b2), fma(c, splat_f32(s[at + 7 * PAGE + p]), b3)
    put_values(s, left + 32 + d, size, a0, a1, a2, a3)
    put_values(s, right + 32 + d, size, b0, b1, b2, b3)


def softmax_page(s, at, begin, end, stretch, part):
    """Turn `stretch` scores at `at` into exp(score - m), positions outside of begin to end into 0;
    m and l go to s at part."""
    top = splat_f32(-1e30)
    for p in range(0, stretch, 16):
        v = first(load_f32(s, at + p), end - p, splat_f32(-1e30))
        v = first(splat_f32(-1e30), begin - p, v)
        store_f32(s, at + p, v)
        top = largest(top, v)
    m = splat_f32(max_f32(top))
    total = splat_f32(0.0)
    for p in range(0, stretch, 16):
        e = exp(sub(load_f32(s, at + p), m))
        store_f32(s, at + p, e)
        total = add(total, e)
    store_f32(s, part, m)
    store_f32(s, part + 16, total)


def weigh(s, at, n, window, cap, stretch, part, size):
    """`softmax_page` for four queries that see the `window` positions before n,
    the scores soft-capped before if cap > 0."""
    if cap > 0:
        for start in range(at, at + 4 * PAGE, PAGE):
            soft_cap(s, start, start, stretch, cap)
    softmax_page(s, at, n[0] - window, n[0], stretch, part)
    softmax_page(s, at + PAGE, n[1] - window, n[1], stretch, part + size)
    softmax_page(s, at + 2 * PAGE, n[2] - window, n[2], stretch, part + 2 * size)
    softmax_page(s, at + 3 * PAGE, n[3] - window, n[3], stretch, part + 3 * size)


def attend_page(load, scaling, f, q, n, window, cap, k, v, ks, vs, o, head_dim, s, at, part):
    """Four partial results at part, for four queries at q that see the `window` positions before n, counted from the
    page's first.

    cap : what soft-caps the scores, or 0.  load and scaling : what the cache's precision asks for.  k, v : the cache,
    where the head's part of the page is at o.  ks, vs : the scales of the positions, if they have any.  s : scratch
    memory, of which (4, PAGE) floats at `at` are used.
    """
    size = 32 + head_dim
    end = min(PAGE, max(1, n[0], n[1], n[2], n[3]))  # of the positions that any of them sees
    stretch = (end + 31) // 32 * 32
    if wide():
        for p in range(0, stretch, 32):
            score_32(load, f, q, k, v, o, head_dim, s, at, p)
    else:
        for p in range(0, stretch, 16):
            score_16(load, f, q, k, v, o, head_dim, s, at, p)
    scaling(s, at, ks, o // head_dim, stretch)
    weigh(s, at, n, window, cap, stretch, part, size)
    scaling(s, at, vs, o // head_dim, stretch)
    d = 0
    if wide():
        while d + 32 <= head_dim:
            value_32(load, s, at, v, o, head_dim, end, part, size, d)
            d += 32
    while d < head_dim:
        value_16(load, s, at, v, o, head_dim, end, part, size, d)
        d += 16


def attend_page_eight(load, scaling, f, q, r, n, m, window, cap, k, v, ks, vs, o, head_dim, s, at, left, right):
    """The same for the queries at q, which see what is before n and whose results go to left, and those at r,
    of m, to right."""
    size = 32 + head_dim
    end = min(PAGE, max(1, n[0], n[1], n[2], n[3], m[0], m[1], m[2], m[3]))
    stretch = (end + 15) // 16 * 16
    for p in range(0, stretch, 16):
        score_eight(load, f, q, r, k, v, o, head_dim, s, at, p)
    scaling(s, at, ks, o // head_dim, stretch)
    scaling(s, at + 4 * PAGE, ks, o // head_dim, stretch)
    weigh(s, at, n, window, cap, stretch, left, size)
    weigh(s, at + 4 * PAGE, m, window, cap, stretch, right, size)
    scaling(s, at, vs, o // head_dim, stretch)
    scaling(s, at + 4 * PAGE, vs, o // head_dim, stretch)
    for d in range(0, head_dim, 16):
        value_eight(load, s, at, v, o, head_dim, end, left, right, size, d)


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
