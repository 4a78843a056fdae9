"""Arrays for the kernels, which begin where a line of the processor's cache does. Knows nothing of what is in them."""

import mmap
import sys
from contextlib import suppress

import numpy as np

from ..errors import TooLargeError
from .memory import gb

LINE = 64  # bytes: also the widest vector, which is loaded in twice the time where it lies in two lines
LARGE = 1 << 20  # bytes


def zeros(n: int, dtype) -> np.ndarray:
    """(n,) zeros, of which the system gives memory only as they are written.

    It has the memory of large ones back as soon as they are no more. C's allocator would keep some: it hands out again
    what was as large as that before, and fills it with zeros, so that all of it is there.

    Raises
    ------
    TooLargeError
        There is no such memory.
    """
    size = n * np.dtype(dtype).itemsize
    try:
        if size >= LARGE and sys.platform != "win32":
            return _mapped(size).view(dtype)
        raw = np.zeros(size + LINE, np.uint8)
    except (OSError, MemoryError):
        raise TooLargeError(
            f"the system has not the {gb(size)} of memory that are needed now: "
            "free some, or load with a smaller context"
        ) from None
    begin = -raw.ctypes.data % LINE
    return raw[begin : begin + size].view(dtype)


def _mapped(size):
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a system that has none
            memory.madvise(mmap.MADV_HUGEPAGE)  # as NumPy does
    return np.frombuffer(memory, np.uint8)
