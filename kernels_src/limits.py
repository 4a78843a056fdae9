"""What this machine can do at most: read memory, and multiply 8-bit numbers.

Each kernel keeps all threads busy with one thing and nothing else; timed, they give the limits that a model's speed is
held against. Knows no model and no clock.
"""

from lanes import (
    add,
    add_i32,
    dot4,
    largest,
    load_f32,
    load_u8,
    splat_f32,
    store_f32,
    take,
    thread,
    to_f32,
    widen,
    zero_acc,
)

STRETCH = 1 << 18  # bytes that a thread reads at a time
SHARE = 256  # rounds of products that it takes at a time


def stretches(a, work):
    """The largest of the floats that this thread reads:
    one operation a register, so that reading is all that counts."""
    m0 = load_f32(a, 0)
    m1 = load_f32(a, 0)
    m2 = load_f32(a, 0)
    m3 = load_f32(a, 0)
    n = a.shape[0] // STRETCH
    s = take(work, 0, 1)
    while s < n:
        for i in range(s * STRETCH, (s + 1) * STRETCH, 256):
            m0 = largest(load_f32(a, i), m0)
            m1 = largest(load_f32(a, i + 64), m1)
            m2 = largest(load_f32(a, i + 128), m2)
            m3 = largest(load_f32(a, i + 192), m3)
        s = take(work, 0, 1)
    return largest(largest(m0, m1), largest(m2, m3))


# pythran export read(uint8[:], int32[:], float32[:], int)
def read(a, work, out, threads):
    """Read all of a once.

    Parameters
    ----------
    a : uint8, a multiple of STRETCH; the bytes of floats
    work : (1,) int32, 0 at first
    out : (threads, 16) float32; each thread leaves the largest of what it read, lane by lane, in its row
    threads : int
    """
    #omp parallel num_threads(threads)
    if 1:
        store_f32(out, 16 * thread(), stretches(a, work))


def products(q, x, j):
    """Six sums of eight products each: they do not wait for each other,
    and fit in the registers of every instruction set."""
    a0 = zero_acc()
    a1 = zero_acc()
    a2 = zero_acc()
    a3 = zero_acc()
    a4 = zero_acc()
    a5 = zero_acc()
    for v in range(8):
        a0 = dot4(a0, q, x, j + 4 * v)
        a1 = dot4(a1, q, x, j + 64 + 4 * v)
        a2 = dot4(a2, q, x, j + 128 + 4 * v)
        a3 = dot4(a3, q, x, j + 192 + 4 * v)
        a4 = dot4(a4, q, x, j + 256 + 4 * v)
        a5 = dot4(a5, q, x, j + 320 + 4 * v)
    s0 = add_i32(widen(a0), widen(a1))
    s1 = add_i32(widen(a2), widen(a3))
    s2 = add_i32(widen(a4), widen(a5))
    return add_i32(add_i32(s0, s1), s2)


def shares(w, x, work, rounds):
    q = load_u8(w, 0)
    total = splat_f32(0.0)
    r = take(work, 0, SHARE)
    while r < rounds:
        s = products(q, x, 0)
        for i in range(1, SHARE):
            # Never the same operands twice in a row, or the compiler would multiply once.
            s = add_i32(s, products(q, x, i % 8 * 4))
        total = add(total, to_f32(s))
        r = take(work, 0, SHARE)
    return total


# pythran export multiply(uint8[:], int8[:], int32[:], float32[:], int, int)
def multiply(w, x, work, out, rounds, threads):
    """Multiply and add `rounds` times 6 * 8 * 64 pairs of 8-bit numbers that are at hand already.

    Parameters
    ----------
    w : (64,) uint8, below 16
    x : (384,) int8, within +-127
    work : (1,) int32, 0 at first
    out : (threads, 16) float32; each thread leaves its sums in its row
    rounds : int, a multiple of SHARE
    threads : int
    """
    #omp parallel num_threads(threads)
    if 1:
        store_f32(out, 16 * thread(), shares(w, x, work, rounds))
