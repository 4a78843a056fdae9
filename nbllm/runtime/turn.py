"""A turn to compute: one thread at a time has it, in the process that loaded the model, until that ends.

Threads that met in the kernels would wait for each other for ever, and Python's end would end a thread within them,
and the process with it, by a signal. Knows nothing of what is computed.
"""

import atexit
import os
import threading
import weakref

from ..errors import NbLLMError
from .crew import ready

PATIENCE = 10  # seconds that the end of the process waits for a step, which looks at its flag many times a second
_turns = set()  # weak references to all that there are
_ending = False


class Turn:
    """An engine's turn, to be entered by `with turn.wanted():`, and then begun and ended.

    The lock itself is what `with` enters: no interrupt comes between taking it and what gives it back.

    Parameters
    ----------
    threads : int
        How many compute.
    among : Turn, optional
        Of another engine of the same model: only one of them computes at a time.

    Attributes
    ----------
    closed : bool
    """

    def __init__(self, threads, among=None):
        self.closed = False
        self._threads, self._process, self._stop = threads, os.getpid(), None
        self._lock = among._lock if among else threading.Lock()
        _turns.add(weakref.ref(self, _turns.discard))

    def wanted(self):
        """The lock; does not wait for another thread that computes.

        Raises
        ------
        NbLLMError
            There is one, or this process is a fork that cannot compute.
        """
        locked = self._lock.locked()
        if self._process != (process := os.getpid()):
            if self._threads > 1 or locked:
                raise NbLLMError(
                    "the model was loaded before this process was forked, and its threads are not here; load it with "
                    "threads=1, or load it in a process started by multiprocessing's 'spawn'"
                )
            self._process = process
        if locked:
            raise NbLLMError(
                "the model is in use by another thread, and one at a time can use it; wait for that one, give many "
                "prompts to nbllm.map, or load the model once more"
            )
        return self._lock

    def begin(self, stop=None):
        """To be called before anything is computed or changed, by whoever has the lock.

        stop : the flag by which the end of the process, or of the engine, stops it.

        Raises
        ------
        NbLLMError
            The engine was closed, or Python is ending.
        CpuError
            The threads cannot be started.
        """
        self._stop = stop  # before the next lines: either they see the end, or the end sees the flag
        if self.closed:
            raise NbLLMError("the model was closed; load it again with nbllm.load")
        if _ending:
            raise NbLLMError("Python is ending, and the model computes no more; wait for its replies before that")
        ready(self._threads)

    def end(self):
        self._stop = None

    def close(self):
        """Stop what is running, and let no more begin; the lock if nothing is running now, or else None: then whoever
        has it sees that the engine was closed."""
        self.closed = True
        if self._stop is not None:
            self._stop.set()
        return None if self._lock.locked() else self._lock

    def _leave(self):
        """Have a running step end, and wait for that."""
        if self._process != os.getpid():
            return  # whoever was running is not in this fork
        if self._stop is not None:
            self._stop.set()
        if self._lock.acquire(timeout=PATIENCE):
            self._lock.release()


@atexit.register
def _end():
    """Python ends threads where they come back from compiled code, which C++ code does not survive: none is to be
    there."""
    global _ending
    _ending = True
    for turn in filter(None, [each() for each in _turns.copy()]):
        turn._leave()
