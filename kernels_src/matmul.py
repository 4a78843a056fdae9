"""Products of a packed matrix with activations, sixteen rows at a time.

Each function here makes one group of sixteen outputs, for one token or for four, from one group of packed rows. A
token's sums are made in the same order whichever function makes them, so its bits do not depend on its company. Knows
nothing of threads, of layers, or of where its arrays come from; `nbllm/runtime/packed.py` writes the packed layouts.

Names, for a matrix of nb blocks of 32 columns: w is the packed bytes and o where the group begins in them; x the int8
activations, xd the scale of each block of 32 of them, xs their sum, xm = xd * xs. i is a token's first block. For
matrices of plain floats, n is the number of columns, f the float activations and j where a token begins in them.
"""

from lanes import (
    add_i32,
    dot4_i8,
    dot4_u4,
    fma,
    hi4,
    lo4,
    load_bf16,
    load_f16,
    load_f32,
    load_u8,
    mul,
    splat_f32,
    splat_i32,
    to_f32,
    widen,
    zero_acc,
    zero_i8,
)

# the integer products of one block of 32 columns


def nibbles_1(w, o, x, j):
    a = zero_acc()
    for v in range(4):
        q = load_u8(w, o + 64 * v)
        a = dot4_u4(a, lo4(q), x, j + 4 * v)
        a = dot4_u4(a, hi4(q), x, j + 16 + 4 * v)
    return widen(a)


def nibbles_4(w, o, x, j0, j1, j2, j3):
    a0 = zero_acc()
    a1 = zero_acc()
    a2 = zero_acc()
    a3 = zero_acc()
    for v in range(4):
        q = load_u8(w, o + 64 * v)
        low = lo4(q)
        a0 = dot4_u4(a0, low, x, j0 + 4 * v)
        a1 = dot4_u4(a1, low, x, j1 + 4 * v)
        a2 = dot4_u4(a2, low, x, j2 + 4 * v)
        a3 = dot4_u4(a3, low, x, j3 + 4 * v)
        high = hi4(q)
        a0 = dot4_u4(a0, high, x, j0 + 16 + 4 * v)
        a1 = dot4_u4(a1, high, x, j1 + 16 + 4 * v)
        a2 = dot4_u4(a2, high, x, j2 + 16 + 4 * v)
        a3 = dot4_u4(a3, high, x, j3 + 16 + 4 * v)
    return widen(a0), widen(a1), widen(a2), widen(a3)


def bytes_1(w, o, x, j, total):
    a = zero_i8(total)
    for v in range(8):
        a = dot4_i8(a, load_u8(w, o + 64 * v), x, j + 4 * v)
    return a


def bytes_4(w, o, x, j0, j1, j2, j3, t0, t1, t2, t3):
    a0 = zero_i8(t0)
    a1 = zero_i8(t1)
    a2 = zero_i8(t2)
    a3 = zero_i8(t3)
    for v in range(8):
        q = load_u8(w, o + 64 * v)
        a0 = dot4_i8(a0, q, x, j0 + 4 * v)
        a1 = dot4_i8(a1, q, x, j1 + 4 * v)
        a2 = dot4_i8(a2, q, x, j2 + 4 * v)
        a3 = dot4_i8(a3, q, x, j3 + 4 * v)
    return a0, a1, a2, a3


# one block added to a token's sums


def scaled(a, s, d, xd):
    return fma(mul(d, splat_f32(xd)), to_f32(s), a)


def less_eight(s, xs):
    """Q4_0 holds w + 8: take 8 times the sum of x away."""
    return add_i32(s, splat_i32(-8 * xs))


# Q4_0: nb x 16 half-precision scales, then nb x 256 bytes of nibbles


def q4_0_1(w, o, nb, x, xd, xs, i):
    qs = o + (nb * 32 + 63) // 64 * 64
    a = splat_f32(0.0)
    for b in range(nb):
        s = less_eight(nibbles_1(w, qs + b * 256, x, (i + b) * 32), xs[i + b])
        a = scaled(a, s, load_f16(w, o + b * 32), xd[i + b])
    return a


def q4_0_4(w, o, nb, x, xd, xs, i0, i1, i2, i3):
    qs = o + (nb * 32 + 63) // 64 * 64
    a0 = splat_f32(0.0)
    a1 = splat_f32(0.0)
    a2 = splat_f32(0.0)
    a3 = splat_f32(0.0)
    for b in range(nb):
        s0, s1, s2, s3 = nibbles_4(w, qs + b * 256, x, (i0 + b) * 32, (i1 + b) * 32, (i2 + b) * 32, (i3 + b) * 32)
        d = load_f16(w, o + b * 32)
        a0 = scaled(a0, less_eight(s0, xs[i0 + b]), d, xd[i0 + b])
        a1 = scaled(a1, less_eight(s1, xs[i1 + b]), d, xd[i1 + b])
        a2 = scaled(a2, less_eight(s2, xs[i2 + b]), d, xd[i2 + b])
        a3 = scaled(a3, less_eight(s3, xs[i3 + b]), d, xd[i3 + b])
    return a0, a1, a2, a3


