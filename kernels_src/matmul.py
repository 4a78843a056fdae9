"""Products of a packed matrix with activations: one function for each block type.

A function makes one group of sixteen outputs for the tokens of a tile (`tiles.py`), from one group of packed rows.
Knows nothing of threads, of layers, or of where its arrays come from; `nbllm/runtime/packed.py` writes the packed
layouts.

In a group of nb blocks of 32 columns, the scales of all blocks come first, and then the quants of all blocks; each such
part begins at a multiple of 64 bytes. A block's quants are cut into chunks of 64 bytes, 4 columns of 16 rows; chunk v
holds the columns 4v to 4v + 3 of the block. Types of 256 columns a block are cut into blocks of 32, too: their
half-precision numbers come first, then the scales of all blocks of 32 in 8 bits, then the quants.

w : the packed bytes, and o where the group begins in them.  i : the tokens' first block.  act : the activations: f as
floats; x as int8; and of every 32 of these, xd their scale, xs their sum, xm their scaled sum, xl and xr that of the
first 16 and of the last.
"""

from lanes import (
    and_i32,
    bits,
    iq4,
    join,
    load_bf16,
    load_f16,
    load_f32,
    load_u8,
    mul,
    shift_i32,
    soon,
    splat_f32,
    sub,
    to_f32,
    widen_i8,
    widen_u8,
)

AHEAD = 4096  # bytes: with one token a core computes sooner than memory answers, so it has to ask early


def ahead(w, o, b, size):
    """Ask for what lies AHEAD of block b of the group at o, of which `size` bytes belong to each block,
    scales and all."""
    for line in range(0, size, 64):
        soon(w, o + b * size + line + AHEAD)


# the unpacking steps: chunk v of a block whose quants are at q


def nibble(w, q, v):
    """4 bits: 4 x 64 bytes with the chunks 0 to 3 low and 4 to 7 high"""
    if v < 4:
        return bits(load_u8(w, q + 64 * v), 0, 15)
    return bits(load_u8(w, q + 64 * (v - 4)), 4, 15)


def five(w, q, v):
    """nibbles, then 64 bytes with the fifth bit of chunk v in bit v"""
    return join(nibble(w, q, v), bits(load_u8(w, q + 256), v, 1), 4)


