"""The kernels that measure the machine: compiled, they compute what the uncompiled ones do,
so they did all the work."""

from importlib import import_module

import numpy as np
import pytest

from nbllm.runtime import ops

RUNNABLE = [
    variant.name
    for variant in ops.VARIANTS
    if variant.name in ops.built() and all(map(ops.cpu_features().get, variant.needs))
]
MACHINES = [("python", 1)] + [(name, threads) for name in RUNNABLE for threads in (1, 2, 3)]

pytestmark = pytest.mark.parametrize(("variant", "threads"), MACHINES)


def limits(variant):
    return import_module(f"nbllm._kernels.{variant}.limits")


def test_reading_sees_every_number(variant, threads):
    random = np.random.default_rng(1)
    stretch = import_module("nbllm._kernels.python.limits").STRETCH
    a = random.standard_normal((5 * stretch // 64, 16), np.float32)
    for lane in range(16):  # the largest of a lane is now in the first stretch, now in the last
        a[len(a) - 1 if lane % 2 else lane, lane] = 100 + lane
    work, out = np.zeros(1, np.int32), np.full((threads, 16), -np.inf, np.float32)
    limits(variant).read(a.ravel().view(np.uint8), work, out.ravel(), threads)
    np.testing.assert_array_equal(out.max(0), a.max(0))


def test_every_product_is_made(variant, threads):
    random = np.random.default_rng(2)
    rounds = 512
    w = random.integers(0, 16, 64, dtype=np.uint8)
    x = random.integers(-127, 128, 384).astype(np.int8)
    work, out = np.zeros(1, np.int32), np.zeros((threads, 16), np.float32)
    limits(variant).multiply(w, x, work, out.ravel(), rounds, threads)
    x = np.lib.stride_tricks.sliding_window_view(x.astype(np.int64), 32)[
        np.arange(6)[:, None] * 64 + np.arange(8) * 4
    ]  # (sums, rounds, 32)
    expected = w.reshape(16, 4).astype(np.int64) @ x.reshape(6, 8, 8, 4).sum((0, 1, 2)) * (rounds // 8)
    np.testing.assert_array_equal(out.sum(0), expected)
