"""The cache of packed weights: files in a folder of the user's, found by their content's key and never changed.

A file (`packed_file.py`) is written under another name and renamed when it is whole and on the disk, so whatever has
its name is whole: a process that was killed leaves a part behind, which the next one deletes, and no one ever maps a
file that nbllm makes shorter; nor does anyone else by mistake, for it may only be read. Two processes may write the
same file at once; one of them is then used by both. When room is needed, the files go that were not used for the
longest time, but none that a process has open or mapped. Knows nothing of models or layouts: keys and bytes are given
to it.
"""

import errno
import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import CpuError, OptionError
from ..paths import expanded, opened, own
from .crew import start
from .events import Packing
from .packed_file import ENDING, HEADER, PART, delete, header, lock, protect, read_header, unlock

DEFAULT_LIMIT = 20 * 10**9  # bytes, unless a tenth of the disk is less
RESERVE = 10**9  # bytes of the disk that stay free
INSTEAD = "set NBLLM_CACHE to another folder, or to off"
SYNC = 1 << 24  # bytes written to the disk at a time, while the next are packed


@dataclass(frozen=True)
class Entry:
    """A file of the cache.

    Attributes
    ----------
    path : Path
    size : int
        Bytes.
    used : float
        When it was used last, in seconds as of `time.time`.
    model : str or None
        The model it was made for; None for one that is not whole.
    """

    path: Path
    size: int
    used: float
    model: str | None


def folder() -> Path | None:
    """Where the cache is: `NBLLM_CACHE`, or `nbllm/packed` in the system's place for caches; None when it is `off`.

    Raises
    ------
    OSError
        It would be in a home folder, and there is none.
    """
    given = os.environ.get("NBLLM_CACHE")
    if given and given.lower() == "off":
        return None
    if given:
        return expanded(given, FileNotFoundError, INSTEAD)
    return own("cache", FileNotFoundError, INSTEAD) / "packed"


