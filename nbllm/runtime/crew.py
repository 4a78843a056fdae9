"""The threads that compute beside the one that calls the kernels: whether the system lets this process start them.

OpenMP starts them at the first step that needs them, and ends the process where it cannot: a user's number of processes
(`ulimit -u`) has a limit, or a container's, or the memory for their stacks. So it is tried beforehand, with stacks as
large as OpenMP's. Knows nothing of what they compute.
"""

import _thread
import os
import re
import threading
from contextlib import contextmanager

from ..errors import CpuError

STACKS = "OMP_STACKSIZE", "GOMP_STACKSIZE", "KMP_STACKSIZE"  # of OpenMP's threads; which of them counts, it decides
UNITS = {"B": 1, "": 1 << 10, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
LEAST_STACK = 1 << 20  # bytes that a thread needs in which compiled code of all kinds runs
PATIENCE = 10  # seconds that a thread may take to begin: one that the system has no memory for never does

_here = threading.local()  # each thread that calls the kernels has its own: `count`, as of its last step
_sizing = threading.Lock()  # around the size of stacks, which is the process's


def _forked():
    global _sizing
    _sizing = threading.Lock()  # whoever had it may not be here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def start(target, name):
    """Start a thread that does not keep the process alive, with a stack that is large enough whatever the user's
    threads have.

    Raises
    ------
    CpuError
        The system lets this process start no more.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        with _stacks(lambda size: size and max(size, LEAST_STACK)):
            thread.start()
    except RuntimeError:
        raise CpuError(f"{limits()}: end other programs of yours, or raise the limit") from None
    return thread


def startable(count: int) -> int:
    """How many of so many compute threads there can be now: 1 at least, the one that calls."""
    came, go, ends = _taken(), _taken(), []
    with _stacks(lambda size: stack_size()):
        try:
            for _ in range(2 * (count - 1)):  # twice, for those that end here may count for a moment longer
                end = _taken()
                _thread.start_new_thread(_stay, (came, go, end))
                if not came.acquire(timeout=PATIENCE):
                    break
                ends.append(end)
        except (RuntimeError, MemoryError):  # so many and no more
            pass
        finally:
            go.release()
            for end in ends:
                end.acquire(timeout=PATIENCE)
    return 1 + len(ends) // 2


def _stay(came, go, end):
    """What a thread does that is only tried. Locks alone, which take no memory: there may be none."""
    came.release()
    with go:
        pass
    end.release()


def _taken():
    lock = _thread.allocate_lock()
    lock.acquire()
    return lock


def ready(count: int):
    """To be called before each step, by the thread that calls the kernels: so many are there, or can be started.

    Raises
    ------
    CpuError
        They cannot.
    """
    had = getattr(_here, "count", 1)
    if count > had and (can := startable(count)) < count:
        raise CpuError(
            f"this process can compute on {can} of {count} threads here, for {limits()}: end other programs of yours, "
            f"or load the model with threads={can}"
        )
    _here.count = count  # those that fewer do not need, OpenMP ends


def limits() -> str:
    """Why no more threads can be started, in words: what may limit them."""
    asked = [f"{name}={os.environ[name].strip()}" for name in STACKS if _bytes(os.environ.get(name, "")) is not None]
    return (
        f"the system lets this process start no more threads ({', '.join(['`ulimit -u`', *asked])}, or a container's "
        "limit)"
    )


def stack_size() -> int:
    """Bytes of the stacks of OpenMP's threads, at most; 0 for the system's own."""
    return max(_bytes(os.environ.get(name, "")) or 0 for name in STACKS)


def _bytes(text):
    """What the OpenMP specification says of it: a number, in kB unless a letter follows. None if it says nothing."""
    said = re.fullmatch(r"\s*\+?(\d{1,18})\s*([BKMG]?)\s*", text, re.ASCII | re.IGNORECASE)
    return said and int(said[1]) * UNITS[said[2].upper()]


@contextmanager
def _stacks(resized):
    """Within, threads are started with stacks of a size that is made of the one that is set."""
    with _sizing:
        before = threading.stack_size()  # which sets it to 0
        try:
            try:
                threading.stack_size(resized(before))
            except (ValueError, OverflowError):  # none that there can be: nor has OpenMP such a one
                threading.stack_size(0)
            yield
        finally:
            threading.stack_size(before)
