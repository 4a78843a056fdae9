"""A file that is mapped to be read, where the system promises to say so before anybody cuts it or writes to it.

Whoever reads what was cut off a mapped file is ended by a signal. On Linux a lease keeps that from happening: one who
opens the file to write, or cuts it, is made to wait, for 45 seconds as a rule, and meanwhile the lease says that it
ends. On Windows what is mapped cannot be cut. Elsewhere nothing is mapped. Knows nothing of what is in the file.
"""

import mmap
import os
import signal
import sys
import weakref

import numpy as np

try:
    from fcntl import F_GETLEASE, F_RDLCK, F_SETLEASE, F_SETSIG, fcntl
except ImportError:  # macOS has no leases; Windows needs none
    fcntl = None


class Mapping(mmap.mmap):
    lease = None  # a descriptor that has one


def mapped(file, size, start):
    """The first `size` bytes of an open file from `start` on; the file may be closed.

    Returns
    -------
    uint8 (size - start,), or None
        Read-only. None if the file has fewer bytes, or the system makes no promise: then it is to be read.

    Raises
    ------
    OSError
        It cannot be mapped.
    """
    try:
        mapping = Mapping(file.fileno(), size, access=mmap.ACCESS_READ)
    except ValueError:  # it has fewer
        return None
    if sys.platform != "win32":
        mapping.lease = _leased(file)
        if mapping.lease is None:
            return None
        weakref.finalize(mapping, os.close, mapping.lease)
    return np.frombuffer(mapping, np.uint8, size - start, start)


def intact(data) -> bool:
    """Whether what `mapped` gave may be read for some seconds: the file has all its bytes, and nobody is about to
    change it. Asks the system, reads nothing; takes a microsecond."""
    mapping = data
    while not isinstance(mapping, Mapping):
        mapping = mapping.obj if isinstance(mapping, memoryview) else mapping.base
    ends = mapping.lease is not None and fcntl(mapping.lease, F_GETLEASE) != F_RDLCK
    return not ends and mapping.size() >= len(mapping)


def _leased(file):
    """A descriptor of the file with a lease on it; None if the system gives none: on macOS, on network file systems, of
    somebody else's file, or while it is written to."""
    if fcntl is None:
        return None
    descriptor = os.dup(file.fileno())
    try:
        fcntl(descriptor, F_SETSIG, signal.SIGURG)  # which is ignored; what comes by default ends the process
        fcntl(descriptor, F_SETLEASE, F_RDLCK)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
