"""Arrays for the kernels, which begin where a line of the processor's cache does. Knows nothing of what is in them."""

import mmap
import sys
from contextlib import suppress

import numpy as np

LINE = 64  # bytes: also the widest vector, which is loaded in twice the time where it lies in two lines
LARGE = 1 << 20  # bytes


def zeros(n: int, dtype) -> np.ndarray:
    """(n,) zeros, of which the system gives memory only as they are written.

    It has the memory of large ones back as soon as they are no more. C's allocator would keep some: it hands out again what
    was as large as that before, and fills it with zeros, so that all of it is there.

    Raises
    ------
    MemoryError
    """
    size = n * np.dtype(dtype).itemsize
    if size >= LARGE and sys.platform != "win32":
        return _mapped(size).view(dtype)
    raw = np.zeros(size + LINE, np.uint8)
    begin = -raw.ctypes.data % LINE
    return raw[begin : begin + size].view(dtype)


def _mapped(size):
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{size} bytes of memory are not to be had") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a system that has none
            memory.madvise(mmap.MADV_HUGEPAGE)  # as NumPy does
    return np.frombuffer(memory, np.uint8)
