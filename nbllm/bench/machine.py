"""What the machine is, and what it can do at most. Knows no model."""

import importlib
import os
import platform
import re
import time
from pathlib import Path

import numpy as np

from nbllm.runtime import ops

READ_BYTES = 1 << 28  # of the array that is read: far more than caches hold
OPS_PER_ROUND = 2 * 6 * 8 * 64  # of the kernel `multiply`, a multiplication and an addition each
SHARE = 256  # rounds that are shared out at a time; the kernel wants a multiple
TRIAL_SECONDS = 0.02
TRIALS = 15  # the best one counts: anything else that runs here only makes it slower


def limits(threads) -> dict[str, float]:
    """`read_limit` and `int8_limit`, named as in a report."""
    return {"read_bytes_s": read_limit(threads), "int8_ops_s": int8_limit(threads)}


def read_limit(threads) -> float:
    """Bytes per second that all threads together read from memory."""
    a = np.empty(READ_BYTES, np.uint8)
    a.fill(1)  # pages that were never written to would all be the same one
    out = np.zeros(threads * 16, np.float32)  # (threads, 16)
    return READ_BYTES / min(_seconds("read", a, np.zeros(1, np.int32), out, threads) for _ in range(TRIALS))


def int8_limit(threads) -> float:
    """Multiplications and additions of 8-bit numbers per second that all threads together make."""
    random = np.random.default_rng(0)
    w = random.integers(0, 16, 64, dtype=np.uint8)
    x = random.integers(-127, 128, 384).astype(np.int8)
    out = np.zeros(threads * 16, np.float32)  # (threads, 16)

    def seconds(rounds):
        return _seconds("multiply", w, x, np.zeros(1, np.int32), out, rounds, threads)

    rounds = SHARE * threads
    while seconds(rounds) < TRIAL_SECONDS:
        rounds *= 2
    return OPS_PER_ROUND * rounds / min(seconds(rounds) for _ in range(TRIALS))


def best_kernels() -> str:
    """The variant that this processor runs best, which the limits are measured with, whatever `NBLLM_ISA` says."""
    return ops.choose(ops.cpu_features(), ops.built()).name


def _seconds(kernel, *arguments):
    call = getattr(importlib.import_module(f"nbllm._kernels.{best_kernels()}.limits"), kernel)
    begun = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - begun


def describe() -> dict:
    """The processor and the system, and how many others want to run on it (its load): JSON values."""
    return {
        "processor": _processor(),
        "features": [name for name, has in ops.cpu_features().items() if has],
        "processors": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor():
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else []
    return names[0] if names else platform.processor() or platform.machine()
