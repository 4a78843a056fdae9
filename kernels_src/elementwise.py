"""What a layer does to one token's row of numbers: norm, rope, activation, and quantising to 8 bits.

Rows are stretches of flat arrays. Knows nothing of matrices, threads or layers.
"""

from lanes import (
    add,
    div,
    first,
    fma,
    largest,
    load_f32,
    magnitude,
    max_f32,
    mul,
    pow2,
    put_f16,
    round_i32,
    scalar,
    select_greater,
    splat_f32,
    splat_i32,
    sqrt,
    store_f16,
    store_f32,
    store_i8,
    sub,
    sum_f32,
    sum_i32,
    to_f32,
)


PEAK = 128  # logits that are looked at together


def exp(v):
    """e to the power of every lane, to 2 units in the last place; 0 from -87 downwards, the value at 88 above it; and
    no number of what is none.

    2^n * e^r with n = round(v / ln 2) and |r| <= ln 2 / 2; ln 2 is taken away in two parts, and e^r is a polynomial
    of degree 6 (the coefficients are those of Cephes' expf).
    """
    inside = select_greater(v, splat_f32(88.0), splat_f32(88.0), v)
    inside = largest(splat_f32(-87.0), inside)
    n = round_i32(mul(inside, splat_f32(1.44269504)))
    r = fma(to_f32(n), splat_f32(-0.693359375), inside)
    r = fma(to_f32(n), splat_f32(2.12194440e-4), r)
    p = fma(r, splat_f32(1.9875691500e-4), splat_f32(1.3981999507e-3))
    p = fma(p, r, splat_f32(8.3334519073e-3))
    p = fma(p, r, splat_f32(4.1665795894e-2))
    p = fma(p, r, splat_f32(1.6666665459e-1))
    p = fma(p, r, splat_f32(5.0000001201e-1))
    p = add(fma(p, mul(r, r), r), splat_f32(1.0))
    return select_greater(splat_f32(-86.9999924), v, splat_f32(0.0), mul(p, pow2(n)))  # the first above -87


