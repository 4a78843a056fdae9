"""A kernel that applies every function of the vocabulary to arrays: compiled, it is compared with itself as it stands.

Not part of nbllm. What it is applied to is in `kernel_runs.py`.
"""

from lanes import (
    add,
    add_i32,
    and_i32,
    bits,
    div,
    dot4,
    dot4_i8,
    first,
    fma,
    iq4,
    join,
    largest,
    load_bf16,
    load_f16,
    load_f32,
    load_u8,
    magnitude,
    max_f32,
    mul,
    pow2,
    put_f16,
    round_i32,
    scalar,
    select_greater,
    shift_i32,
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
    view,
    widen,
    widen_i8,
    widen_u8,
    zero_acc,
    zero_i8,
)


# pythran export floats(float32[:], float32[:], float32[:], float32[:], int)
def floats(a, b, c, out, n):
    """out (13, n): what is made of three arrays of n floats, sixteen at a time."""
    for i in range(0, n, 16):
        x = load_f32(a, i)
        y = load_f32(b, i)
        z = load_f32(c, i)
        store_f32(out, i, add(x, y))
        store_f32(out, n + i, sub(x, y))
        store_f32(out, 2 * n + i, mul(x, y))
        store_f32(out, 3 * n + i, div(x, y))
        store_f32(out, 4 * n + i, sqrt(x))
        store_f32(out, 5 * n + i, fma(x, y, z))
        store_f32(out, 6 * n + i, largest(x, y))
        store_f32(out, 7 * n + i, magnitude(x))
        store_f32(out, 8 * n + i, select_greater(x, y, z, x))
        store_f32(out, 9 * n + i, first(x, i // 16 % 40 - 10, y))
        store_f32(out, 10 * n + i, splat_f32(sum_f32(z)))
        store_f32(out, 11 * n + i, splat_f32(max_f32(x)))
        store_f32(out, 12 * n + i, splat_f32(scalar(x)))


# pythran export halves(uint16[:], float32[:], float32[:], uint16[:], int)
def halves(h, a, out, narrow, n):
    """out (2, n): the numbers h as half precision and as bfloat16; narrow (2, n): the floats a in half precision,
    by either way."""
    for i in range(0, n, 16):
        store_f32(out, i, load_f16(h, i))
        store_f32(out, n + i, load_bf16(h, i))
        store_f16(narrow, i, load_f32(a, i))
        for j in range(16):
            put_f16(narrow, n + i + j, a[i + j])


# pythran export integers(float32[:], uint8[:], float32[:], int8[:], int32[:], int)
def integers(a, w, out, small, sums, n):
    """Of n floats a within int32 and n bytes w: out (7, n), small (n,) int8, sums (n / 16,)."""
    for i in range(0, n, 16):
        v = round_i32(load_f32(a, i))
        store_f32(out, i, to_f32(v))
        store_f32(out, n + i, to_f32(add_i32(v, splat_i32(i))))
        store_f32(out, 2 * n + i, to_f32(and_i32(v, 63)))
        store_f32(out, 3 * n + i, to_f32(shift_i32(v, 4)))
        store_f32(out, 4 * n + i, to_f32(widen_u8(w, i)))
        store_f32(out, 5 * n + i, to_f32(widen_i8(w, i)))
        low = round_i32(mul(load_f32(a, i), splat_f32(1.17e-7)))
        store_i8(small, i, low)
        store_f32(out, 6 * n + i, pow2(low))
        sums[i // 16] = sum_i32(low)


# pythran export products(uint8[:], int8[:], float32[:], int)
def products(bytes, int8s, out, n):
    """out (5, n): products of 32 n bytes w with 2 n bytes x, eight blocks of 64 with four to a sum;
    n a multiple of 16."""
    w = view(bytes)
    x = view(int8s)
    for i in range(0, n, 16):
        low = zero_acc()
        high = zero_acc()
        total = 0
        for j in range(32):
            total += x[2 * i + j]
        whole = zero_i8(total)
        table = zero_i8(total)
        for v in range(8):
            j = 2 * i + 4 * v
            q = load_u8(w, 32 * i + 64 * v)
            low = dot4(low, bits(q, 0, 15), x, j)
            high = dot4(high, bits(q, 4, 15), x, j)
            whole = dot4_i8(whole, q, x, j)
            table = dot4_i8(table, iq4(bits(q, 4, 15)), x, j)
        joined = zero_acc()
        for v in range(2):
            q = load_u8(w, 32 * i + 64 * v)
            joined = dot4(joined, join(bits(q, 0, 15), bits(q, 6, 3), 4), x, 2 * i + 4 * v)
        store_f32(out, i, to_f32(widen(low)))
        store_f32(out, n + i, to_f32(widen(high)))
        store_f32(out, 2 * n + i, to_f32(whole))
        store_f32(out, 3 * n + i, to_f32(table))
        store_f32(out, 4 * n + i, to_f32(widen(joined)))
