"""The threads that compute beside the one that calls the kernels: whether the system lets this process start them.

OpenMP starts them at the first step that needs them, and ends the process where it cannot: a user's number of processes
(`ulimit -u`) has a limit, or a container's. So it is tried beforehand. Knows nothing of what they compute.
"""

import threading

from ..errors import CpuError

_here = threading.local()  # each thread that calls the kernels has its own: `count`, as of its last step


def start(target, name):
    """Start a thread that does not keep the process alive.

    Raises
    ------
    CpuError
        The system lets this process start no more.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        raise CpuError(
            "the system lets this process start no more threads (`ulimit -u`, or a container's limit): end other "
            "programs of yours, or raise the limit"
        ) from None
    return thread


def startable(count: int) -> int:
    """How many of so many compute threads there can be now: 1 at least, the one that calls."""
    go, started = threading.Event(), []
    try:
        for _ in range(2 * (count - 1)):  # twice, for those that end here may count for a moment longer
            started.append(start(go.wait, "nbllm trial"))
    except CpuError:
        pass
    finally:
        go.set()
        for thread in started:
            thread.join()
    return 1 + len(started) // 2


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
            f"the system lets this process compute on {can} of {count} threads here (`ulimit -u`, or a container's "
            f"limit): end other programs of yours, or load the model with threads={can}"
        )
    _here.count = count  # those that fewer do not need, OpenMP ends