def quantise(act, i, n):
    """The n floats at i as int8 at the same place, with the scale and the sums of every 32 of them (`matmul.py`).

    If one of the 32 is not finite, the scale is no number, so that neither is what is made of them.
    """
    f, x, xd, xs, xm, xl, xr = act
    for b in range(i // 32, (i + n) // 32):
        left = load_f32(f, b * 32)
        right = load_f32(f, b * 32 + 16)
        zero = splat_f32(0.0)
        wrong = sum_f32(fma(left, zero, mul(right, zero)))
        peak = splat_f32(max_f32(largest(magnitude(left), magnitude(right))) + wrong)
        scale = div(peak, splat_f32(127.0))
        inverse = select_greater(peak, zero, div(splat_f32(127.0), largest(peak, splat_f32(1e-30))), zero)
        left_q = round_i32(largest(mul(left, inverse), splat_f32(-127.0)))  # which what is no number becomes
        right_q = round_i32(largest(mul(right, inverse), splat_f32(-127.0)))
        store_i8(x, b * 32, left_q)
        store_i8(x, b * 32 + 16, right_q)
        left_sum = sum_i32(left_q)
        right_sum = sum_i32(right_q)
        xd[b] = scalar(scale)
        xs[b] = left_sum + right_sum
        xm[b] = scalar(mul(scale, to_f32(splat_i32(left_sum + right_sum))))
        xl[b] = scalar(mul(scale, to_f32(splat_i32(left_sum))))
        xr[b] = scalar(mul(scale, to_f32(splat_i32(right_sum))))


def norm(f, src, dst, n, w, o, bias, centred, eps, accumulate):
    """f[dst :] = f[src :] / sqrt(mean of squares + eps) * weights + biases, n numbers; or that is added to f[dst :].

    centred: from all numbers their mean is taken away first.  The weights are floats at byte o of w, and the biases, if
    there are any, at byte `bias`.
    """
    mean = splat_f32(0.0)
    if centred:
        for j in range(0, n, 16):
            mean = add(mean, load_f32(f, src + j))
        mean = div(splat_f32(sum_f32(mean)), splat_f32(n))
    squares = splat_f32(0.0)
    for j in range(0, n, 16):
        v = sub(load_f32(f, src + j), mean)
        squares = fma(v, v, squares)
    variance = div(splat_f32(sum_f32(squares)), splat_f32(n))
    scale = div(splat_f32(1.0), sqrt(add(variance, splat_f32(eps))))
    for j in range(0, n, 16):
        v = mul(mul(sub(load_f32(f, src + j), mean), scale), load_f32(w, o + 4 * j))
        if bias >= 0:
            v = add(v, load_f32(w, bias + 4 * j))
        if accumulate:
            v = add(load_f32(f, dst + j), v)
        store_f32(f, dst + j, v)


def embed(f, i, n, scale, w, o):
    """The n numbers at i times `scale`, and plus the floats at byte o of w where o is not below 0."""
    for j in range(0, n, 16):
        v = mul(load_f32(f, i + j), splat_f32(scale))
        if o >= 0:
            v = add(v, load_f32(w, o + 4 * j))
        store_f32(f, i + j, v)


def rope(f, i, head_dim, half, angles, a, scale):
    """Turn the pairs (j, j + half) of one head at i by the cosines at a in angles, the sines after them;
    scale it all."""
    for j in range(2 * half, head_dim):
        f[i + j] = f[i + j] * scale
    for j in range(half):
        c = angles[a + j]
        s = angles[a + half + j]
        p = f[i + j]
        q = f[i + half + j]
        f[i + j] = (p * c - q * s) * scale
        f[i + half + j] = (p * s + q * c) * scale


def sigmoid_mul(v, z):
    """v / (1 + e^-z)"""
    return div(v, add(splat_f32(1.0), exp(sub(splat_f32(0.0), z))))


def silu(f, src, dst, n):
    """f[dst :] = v * sigmoid(v) for the n numbers at src."""
    for j in range(0, n, 16):
        v = load_f32(f, src + j)
        store_f32(f, dst + j, sigmoid_mul(v, v))


def gelu(f, src, dst, n):
    """The same with v / 2 * (1 + tanh(u)), which is v * sigmoid(2u), for u = sqrt(2 / pi) * (v + 0.044715 * v^3)."""
    for j in range(0, n, 16):
        v = load_f32(f, src + j)
        z = mul(mul(splat_f32(1.5957691), v), fma(mul(v, v), splat_f32(0.044715), splat_f32(1.0)))
        store_f32(f, dst + j, sigmoid_mul(v, z))


def soft_cap(f, src, dst, n, cap):
    """The same with cap * tanh(v / cap): within -cap to cap, and nearly v where that is small."""
    for j in range(0, n, 16):
        z = div(load_f32(f, src + j), splat_f32(0.5 * cap))
        tanh = sub(splat_f32(1.0), div(splat_f32(2.0), add(splat_f32(1.0), exp(z))))
        store_f32(f, dst + j, mul(splat_f32(cap), tanh))


def multiply(f, src, dst, n):
    """f[dst :] = f[dst :] * f[src :], n numbers."""
    for j in range(0, n, 16):
        store_f32(f, dst + j, mul(load_f32(f, dst + j), load_f32(f, src + j)))


def peak(f, i, n):
    """The largest of the n floats at i, 16 or more up to PEAK of which count;
    not a number if one of them is not finite."""
    top = splat_f32(-1e30)
    wrong = splat_f32(0.0)
    for j in range(0, min(n, PEAK), 16):
        v = first(load_f32(f, i + j), n - j, splat_f32(-1e30))
        top = largest(v, top)
        wrong = fma(v, splat_f32(0.0), wrong)
    return max_f32(top) + sum_f32(wrong)


# The cache of keys and values is made of pages of PAGE positions; a head's part of a page begins at o. A key lies there
# as (PAGE / 16, head_dim, 16), a value as (PAGE, head_dim). `position` counts from the page's first.


def keep_key(f, i, head_dim, k, o, position):
    """Put one head's key, the floats at i, into the cache in half precision."""
    tile = o + position // 16 * 16 * head_dim + position % 16
    for d in range(head_dim):
        put_f16(k, tile + d * 16, f[i + d])


def keep_value(f, i, head_dim, v, o, position):
    """Put one head's value, the floats at i, into the cache in half precision."""
    for d in range(0, head_dim, 16):
        store_f16(v, o + position * head_dim + d, load_f32(f, i + d))


def keep_key_32(f, i, head_dim, k, o, position):
    """The same in full."""
    tile = o + position // 16 * 16 * head_dim + position % 16
    for d in range(head_dim):
        k[tile + d * 16] = f[i + d]


def keep_value_32(f, i, head_dim, v, o, position):
    """The same in full."""
    for d in range(0, head_dim, 16):
        store_f32(v, o + position * head_dim + d, load_f32(f, i + d))


def keep_key_8(f, x, i, head_dim, k, scales, o, position):
    """The same in 8 bits, with one scale for all of the head; x at i is overwritten."""
    scales[o // head_dim + position] = shrink(f, x, i, head_dim)
    tile = o + position // 16 * 16 * head_dim + position % 16
    for d in range(head_dim):
        k[tile + d * 16] = x[i + d]


def keep_value_8(f, x, i, head_dim, v, scales, o, position):
    """The same in 8 bits, with one scale for all of the head; x at i is overwritten."""
    scales[o // head_dim + position] = shrink(f, x, i, head_dim)
    for d in range(head_dim):
        v[o + position * head_dim + d] = x[i + d]


def shrink(f, x, i, n):
    """x[i :] = the n floats at i in 8 bits; returns their scale, which is no number if one of them is not finite."""
    zero = splat_f32(0.0)
    top = zero
    wrong = zero
    for j in range(0, n, 16):
        top = largest(magnitude(load_f32(f, i + j)), top)
        wrong = fma(load_f32(f, i + j), zero, wrong)
    most = splat_f32(max_f32(top) + sum_f32(wrong))
    inverse = select_greater(most, zero, div(splat_f32(127.0), largest(most, splat_f32(1e-30))), zero)
    for j in range(0, n, 16):
        store_i8(x, i + j, round_i32(largest(mul(load_f32(f, i + j), inverse), splat_f32(-127.0))))
    return scalar(div(most, splat_f32(127.0)))
