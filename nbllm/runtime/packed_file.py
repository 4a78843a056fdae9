"""A file of packed weights: a header of one page and then the packed bytes; and a lock, which says who uses it.

One that a process has open or mapped is not deleted. Knows nothing of the folder that it is in, and of what is packed.
"""

import errno
import json
import os
import time
from contextlib import suppress

from ..paths import opened

try:
    import fcntl
except ImportError:  # Windows: a file that is open or mapped cannot be deleted there, which says the same as a lock
    fcntl = None

FORMAT = "nbllm packed weights"
HEADER = 4096  # bytes; a page, so that the packed bytes begin at one
ENDING, PART = ".packed", ".part"
YOUNG = 60  # seconds; a part may not have its lock yet


def header(key, size, model):
    """bytes: HEADER of them."""
    line = json.dumps({"format": FORMAT, "key": key, "size": size, "model": model}).encode()
    return line.ljust(HEADER - 1) + b"\n"


def read_header(file):
    """dict: what `header` wrote; empty if that is not there, or the file is not as long as it says."""
    try:
        told = json.loads(file.read(HEADER))
    except (ValueError, RecursionError):  # also of bytes that are not UTF-8, and of lists in lists
        return {}
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        return {}
    if not isinstance(told.get("size"), int) or not isinstance(told.get("model"), str):
        return {}
    return told if os.fstat(file.fileno()).st_size == HEADER + told["size"] else {}


def lock(file, shared=False):
    """Mark an open file as used by this process, until its last descriptor is closed, at the latest by its death.

    It never waits for another process: who has the lock is about to delete the file, or is no nbllm, and what is open
    stays readable."""
    if fcntl:
        with suppress(OSError):  # somebody has it; or a file system without locks
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def unlock(file):
    if fcntl:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_UN)


def protect(file):
    """Have a file (a path or a descriptor) that is mapped be read only: who cuts it ends the processes that use it."""
    if fcntl:  # elsewhere a mapped file cannot be cut, and one that may only be read cannot be deleted
        os.chmod(file, 0o400)


def delete(path):
    """Delete a file unless a process uses it; whether it is gone."""
    try:
        if path.suffix == PART and time.time() - path.stat().st_mtime < YOUNG:
            return False
        if fcntl is None:
            path.unlink()
            return True
        try:
            _delete_unused(path, "rb")
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            path.chmod(0o600)  # some network file systems lock only what may be written to
            try:
                _delete_unused(path, "r+b")
            except BlockingIOError:
                protect(path)
                raise
    except FileNotFoundError:
        return True
    except (BlockingIOError, PermissionError):
        return False
    return True


def _delete_unused(path, mode):
    with opened(path, mode) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