# Q4_1: nb x (16 scales, 16 minima), then nb x 256 bytes of nibbles


def q4_1_1(w, o, nb, x, xd, xm, i):
    qs = o + nb * 64
    a = splat_f32(0.0)
    for b in range(nb):
        s = nibbles_1(w, qs + b * 256, x, (i + b) * 32)
        a = scaled(a, s, load_f16(w, o + b * 64), xd[i + b])
        a = fma(load_f16(w, o + b * 64 + 32), splat_f32(xm[i + b]), a)
    return a


def q4_1_4(w, o, nb, x, xd, xm, i0, i1, i2, i3):
    qs = o + nb * 64
    a0 = splat_f32(0.0)
    a1 = splat_f32(0.0)
    a2 = splat_f32(0.0)
    a3 = splat_f32(0.0)
    for b in range(nb):
        s0, s1, s2, s3 = nibbles_4(w, qs + b * 256, x, (i0 + b) * 32, (i1 + b) * 32, (i2 + b) * 32, (i3 + b) * 32)
        d = load_f16(w, o + b * 64)
        m = load_f16(w, o + b * 64 + 32)
        a0 = fma(m, splat_f32(xm[i0 + b]), scaled(a0, s0, d, xd[i0 + b]))
        a1 = fma(m, splat_f32(xm[i1 + b]), scaled(a1, s1, d, xd[i1 + b]))
        a2 = fma(m, splat_f32(xm[i2 + b]), scaled(a2, s2, d, xd[i2 + b]))
        a3 = fma(m, splat_f32(xm[i3 + b]), scaled(a3, s3, d, xd[i3 + b]))
    return a0, a1, a2, a3


# Q8_0: nb x 16 scales, then nb x 512 bytes


def q8_0_1(w, o, nb, x, xd, xs, i):
    qs = o + (nb * 32 + 63) // 64 * 64
    a = splat_f32(0.0)
    for b in range(nb):
        s = bytes_1(w, qs + b * 512, x, (i + b) * 32, xs[i + b])
        a = scaled(a, s, load_f16(w, o + b * 32), xd[i + b])
    return a


def q8_0_4(w, o, nb, x, xd, xs, i0, i1, i2, i3):
    qs = o + (nb * 32 + 63) // 64 * 64
    a0 = splat_f32(0.0)
    a1 = splat_f32(0.0)
    a2 = splat_f32(0.0)
    a3 = splat_f32(0.0)
    for b in range(nb):
        s0, s1, s2, s3 = bytes_4(
            w, qs + b * 512, x, (i0 + b) * 32, (i1 + b) * 32, (i2 + b) * 32, (i3 + b) * 32,
            xs[i0 + b], xs[i1 + b], xs[i2 + b], xs[i3 + b],
        )  # fmt: skip
        d = load_f16(w, o + b * 32)
        a0 = scaled(a0, s0, d, xd[i0 + b])
        a1 = scaled(a1, s1, d, xd[i1 + b])
        a2 = scaled(a2, s2, d, xd[i2 + b])
        a3 = scaled(a3, s3, d, xd[i3 + b])
    return a0, a1, a2, a3


# plain floats: n columns of 16 numbers; `load` widens one column of `size` bytes


def floats_1(load, size, w, o, n, f, j):
    a = splat_f32(0.0)
    for k in range(n):
        a = fma(load(w, o + k * size), splat_f32(f[j + k]), a)
    return a


def floats_4(load, size, w, o, n, f, j0, j1, j2, j3):
    a0 = splat_f32(0.0)
    a1 = splat_f32(0.0)
    a2 = splat_f32(0.0)
    a3 = splat_f32(0.0)
    for k in range(n):
        c = load(w, o + k * size)
        a0 = fma(c, splat_f32(f[j0 + k]), a0)
        a1 = fma(c, splat_f32(f[j1 + k]), a1)
        a2 = fma(c, splat_f32(f[j2 + k]), a2)
        a3 = fma(c, splat_f32(f[j3 + k]), a3)
    return a0, a1, a2, a3


# the same signature as the quantised products: f in the place of x, no scales


def f32_1(w, o, nb, f, xd, xs, i):
    return floats_1(load_f32, 64, w, o, nb * 32, f, i * 32)


def f32_4(w, o, nb, f, xd, xs, i0, i1, i2, i3):
    return floats_4(load_f32, 64, w, o, nb * 32, f, i0 * 32, i1 * 32, i2 * 32, i3 * 32)


def f16_1(w, o, nb, f, xd, xs, i):
    return floats_1(load_f16, 32, w, o, nb * 32, f, i * 32)


def f16_4(w, o, nb, f, xd, xs, i0, i1, i2, i3):
    return floats_4(load_f16, 32, w, o, nb * 32, f, i0 * 32, i1 * 32, i2 * 32, i3 * 32)


def bf16_1(w, o, nb, f, xd, xs, i):
    return floats_1(load_bf16, 32, w, o, nb * 32, f, i * 32)


def bf16_4(w, o, nb, f, xd, xs, i0, i1, i2, i3):
    return floats_4(load_bf16, 32, w, o, nb * 32, f, i0 * 32, i1 * 32, i2 * 32, i3 * 32)