def pair(w, q, v):
    """2 bits: 2 x 64 bytes, with chunk v in the bits from 2 * (v % 4) on"""
    return bits(load_u8(w, q + v // 4 * 64), v % 4 * 2, 3)


def three(w, q, v):
    """pairs of bits, then 64 bytes with the third bit of chunk v in bit v"""
    return join(pair(w, q, v), bits(load_u8(w, q + 128), v, 1), 2)


def six(w, q, v):
    """nibbles, then their upper two bits as pairs"""
    return join(nibble(w, q, v), pair(w, q + 256, v), 4)


def byte(w, q, v):
    return load_u8(w, q + 64 * v)


def level(w, q, v):
    return iq4(nibble(w, q, v))


# the products of a block's chunks with the activations; chunks that share bytes follow each other


def sum_small(tile, chunk, w, q, x, i, b):
    """of values up to 15"""
    zero, dot, widen, plus = tile[1]
    s = zero()
    s = dot(s, chunk(w, q, 0), x, i, b * 32)
    s = dot(s, chunk(w, q, 4), x, i, b * 32 + 16)
    s = dot(s, chunk(w, q, 1), x, i, b * 32 + 4)
    s = dot(s, chunk(w, q, 5), x, i, b * 32 + 20)
    s = dot(s, chunk(w, q, 2), x, i, b * 32 + 8)
    s = dot(s, chunk(w, q, 6), x, i, b * 32 + 24)
    s = dot(s, chunk(w, q, 3), x, i, b * 32 + 12)
    s = dot(s, chunk(w, q, 7), x, i, b * 32 + 28)
    return widen(s)


def sum_half(tile, chunk, w, q, x, i, b, v):
    """of values up to 31, and only of the chunks v to v + 3"""
    zero, dot, widen, plus = tile[1]
    k = b * 32 + v * 4
    s = zero()
    s = dot(s, chunk(w, q, v), x, i, k)
    s = dot(s, chunk(w, q, v + 1), x, i, k + 4)
    s = dot(s, chunk(w, q, v + 2), x, i, k + 8)
    s = dot(s, chunk(w, q, v + 3), x, i, k + 12)
    return widen(s)


def sum_large_half(tile, chunk, w, q, x, i, b, v):
    """of values up to 63, and only of the chunks v to v + 3"""
    zero, dot, widen, plus = tile[1]
    k = b * 32 + v * 4
    s = zero()
    s = dot(s, chunk(w, q, v), x, i, k)
    s = dot(s, chunk(w, q, v + 1), x, i, k + 4)
    r = zero()
    r = dot(r, chunk(w, q, v + 2), x, i, k + 8)
    r = dot(r, chunk(w, q, v + 3), x, i, k + 12)
    return plus(widen(s), widen(r))


def sum_medium(tile, chunk, w, q, x, i, b):
    """of values up to 31"""
    zero, dot, widen, plus = tile[1]
    return plus(sum_half(tile, chunk, w, q, x, i, b, 0), sum_half(tile, chunk, w, q, x, i, b, 4))


def sum_signed(tile, chunk, w, q, x, xs, i, b):
    """of int8 values"""
    zero_i8, dot_i8 = tile[2]
    s = zero_i8(xs, i, b)
    s = dot_i8(s, chunk(w, q, 0), x, i, b * 32)
    s = dot_i8(s, chunk(w, q, 4), x, i, b * 32 + 16)
    s = dot_i8(s, chunk(w, q, 1), x, i, b * 32 + 4)
    s = dot_i8(s, chunk(w, q, 5), x, i, b * 32 + 20)
    s = dot_i8(s, chunk(w, q, 2), x, i, b * 32 + 8)
    s = dot_i8(s, chunk(w, q, 6), x, i, b * 32 + 24)
    s = dot_i8(s, chunk(w, q, 3), x, i, b * 32 + 12)
    return dot_i8(s, chunk(w, q, 7), x, i, b * 32 + 28)


def after(o, size):
    """where the part begins that follows one of that size"""
    return o + (size + 63) // 64 * 64


# block types of 32: a block's scales are 16 halves, followed by 16 halves of minima where the type has them. A form is
# shared by the types that differ in their unpacking step, and in the size of a block's quants, only.


def centred(sums, chunk, size, zero, tile, w, o, nb, act, i):
    """(q - zero) * d"""
    blank, less, scaled, offset = tile[0]
    f, x, xd, xs, xm, xl, xr = act
    q = after(o, nb * 32)
    a = blank()
    for b in range(nb):
        ahead(w, o, b, 32 + size)
        s = less(sums(tile, chunk, w, q + b * size, x, i, b), zero, xs, i, b)
        a = scaled(a, s, load_f16(w, o + b * 32), xd, i, b)
    return a


def affine(sums, chunk, size, tile, w, o, nb, act, i):
    """q * d + m"""
    blank, less, scaled, offset = tile[0]
    f, x, xd, xs, xm, xl, xr = act
    q = after(o, nb * 64)
    a = blank()
    for b in range(nb):
        ahead(w, o, b, 64 + size)
        a = scaled(a, sums(tile, chunk, w, q + b * size, x, i, b), load_f16(w, o + b * 64), xd, i, b)
        a = offset(a, load_f16(w, o + b * 64 + 32), xm, i, b)
    return a


def signed(chunk, size, tile, w, o, nb, act, i):
    """q * d"""
    blank, less, scaled, offset = tile[0]
    f, x, xd, xs, xm, xl, xr = act
    q = after(o, nb * 32)
    a = blank()
    for b in range(nb):
        ahead(w, o, b, 32 + size)
        a = scaled(a, sum_signed(tile, chunk, w, q + b * size, x, xs, i, b), load_f16(w, o + b * 32), xd, i, b)
    return a


def q4_0(tile, w, o, nb, act, i):
    return centred(sum_small, nibble, 256, 8, tile, w, o, nb, act, i)


def q5_0(tile, w, o, nb, act, i):
    return centred(sum_medium, five, 320, 16, tile, w, o, nb, act, i)


def q4_1(tile, w, o, nb, act, i):
    return affine(sum_small, nibble, 256, tile, w, o, nb, act, i)


def q5_1(tile, w, o, nb, act, i):
    return affine(sum_medium, five, 320, tile, w, o, nb, act, i)


def q8_0(tile, w, o, nb, act, i):
    return signed(byte, 512, tile, w, o, nb, act, i)


def iq4_nl(tile, w, o, nb, act, i):
    return signed(level, 256, tile, w, o, nb, act, i)


# the 2023 types of 16: two of their blocks make one of ours, and so have two times 16 scales, and minima after each


def q4_2(tile, w, o, nb, act, i):
    """(q - 8) * d"""
    blank, less, scaled, offset = tile[0]
    f, x, xd, xs, xm, xl, xr = act
    q = after(o, nb * 64)
    a = blank()
    for b in range(nb):
        ahead(w, o, b, 320)
        d = load_f16(w, o + b * 64)
        a = scaled(a, sum_half(tile, nibble, w, q + b * 256, x, i, b, 0), d, xd, i, b)
        a = offset(a, mul(d, splat_f32(-8.0)), xl, i, b)
        d = load_f16(w, o + b * 64 + 32)
        a = scaled(a, sum_half(tile, nibble, w, q + b * 256, x, i, b, 4), d, xd, i, b)
        a = offset(a, mul(d, splat_f32(-8.0)), xr, i, b)
    return a


def q4_3(tile, w, o, nb, act, i):
    """q * d + m"""
    blank, less, scaled, offset = tile[0]
    f, x, xd, xs, xm, xl, xr = act
    q = after(o, nb * 128)
    a = blank()
    for b in range(nb):
        ahead(w, o, b, 384)
        a = scaled(a, sum_half(tile, nibble, w, q + b * 256, x, i, b, 0), load_f16(w, o + b * 128), xd, i, b)
        a = offset(a, load_f16(w, o + b * 128 + 32), xl, i, b)
        a = scaled(a, sum_half(tile, nibble, w, q + b * 256, x, i, b, 4), load_f16(w, o + b * 128 + 64), xd, i, b)
        a = offset(a, load_f16(w, o + b * 128 + 96), xr, i, b)
    return a


# block types of 256: 16 halves d (and 16 more, dmin, where the type has minima); then bytes for each block of 32. Forms
# are shared as above.


def k_affine(sums, chunk, size, tile, w, o, nb, act, i):
    """q * scale * d - minimum * dmin; bytes: 16 scales, 16 minima"""
    blank, less, scaled, offset = tile[0]
    f, x, xd, xs, xm, xl, xr = act
    at = after(o, nb * 8)
    q = after(at, nb * 32)
    a = blank()
    for b in range(nb):
        ahead(w, o, b, 40 + size)
        d, m = scale_and_minimum(w, o + b // 8 * 64, at + b * 32)
        a = scaled(a, sums(tile, chunk, w, q + b * size, x, i, b), d, xd, i, b)
        a = offset(a, m, xm, i, b)
    return a


def scale_and_minimum(w, o, at):
    """d * scale and -dmin * minimum, from the halves at o and the bytes at `at`"""
    d = mul(load_f16(w, o), to_f32(widen_u8(w, at)))
    return d, mul(sub(splat_f32(0.0), load_f16(w, o + 32)), to_f32(widen_u8(w, at + 16)))


def k_centred(half_sums, chunk, size, minus_zero, tile, w, o, nb, act, i):
    """(q - zero) * scale * d; bytes: 2 x 16 signed scales, of 16 columns each"""
    blank, less, scaled, offset = tile[0]
    f, x, xd, xs, xm, xl, xr = act
    at = after(o, nb * 4)
    q = after(at, nb * 32)
    a = blank()
    for b in range(nb):
        ahead(w, o, b, 36 + size)
        d = load_f16(w, o + b // 8 * 32)
        left, right = mul(d, to_f32(widen_i8(w, at + b * 32))), mul(d, to_f32(widen_i8(w, at + b * 32 + 16)))
        a = scaled(a, half_sums(tile, chunk, w, q + b * size, x, i, b, 0), left, xd, i, b)
        a = scaled(a, half_sums(tile, chunk, w, q + b * size, x, i, b, 4), right, xd, i, b)
        a = offset(a, mul(left, splat_f32(minus_zero)), xl, i, b)
        a = offset(a, mul(right, splat_f32(minus_zero)), xr, i, b)
    return a


def q4_k(tile, w, o, nb, act, i):
    return k_affine(sum_small, nibble, 256, tile, w, o, nb, act, i)


def q5_k(tile, w, o, nb, act, i):
    return k_affine(sum_medium, five, 320, tile, w, o, nb, act, i)


def q6_k(tile, w, o, nb, act, i):
    return k_centred(sum_large_half, six, 384, -32.0, tile, w, o, nb, act, i)


def q3_k(tile, w, o, nb, act, i):
    return k_centred(sum_half, three, 192, -4.0, tile, w, o, nb, act, i)


def q2_k(tile, w, o, nb, act, i):
    """q * scale * d - minimum * dmin; bytes: 2 x 16 with a scale low and a minimum high, of 16 columns each"""
    blank, less, scaled, offset = tile[0]
    f, x, xd, xs, xm, xl, xr = act
    at = after(o, nb * 8)
    q = after(at, nb * 32)
    a = blank()
    for b in range(nb):
        ahead(w, o, b, 168)
        d, m = load_f16(w, o + b // 8 * 64), sub(splat_f32(0.0), load_f16(w, o + b // 8 * 64 + 32))
        left, right = widen_u8(w, at + b * 32), widen_u8(w, at + b * 32 + 16)
        a = scaled(a, sum_half(tile, pair, w, q + b * 128, x, i, b, 0), mul(d, to_f32(and_i32(left, 15))), xd, i, b)
        a = scaled(a, sum_half(tile, pair, w, q + b * 128, x, i, b, 4), mul(d, to_f32(and_i32(right, 15))), xd, i, b)
        a = offset(a, mul(m, to_f32(shift_i32(left, 4))), xl, i, b)
        a = offset(a, mul(m, to_f32(shift_i32(right, 4))), xr, i, b)
    return a


def iq4_xs(tile, w, o, nb, act, i):
    """level(q) * scale * d; bytes: 16 signed scales"""
    blank, less, scaled, offset = tile[0]
    f, x, xd, xs, xm, xl, xr = act
    at = after(o, nb * 4)
    q = after(at, nb * 16)
    a = blank()
    for b in range(nb):
        ahead(w, o, b, 276)
        d = mul(load_f16(w, o + b // 8 * 32), to_f32(widen_i8(w, at + b * 16)))
        a = scaled(a, sum_signed(tile, level, w, q + b * 256, x, xs, i, b), d, xd, i, b)
    return a


# plain floats: column after column of 16 numbers


def floats(tile, load, size, w, o, nb, act, i):
    blank, less, scaled, offset = tile[0]
    column, put = tile[3]
    a = blank()
    for k in range(nb * 32):
        a = column(a, load(w, o + k * size), act[0], i, k)
    return a


def f32(tile, w, o, nb, act, i):
    return floats(tile, load_f32, 64, w, o, nb, act, i)


def f16(tile, w, o, nb, act, i):
    return floats(tile, load_f16, 32, w, o, nb, act, i)


def bf16(tile, w, o, nb, act, i):
    return floats(tile, load_bf16, 32, w, o, nb, act, i)
