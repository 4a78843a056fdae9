"""The vocabulary of the compute kernels: SIMD values of sixteen numbers, with their exact meaning in NumPy.

Kernels are plain Python over these functions. Run as they stand, they compute with the NumPy meaning below and are
their own oracle; compiled, each function becomes a few instructions (`native/VARIANT/lanes.hpp`). This file knows no
kernel and no instruction set.

Values: f32 and i32 hold 16 lanes; u8 holds 64 bytes, four to a lane; `acc` holds 16 running sums of small products.
Arrays are flat, and an index counts the array's own elements, whatever is read there.
"""

import numpy as np

LANES = 16
# functions that are called for their effect, on their first argument; all others are pure
WRITES = frozenset({"store_f32", "store_f16", "store_i8", "put_f16", "soon", "take", "barrier"})
IQ4_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)
FUSED = True  # whether `fma` rounds once: True wherever the processor has such an instruction


def _view(a, i, count, dtype):
    dtype = np.dtype(dtype)
    return a[i : i + count * dtype.itemsize // a.itemsize].view(dtype)


def wide():
    """Whether the processor has registers for eight tokens side by side, or else for four."""
    return False


# memory


def view(a):
    """The array a as the other functions take it: compiled, nothing but its address, which costs nothing to hand on."""
    return a


def soon(a, i):
    """What is at i, or would be in a longer array, will be needed soon: memory may begin to send it.
    Changes nothing."""


def load_u8(a, i):
    """The 64 bytes at i."""
    return _view(a, i, 64, np.uint8)


def load_f32(a, i):
    """The 16 floats at i."""
    return _view(a, i, 16, np.float32).copy()


def load_f16(a, i):
    """The 16 half-precision floats at i, widened."""
    return _view(a, i, 16, np.float16).astype(np.float32)


def load_bf16(a, i):
    """The 16 bfloat16 numbers at i, widened."""
    return (_view(a, i, 16, np.uint16).astype(np.uint32) << 16).view(np.float32)


def widen_u8(a, i):
    """The 16 unsigned bytes at i as an i32."""
    return _view(a, i, 16, np.uint8).astype(np.int32)


def widen_i8(a, i):
    """The 16 signed bytes at i as an i32."""
    return _view(a, i, 16, np.int8).astype(np.int32)


def store_f32(a, i, v):
    """a[i : i + 16] = v"""
    a[i : i + 16] = v


def store_f16(a, i, v):
    """The lanes rounded to half precision, into the uint16 array a at i."""
    with np.errstate(over="ignore"):
        a[i : i + 16] = v.astype(np.float16).view(np.uint16)


def store_i8(a, i, v):
    """The lanes of an i32 whose values fit in int8, into the int8 array a at i."""
    a[i : i + 16] = v.astype(np.int8)


def put_f16(a, i, x):
    """One float rounded to half precision, into the uint16 array a at i."""
    with np.errstate(over="ignore"):
        a[i] = np.float32(x).astype(np.float16).view(np.uint16)


# threads


def poll(a):
    """a[0] as it is in memory now, though another thread may write it."""
    return int(a[0])


def thread():
    """The number of the calling thread in its parallel region."""
    return 0


def team():
    """How many threads there are in the parallel region: perhaps fewer than were asked for."""
    return 1


def take(a, i, n):
    """a[i], to which n is added in the same moment: every caller gets the next n of a shared row of work."""
    taken = int(a[i])
    a[i] += n
    return taken


def barrier(a, stop, threads):
    """Wait until all threads are here. Every one of them gets the same answer: `poll(stop)` as the last to come saw it.

    a: int32 (5,), all 0 at first. Uncompiled, the caller is the only thread.
    """
    return poll(stop)


# 8-bit products


def bits(w, n, mask):
    """Some bits of every byte: (w >> n) & mask, where the mask leaves nothing of the byte above."""
    return w >> np.uint8(n) & np.uint8(mask)


def join(low, high, n):
    """Every byte low | high << n, which must fit in a byte."""
    return low | high << np.uint8(n)


def iq4(w):
    """The int8 values that IQ4_NL and IQ4_XS give to the codes 0 to 15, for every byte."""
    return IQ4_VALUES[w].view(np.uint8)


def zero_acc():
    """Sixteen empty sums."""
    return np.zeros(16, np.int32)


def dot4(acc, w, x, j):
    """acc[l] + the sum over c < 4 of w[4l+c] * x[j+c], for bytes w below 128 and an int8 array x within +-127.

    Some instruction sets sum in 16 bits: the largest w of all calls after one `zero_acc` may add up to 128 at most.
    """
    return acc + w.reshape(16, 4).astype(np.int32) @ x[j : j + 4].astype(np.int32)


def widen(acc):
    """The sums of `dot4` as an i32."""
    return acc


def zero_i8(total):
    """The start of `dot4_i8` sums, given the sum of all the x that will follow."""
    return np.zeros(16, np.int32)


def dot4_i8(acc, w, x, j):
    """As `dot4`, for bytes w that are int8 above -128; the sums are an i32 begun by `zero_i8`."""
    return acc + w.view(np.int8).reshape(16, 4).astype(np.int32) @ x[j : j + 4].astype(np.int32)


# arithmetic


def splat_i32(x):
    """Sixteen copies."""
    return np.full(16, x, np.int32)


def splat_f32(x):
    """Sixteen copies."""
    return np.full(16, x, np.float32)


def add_i32(a, b):
    """a + b, lane by lane."""
    return a + b


def and_i32(v, mask):
    """v & mask, lane by lane."""
    return v & np.int32(mask)


def shift_i32(v, n):
    """v >> n, lane by lane."""
    return v >> np.int32(n)


def to_f32(v):
    """An i32 as f32, rounded to nearest."""
    return v.astype(np.float32)


def round_i32(v):
    """An f32 within the range of int32 as i32, rounded to nearest, ties to even;
    any number for what is beyond, or no number."""
    with np.errstate(invalid="ignore"):
        return np.rint(v).astype(np.int32)


def add(a, b):
    """a + b, lane by lane."""
    return a + b


def sub(a, b):
    """a - b, lane by lane."""
    return a - b


def mul(a, b):
    """a * b, lane by lane."""
    return a * b


def div(a, b):
    """a / b, lane by lane."""
    return a / b


def sqrt(v):
    """The square root of every lane."""
    return np.sqrt(v)


def fma(a, b, c):
    """a * b + c, rounded once if FUSED, else after each operation."""
    if not FUSED:
        return a * b + c
    product = a.astype(np.float64) * b  # exact: 24 + 24 bits fit in 53
    wide = product + c
    # Rounding twice is rounding once if the first rounding is to odd (Boldo and Melquiond, 2008).
    from_c = wide - product
    error = (product - (wide - from_c)) + (c - from_c)
    bits = wide.view(np.int64)
    toward = np.where((error > 0) == (wide > 0), 1, -1)
    odd = np.where(np.isfinite(wide) & (error != 0) & (bits & 1 == 0), bits + toward, bits)
    return odd.view(np.float64).astype(np.float32)


def largest(a, b):
    """The larger of a and b, lane by lane; b where either is not a number."""
    return np.where(a > b, a, b)


def magnitude(v):
    """The absolute value of every lane."""
    return np.abs(v)


def select_greater(a, b, x, y):
    """x where a > b, else y."""
    return np.where(a > b, x, y)


def first(v, n, other):
    """v in lanes below n, `other` in the rest."""
    return np.where(np.arange(16) < n, v, other)


def pow2(n):
    """2 to the power of every lane of an i32 within -126 to 127."""
    return ((n + np.int32(127)) << np.int32(23)).view(np.float32)


# across lanes: halves are folded together until one is left


def sum_f32(v):
    """The sum of the lanes, as a scalar."""
    for n in (8, 4, 2, 1):
        v = v[:n] + v[n:]
    return v[0]


def max_f32(v):
    """The largest lane, as a scalar."""
    for n in (8, 4, 2, 1):
        v = largest(v[:n], v[n:])
    return v[0]


def scalar(v):
    """The first lane of an f32."""
    return v[0]


def sum_i32(v):
    """The sum of the lanes, as a scalar."""
    return int(v.sum(dtype=np.int32))
