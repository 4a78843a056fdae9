"""Watches a process: memory, threads, open files, and how much the memory grows. Knows nothing of what it does."""

import os
import threading
import time
from dataclasses import dataclass

import numpy as np
import psutil

MB = 1e6


@dataclass(frozen=True)
class Sample:
    hours: float
    resident: float  # MB, with files that are mapped
    own: float  # MB, without them
    threads: int
    files: int

    def __str__(self):
        memory = f"{self.resident:.0f} MB resident, {self.own:.0f} MB of them its own"
        return f"{memory}, {self.threads} threads, {self.files} open files"


class Watch:
    """Prints a line a minute, on a thread of its own, so that one sees when nothing goes on any more.

    Parameters
    ----------
    pid : callable
        Gives the process that is watched now.
    done : callable
        Gives what was done so far, in words.
    """

    def __init__(self, pid, done, every=60):
        self._pid, self._done, self._every = pid, done, every
        self._begun = time.monotonic()
        self._end = threading.Event()
        self.samples = []  # one a minute, whatever goes on
        self.at_rest = []  # in one and the same state
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def hours(self):
        return (time.monotonic() - self._begun) / 3600

    def sample(self):
        process = psutil.Process(self._pid())
        memory = process.memory_info()
        own = memory.rss - getattr(memory, "shared", 0)
        return Sample(self.hours(), memory.rss / MB, own / MB, process.num_threads(), process.num_fds())

    def rest(self, heap):
        """Note the state that is the same each time.

        heap : what C's allocator has given out and what it keeps, MB; None if it does not say
        """
        self.at_rest.append(self.sample())
        told = f"; of C's allocator {heap[0]:.0f} MB in use and {heap[1]:.0f} MB kept" if heap else ""
        print(f"at rest: {self.at_rest[-1]}{told}", flush=True)

    def close(self):
        self._end.set()

    def _run(self):
        while not self._end.wait(self._every):
            try:
                self.samples.append(self.sample())
            except psutil.Error as error:
                print(f"{self.hours():.3f} h: {self._done()}; the process is not there: {error}", flush=True)
                continue
            now = f"{self.hours():.3f} h: {self._done()}; {self.samples[-1]}"
            print(f"{now}; load {os.getloadavg()[0]:.1f}", flush=True)


def growth(samples):
    """MB an hour that the process's own memory grew in the second half, by a straight line; None of too few."""
    half = samples[len(samples) // 2 :]
    if len(half) < 3:
        return None
    return float(np.polyfit([each.hours for each in half], [each.own for each in half], 1)[0])


def summary(samples):
    """First, last and most of each number; a line each."""
    for name in ("resident", "own", "threads", "files"):
        values = [getattr(sample, name) for sample in samples]
        yield f"  {name}: first {values[0]:.0f}, last {values[-1]:.0f}, most {max(values):.0f}"