def limit(folder: Path) -> int:
    """Bytes that the cache may take: `NBLLM_CACHE_GB`, or 20 GB, or a tenth of the disk if that is less."""
    given = os.environ.get("NBLLM_CACHE_GB")
    if not given:
        return min(DEFAULT_LIMIT, _disk(folder).total // 10)
    try:
        gigabytes = float(given)
    except ValueError:
        gigabytes = -1
    if not 0 <= gigabytes < 1e9:
        raise OptionError(f"NBLLM_CACHE_GB={given!r} is not a number of gigabytes.")
    return int(gigabytes * 1e9)


def entries(folder: Path) -> list[Entry]:
    """The files of the cache, the one that was not used for the longest time first.

    Raises
    ------
    OSError
        The folder is there and cannot be looked into.
    """
    found = []
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    for file_path in (folder / name for name in names if name.endswith((ENDING, PART))):
        with suppress(OSError):  # another process deleted it meanwhile
            if os.path.isfile(file_path):
                status = file_path.stat()
                found.append(Entry(file_path, status.st_size, status.st_mtime, _model(file_path)))
    return sorted(found, key=lambda entry: entry.used)


def _model(file_path):
    try:
        with opened(file_path) as file:
            return read_header(file).get("model")
    except PermissionError:  # another user's; it takes room all the same
        return None


def clear(folder: Path, model: str | None = None) -> tuple[list[Entry], list[Entry]]:
    """Delete the files of this model, or all: those that are gone now, and those that a process uses and that stay."""
    gone, kept = [], []
    for entry in entries(folder):
        if model in (None, entry.model):
            (gone if delete(entry.path) else kept).append(entry)
    return gone, kept


def path(folder: Path, key: str) -> Path:
    """Where the packed bytes with this key are, if they are in the cache."""
    return folder / (key + ENDING)


def find(folder: Path, key: str, size: int):
    """The file of the packed bytes with this key.

    Returns
    -------
    file, or None
        Open, at the first of `size` bytes, which are behind HEADER others; the caller closes it. As long as it is open,
        or mapped, it stays. None if they are not in the cache, or damaged there.

    Raises
    ------
    OSError
        They are there and cannot be read.
    """
    place = path(folder, key)
    try:
        file = opened(place)
    except FileNotFoundError:
        return None
    try:
        lock(file, shared=True)  # until the last copy of the descriptor is closed; a mapping has one
        told = read_header(file)
    except BaseException:
        file.close()
        raise
    if (told.get("key"), told.get("size")) != (key, size):
        file.close()
        return None
    with suppress(OSError):  # a cache that may only be read: then it is not ours to keep in order
        os.utime(place)
    return file


def pieces(file, size: int):
    """What a file that `find` gave has, where it cannot be mapped: yields uint8 (n,), `size` bytes in all.

    Raises
    ------
    OSError
        It is shorter by now, or cannot be read.
    """
    while size:
        piece = np.empty(min(size, SYNC), np.uint8)
        if file.readinto(piece) < piece.size:
            raise OSError(errno.EIO, "it was cut short while it was read")
        size -= piece.size
        yield piece


def discard(path: Path):
    """Delete a file that another program changes, so that nobody maps it; those who have, find out by themselves."""
    with suppress(OSError):  # a cache that may only be read
        path.unlink()


def store(folder: Path, key: str, size: int, model: str, pieces):
    """Put packed bytes into the cache; a generator, which yields Packing and returns their file as `find` does.

    Parameters
    ----------
    pieces : iterable of uint8 (n,)
        The bytes, `size` in all.
    model : str
        For `entries` to say whose they are.

    Raises
    ------
    OSError
        There is no room for them, or the folder cannot be written to. Nothing is left behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _make_room(folder, HEADER + size)
    descriptor, part = tempfile.mkstemp(PART, key[:16] + "-", folder)
    try:
        with open(descriptor, "wb") as file, _Disk(descriptor) as disk:
            lock(file)
            file.write(bytes(HEADER))
            done = saved = 0
            for piece in pieces:
                file.write(piece)
                done += piece.size
                if done - saved >= SYNC or done == size:
                    file.flush()
                    disk.save()  # so no more than twice SYNC wait to be written
                    saved = done
                    yield Packing(done, size)
            disk.wait()
            file.seek(0)
            file.write(header(key, size, model))
            file.flush()
            os.fsync(descriptor)
            protect(descriptor)
            unlock(file)  # at once: a process that was forked meanwhile has it open, too, for as long as it lives
        return _place(part, folder, key, size)
    finally:
        Path(part).unlink(missing_ok=True)


class _Disk:
    """Has what is written to a file put on the disk by a thread of its own, while more is written."""

    def __init__(self, descriptor):
        self._descriptor, self._thread, self._error = descriptor, None, None

    def save(self):
        """Begin to save what is written by now, once what was begun before is done; raises OSError if that failed."""
        self.wait()
        try:
            self._thread = start(self._sync, "nbllm disk")
        except CpuError:  # there can be no thread
            os.fsync(self._descriptor)

    def wait(self):
        self._join()
        if self._error:
            raise self._error

    def _join(self):
        if self._thread:
            self._thread.join()

    def _sync(self):
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self._error = error

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._join()  # before the file is closed, and another has its descriptor


def _place(part, folder, key, size):
    file = find(folder, key, size)  # of a process that was faster
    if file is None:
        os.replace(part, path(folder, key))
        file = find(folder, key, size)
    if file is None:
        raise FileNotFoundError(errno.ENOENT, "another process deleted it at once")
    return file


def _disk(folder):
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder)


def _make_room(folder, size):
    """Delete what processes that were killed left behind, then the files that were not used for the longest time."""
    for entry in entries(folder):
        if entry.path.suffix == PART:
            delete(entry.path)
    oldest_first = entries(folder)
    total, allowed, free = sum(entry.size for entry in oldest_first), limit(folder), _disk(folder).free
    excess = max(total + size - allowed, size + RESERVE - free)
    if excess <= total:  # else deleting would not help
        for entry in oldest_first:
            if excess > 0 and delete(entry.path):
                excess -= entry.size
    if excess > 0:
        why = f"it may hold {allowed / 1e9:.1f} GB (NBLLM_CACHE_GB)" if total + size > allowed else ""
        why = why or f"{free / 1e9:.1f} GB are free on the disk"
        raise OSError(errno.ENOSPC, why)
