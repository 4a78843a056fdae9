"""Tokens side by side: what a product does for one token, and for four or eight at once.

A group of packed weights is unpacked once for all the tokens of a tile. `one`, `four` and `eight` give the same
functions in the same order; what these take and give is a single value in `one` and a tuple in the others, and so is i,
the tokens' first block of 32 activations. A token's operations and their order are the same with all three, so its bits
are too.

a : running sums, f32.  s : integer sums.  c : 64 unpacked bytes, or 16 floats.
k : an activation, b : a block, counted from i.
"""

from lanes import (
    add,
    add_i32,
    dot4,
    dot4_i8,
    fma,
    load_f32,
    mul,
    splat_f32,
    splat_i32,
    store_f32,
    to_f32,
    widen,
    zero_acc,
    zero_i8,
)

# one token


def blank_1():
    return splat_f32(0.0)


def zero_1():
    return zero_acc()


def dot_1(s, c, x, i, k):
    return dot4(s, c, x, i * 32 + k)


def widen_1(s):
    return widen(s)


def zero_i8_1(xs, i, b):
    return zero_i8(xs[i + b])


def dot_i8_1(s, c, x, i, k):
    return dot4_i8(s, c, x, i * 32 + k)


def plus_1(s, r):
    return add_i32(s, r)


def less_1(s, n, xs, i, b):
    """s - n * the sum of a block of activations"""
    return add_i32(s, splat_i32(-n * xs[i + b]))


def scaled_1(a, s, d, xd, i, b):
    """a + s * the scales of the weights and of the activations"""
    return fma(mul(d, splat_f32(xd[i + b])), to_f32(s), a)


def offset_1(a, m, xm, i, b):
    """a + m * a scaled sum of activations"""
    return fma(m, splat_f32(xm[i + b]), a)


def column_1(a, c, f, i, k):
    """a + c * a float activation"""
    return fma(c, splat_f32(f[i * 32 + k]), a)


def put_1(f, dst, width, a, c, accumulate, n):
    """Store the sums of the tile's first n tokens, `width` apart, and c; or add them to what is there."""
    if accumulate:
        store_f32(f, dst, add(load_f32(f, dst), add(a, c)))
    else:
        store_f32(f, dst, add(a, c))


# four tokens


def blank_4():
    return blank_1(), blank_1(), blank_1(), blank_1()


def zero_4():
    return zero_1(), zero_1(), zero_1(), zero_1()


def dot_4(s, c, x, i, k):
    return (
        dot_1(s[0], c, x, i[0], k), dot_1(s[1], c, x, i[1], k),
        dot_1(s[2], c, x, i[2], k), dot_1(s[3], c, x, i[3], k),
    )  # fmt: skip


def widen_4(s):
    return widen_1(s[0]), widen_1(s[1]), widen_1(s[2]), widen_1(s[3])


def zero_i8_4(xs, i, b):
    return zero_i8_1(xs, i[0], b), zero_i8_1(xs, i[1], b), zero_i8_1(xs, i[2], b), zero_i8_1(xs, i[3], b)


def dot_i8_4(s, c, x, i, k):
    return (
        dot_i8_1(s[0], c, x, i[0], k), dot_i8_1(s[1], c, x, i[1], k),
        dot_i8_1(s[2], c, x, i[2], k), dot_i8_1(s[3], c, x, i[3], k),
    )  # fmt: skip


def plus_4(s, r):
    return plus_1(s[0], r[0]), plus_1(s[1], r[1]), plus_1(s[2], r[2]), plus_1(s[3], r[3])


def less_4(s, n, xs, i, b):
    return (
        less_1(s[0], n, xs, i[0], b), less_1(s[1], n, xs, i[1], b),
        less_1(s[2], n, xs, i[2], b), less_1(s[3], n, xs, i[3], b),
    )  # fmt: skip


def scaled_4(a, s, d, xd, i, b):
    return (
        scaled_1(a[0], s[0], d, xd, i[0], b), scaled_1(a[1], s[1], d, xd, i[1], b),
        scaled_1(a[2], s[2], d, xd, i[2], b), scaled_1(a[3], s[3], d, xd, i[3], b),
    )  # fmt: skip


def offset_4(a, m, xm, i, b):
    return (
        offset_1(a[0], m, xm, i[0], b), offset_1(a[1], m, xm, i[1], b),
        offset_1(a[2], m, xm, i[2], b), offset_1(a[3], m, xm, i[3], b),
    )  # fmt: skip


def column_4(a, c, f, i, k):
    return (
        column_1(a[0], c, f, i[0], k), column_1(a[1], c, f, i[1], k),
        column_1(a[2], c, f, i[2], k), column_1(a[3], c, f, i[3], k),
    )  # fmt: skip


def put_4(f, dst, width, a, c, accumulate, n):
    put_1(f, dst, width, a[0], c, accumulate, n)
    if n > 1:
        put_1(f, dst + width, width, a[1], c, accumulate, n)
    if n > 2:
        put_1(f, dst + 2 * width, width, a[2], c, accumulate, n)
    if n > 3:
        put_1(f, dst + 3 * width, width, a[3], c, accumulate, n)


# eight tokens: two fours


def blank_8():
    return blank_4(), blank_4()


def zero_8():
    return zero_4(), zero_4()


def dot_8(s, c, x, i, k):
    return dot_4(s[0], c, x, i[0], k), dot_4(s[1], c, x, i[1], k)


def widen_8(s):
    return widen_4(s[0]), widen_4(s[1])


def zero_i8_8(xs, i, b):
    return zero_i8_4(xs, i[0], b), zero_i8_4(xs, i[1], b)


def dot_i8_8(s, c, x, i, k):
    return dot_i8_4(s[0], c, x, i[0], k), dot_i8_4(s[1], c, x, i[1], k)


def plus_8(s, r):
    return plus_4(s[0], r[0]), plus_4(s[1], r[1])


def less_8(s, n, xs, i, b):
    return less_4(s[0], n, xs, i[0], b), less_4(s[1], n, xs, i[1], b)


def scaled_8(a, s, d, xd, i, b):
    return scaled_4(a[0], s[0], d, xd, i[0], b), scaled_4(a[1], s[1], d, xd, i[1], b)


def offset_8(a, m, xm, i, b):
    return offset_4(a[0], m, xm, i[0], b), offset_4(a[1], m, xm, i[1], b)


def column_8(a, c, f, i, k):
    return column_4(a[0], c, f, i[0], k), column_4(a[1], c, f, i[1], k)


def put_8(f, dst, width, a, c, accumulate, n):
    put_4(f, dst, width, a[0], c, accumulate, n)
    if n > 4:
        put_4(f, dst + 4 * width, width, a[1], c, accumulate, n - 4)


# ((blank, less, scaled, offset), (zero, dot, widen, plus), (zero_i8, dot_i8), (column, put))


def one():
    return (
        (blank_1, less_1, scaled_1, offset_1), (zero_1, dot_1, widen_1, plus_1), (zero_i8_1, dot_i8_1),
        (column_1, put_1),
    )  # fmt: skip


def four():
    return (
        (blank_4, less_4, scaled_4, offset_4), (zero_4, dot_4, widen_4, plus_4), (zero_i8_4, dot_i8_4),
        (column_4, put_4),
    )  # fmt: skip


def eight():
    return (
        (blank_8, less_8, scaled_8, offset_8), (zero_8, dot_8, widen_8, plus_8), (zero_i8_8, dot_i8_8),
        (column_8, put_8),
    )  # fmt: skip
