"""What a process has in memory, and what of a file is there. Knows no model.

Only Linux tells; elsewhere the answer is None.
"""

import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path

LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Memory:
    """Bytes in memory: of this process alone; and of files, which the system can drop and other processes share."""

    private: int
    mapped: int

    def __or__(self, other):
        """The larger of each."""
        return Memory(max(self.private, other.private), max(self.mapped, other.mapped)) if other else self


def of(pid="self") -> Memory | None:
    """What a process has in memory now; None also if it has ended."""
    sizes = _numbers(pid, "smaps_rollup", r"^(\w+): +(\d+) kB$")
    return Memory(sizes["Anonymous"] * 1024, (sizes["Rss"] - sizes["Anonymous"]) * 1024) if sizes else None


def from_disk(pid="self") -> int | None:
    """Bytes that were fetched from a disk for a process so far."""
    return _numbers(pid, "io", r"^(\w+): (\d+)$").get("read_bytes")


def _numbers(pid, file, pattern):
    try:
        text = Path(f"/proc/{pid}/{file}").read_text()
    except OSError:  # another system, or the process has gone
        return {}
    return {name: int(number) for name, number in re.findall(pattern, text, re.MULTILINE)}


class Peak:
    """The most that another process has in memory while this context lasts, looked at several times a second.

    Attributes
    ----------
    memory : Memory or None
    """

    def __init__(self, pid):
        self.memory = None
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self):
        while not self._ended.wait(LOOK_SECONDS):
            if now := of(self._pid):
                self.memory = now | self.memory

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._ended.set()
        self._thread.join()


def forget(path):
    """Ask the system to drop a file from its page cache. It may decline, and not every system can be asked."""
    if hasattr(os, "posix_fadvise"):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)  # pages that are not on the disk yet cannot be dropped
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)
