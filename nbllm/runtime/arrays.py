"""Arrays for the kernels, which begin where a line of the processor's cache does. Knows nothing of what is in them."""

import numpy as np

LINE = 64  # bytes: also the widest vector, which is loaded in twice the time where it lies in two lines


def zeros(n: int, dtype) -> np.ndarray:
    """(n,) zeros, of which the system gives memory only as they are written."""
    size = n * np.dtype(dtype).itemsize
    raw = np.zeros(size + LINE, np.uint8)
    begin = -raw.ctypes.data % LINE
    return raw[begin : begin + size].view(dtype)
