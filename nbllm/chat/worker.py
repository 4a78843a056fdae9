"""The one thread that loads models and runs generations, and the handle by which another thread follows a job.

Knows nothing of models, prompts or outputs: a job is a generator function, its events are passed on as they are.
"""

import contextlib
import queue
import threading
import traceback
from collections import deque
from dataclasses import dataclass

from nbllm.errors import NbLLMError
from nbllm.runtime import crew
from nbllm.runtime.events import StopFlag

# How often a wait looks up, in seconds: a lock that waits cannot be interrupted on Windows, and elsewhere a signal that
# comes just before the lock does is seen only when the wait ends.
WAIT = 0.1
GONE = "the thread that runs models has ended in this process; restart the Jupyter kernel"


@dataclass(frozen=True)
class Queued:
    """The job waits for its turn; so many come before it. Told when it is submitted and whenever one of these has
    ended."""

    ahead: int


class Handle:
    """A submitted job, as the thread that follows it sees it.

    Iterate to get the job's events as they come; the iteration ends with the job, and raises what the job raised.
    A KeyboardInterrupt while waiting loses nothing: iterate on to get the rest. One thread follows a job at a time.

    Attributes
    ----------
    events : list
        All events so far, from the first; those of waiting (`Queued`) among them.
    """

    def __init__(self, worker: threading.Thread, follower=None):
        self.events = []
        self._worker = worker
        self._follower = follower
        self._flag = StopFlag()
        self._read = 0  # how many of the events the follower has had
        self._error = None
        self._ended = False
        # Only wakes the follower: what counts is in the fields above, so an interrupt that hits between a `get` and
        # the next line loses no event. SimpleQueue, since its waiting is written in C and leaves no lock held.
        self._wake = queue.SimpleQueue()

    def __iter__(self):
        return self

    def __next__(self):
        assert threading.current_thread() is not self._worker, "a job that waits for a job would wait forever"
        while True:
            ended = self._ended  # looked at before the events: the last event comes before the end
            if self._read < len(self.events):
                self._read += 1
                return self.events[self._read - 1]
            if ended:
                raise self._error or StopIteration
            self.check()
            with contextlib.suppress(queue.Empty):
                self._wake.get(timeout=WAIT)

    def check(self):
        """NbLLMError if the job can never end, for its worker is not there: in a fork of this process, for instance."""
        if not self._worker.is_alive() and not self._ended:
            raise NbLLMError(GONE)

    @property
    def ended(self) -> bool:
        return self._ended

    def stop(self):
        """Ask the job to stop, from any thread. It ends by itself, with its last events; a queued job when its turn
        comes."""
        self._flag.set()

    def wait(self) -> list:
        """Wait for the end of the job and return all its events; raises what the job raised."""
        for _ in self:
            pass
        return self.events

    def _run(self, job):
        """Returns what the job raised, or None."""
        assert threading.current_thread() is self._worker
        try:
            with contextlib.closing(job(self._flag)) as events:
                for event in events:
                    self._tell(event)
        except BaseException as error:  # the thread goes on; the follower gets it
            # What the job had at hand, a model perhaps, ends now: the error is kept, and refers to it in a circle.
            traceback.clear_frames(error.__traceback__)
            return error

    def _tell(self, event):
        self.events.append(event)
        self._wake.put(None)
        if self._follower is not None:
            self._follower.event(event)

    def _end(self, error=None):
        self._error = error
        self._ended = True
        self._wake.put(None)
        if self._follower is not None:
            self._follower.end(error)


class Worker:
    """Runs jobs one at a time, in the order they were submitted.

    Thread rules
    ------------
    - Only the worker's thread runs jobs, and only jobs touch a model, its cache and the conversation while they run.
      A job's generator is started, continued and closed there.
    - Any thread may `submit`, and `stop` any handle. One thread at a time iterates over a handle, never the worker's.
    - All that crosses threads is events, which are immutable, and the stop flag, one word of memory.
    - A follower that no longer wants to wait, for a model that is loading for instance, may just leave: the job goes
      on to its end, and what it made is kept by whoever the job gave it to.
    """

    def __init__(self):
        self._jobs = queue.SimpleQueue()  # of (job, handle); None ends the thread
        self._waiting = deque()  # handles that have not ended, in order; the first runs, or is about to
        self._current = None
        self._closed = False
        self._lock = threading.Lock()  # around what must not happen between `submit` and `close`
        self._thread = crew.start(self._run, "nbllm worker")

    def submit(self, job, follower=None) -> Handle:
        """Queue a job: a generator function that is given the stop flag and yields events.

        follower : who is told everything at once, by the methods `event(event)` and `end(error or None)`. They are
        called on the worker's thread, but for the first `Queued`, and must not raise.

        Raises
        ------
        NbLLMError
            The worker was closed, or this process is a fork of the one that started it.
        """
        handle = Handle(self._thread, follower)
        with self._lock:
            if self._closed or not self._thread.is_alive():
                raise NbLLMError(GONE)
            if self._waiting:
                handle._tell(Queued(len(self._waiting)))
            self._waiting.append(handle)
            self._jobs.put((job, handle))
        return handle

    def close(self, timeout=5.0) -> bool:
        """Stop the running job, drop the queued ones, end the thread; False if it had not ended after `timeout` s."""
        assert threading.current_thread() is not self._thread
        with self._lock, contextlib.suppress(queue.Empty):  # which is when none waits any more
            again, self._closed = self._closed, True
            while not again:
                _, handle = self._jobs.get_nowait()
                handle._end(NbLLMError("not run: the thread that runs models was closed"))
        self._jobs.put(None)
        current = self._current
        if current:
            current.stop()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self):
        while self._run_next():
            pass

    def _run_next(self):
        """Run one job. A method of its own, so that while waiting nothing of the last job is kept in memory."""
        item = self._jobs.get()
        if item is None:
            return False
        job, self._current = item
        if self._closed:  # between the `get` and here
            self._current.stop()
        handle = self._current
        error = handle._run(job)
        self._current = None
        with self._lock:  # before its end is told: whoever submits because of it does not wait for it
            self._waiting.popleft()
        handle._end(error)
        with self._lock:
            for ahead, other in enumerate(self._waiting):
                if ahead and not other.ended:  # the first is next
                    other._tell(Queued(ahead))
        return True
