"""One file from an http address, whatever the connection does: resumed, measured, checked, put in place in one step.

What has arrived stays beside the target, as `.NAME.part`, and the next attempt goes on from there. Knows nothing of
catalogues and repositories.
"""

import errno
import hashlib
import http.client
import os
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from nbllm import __version__
from nbllm.catalogue.connection import opener, shown
from nbllm.catalogue.known import CONTAINERS
from nbllm.catalogue.places import ENDINGS
from nbllm.errors import DownloadError, why
from nbllm.runtime.events import StopFlag

try:
    import fcntl
except ImportError:  # Windows: two downloads of one file at once end in a wrong checksum there
    fcntl = None

POLL = 0.1  # seconds between looks at what has arrived, and at the stop flag
TIMEOUT = 10  # seconds without a byte
ATTEMPTS = 5  # in a row that bring nothing
PAUSE = 0.5  # seconds before the second of them; twice as long before each further one
CHUNK = 1 << 20  # bytes
LARGEST = 1 << 50  # bytes that a file may be said to have
LEFT_BEHIND = 7 * 24 * 3600  # seconds after which a part is not waited for any more


@dataclass(frozen=True)
class Remote:
    """A file to fetch: under which name to keep it, where it is, what is known of it. `headers` go with requests."""

    file: str
    url: str
    size: int | None = None
    checksum: str | None = None  # "sha256:..."
    headers: dict = field(default_factory=dict)


def fetching(
    remote: Remote, folder: Path, check: Callable[[int], None], flag: StopFlag
) -> Iterator[tuple[int, int]]:
    """Fetch a file into a folder. A generator: yields (bytes that are here, bytes in all), returns the file's path.

    A file of which no more is known than its address replaces none: one of the same name and size is taken for it.

    Parameters
    ----------
    remote : Remote
    folder : Path
    check : callable
        Called with the bytes that are still to come before the first of them does; may raise.
    flag : StopFlag
        Ends it; Stopped is raised, and what has arrived is kept.

    Raises
    ------
    DownloadError
        The server refuses, lies about the size, or sends another file; or another one of this name is here.
    """
    target, part = folder / remote.file, folder / f".{remote.file}.part"
    if not remote.file.isprintable():
        raise DownloadError(f"{shown(remote.url)} has control characters in the file's name: fetch it with a browser")
    folder.mkdir(parents=True, exist_ok=True)
    _clean(folder)
    with _locked(part):
        transfer = _Transfer(remote, part)
        transfer.start()
        try:
            while transfer.is_alive():
                flag.look(f"stopped fetching {remote.file}; what is here is kept for the next attempt")
                if transfer.size is not None:
                    if not transfer.agreed.is_set():
                        if remote.size is None and target.exists():
                            _check_same(target, transfer.size)
                            part.unlink()
                            yield transfer.size, transfer.size
                            return target
                        check(transfer.size - transfer.done)
                        transfer.agreed.set()
                    yield transfer.done, transfer.size
                transfer.join(POLL)
        finally:
            transfer.cancel()
        if transfer.error:
            raise transfer.error
        yield transfer.size, transfer.size
        os.replace(part, target)
    return target


def matches(path: Path, checksum: str) -> bool:
    """Whether a file has this checksum."""
    algorithm, _, digest = checksum.partition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == digest


class _Transfer(threading.Thread):
    """Writes into the part what comes, on a thread of its own: a connection that is silent cannot be stopped otherwise.

    size, done : bytes in all, None until the server has told, and bytes here. error : why it failed, if it did.
    """

    def __init__(self, remote, part):
        super().__init__(name="nbllm download", daemon=True)
        self.remote, self.part = remote, part
        self.size = None
        self.error = DownloadError(f"fetching {remote.file} came to no end; fetch it again")
        self.agreed, self.cancelled = threading.Event(), threading.Event()
        self._line, self._lock = None, threading.Lock()  # what is read from, under a descriptor of our own
        self._open = opener(self._hold).open
        self._validator = None  # of what the part is a part of: the name of the header, and what it said
        part.touch()
        self.done = part.stat().st_size
        if remote.checksum is None or self.done > (remote.size or self.done):  # nothing would tell, or it does at once
            self._restart()
        elif self.done == remote.size:
            self.size = self.done

    def cancel(self):
        """End it now, also where it waits for a server that says nothing. The part is not changed any more."""
        with self._lock:
            self.cancelled.set()
            self._cut()
        self.agreed.set()

    def run(self):
        try:
            self._fetch()
            if not self.cancelled.is_set():
                self._check()
                self.error = None
        except DownloadError as error:
            self.error = error
        except Exception as error:  # whatever http.client and urllib make of what a server says
            answered = isinstance(error, urllib.error.HTTPError)
            offline = isinstance(error, OSError) and not answered
            advice = "try again when online" if offline else "look whether the address is right, and open to you"
            self.error = DownloadError(f"could not fetch {self.remote.file}: {_reason(error)}; {advice}")
            self.error.__cause__ = error
            if answered:
                error.close()

    def _fetch(self):
        failures, most = 0, self.done  # most: bytes that were here at one time
        while not self.cancelled.is_set() and self.done != self.size:
            reason = "the connection was cut"
            try:
                self._attempt()
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code not in (408, 416, 429):
                    raise
                if error.code == 416:  # there is no such range: the part is of something longer
                    self._restart()
                reason = error
                error.close()
            except (OSError, http.client.HTTPException) as error:
                offline = self.size is None and isinstance(error, urllib.error.URLError)
                if offline or isinstance(error, http.client.InvalidURL):
                    raise
                reason = error
            finally:
                self._hold(None)
            failures = 0 if self.done > most else failures + 1
            most = max(most, self.done)
            if failures == ATTEMPTS:
                came = f", {most:,} of {self.size:,} bytes came" if self.size else ""
                raise DownloadError(f"could not fetch {self.remote.file}: {_reason(reason)}{came}; try again later")
            if failures:
                self.cancelled.wait(PAUSE * 2 ** (failures - 1))

    def _attempt(self):
        headers = {"User-Agent": f"nbllm/{__version__}", "Accept-Encoding": "identity"} | self.remote.headers
        if self.done:
            headers["Range"] = f"bytes={self.done}-"
            if self._validator:
                headers["If-Range"] = self._validator[1]
        with self._open(urllib.request.Request(self.remote.url, headers=headers), timeout=TIMEOUT) as response:
            self.size = self._accept(response)
            self.agreed.wait()
            with self._changing():
                file = self.part.open("r+b", buffering=0)  # so that what is counted is written
            with file:
                file.seek(self.done)
                while not self.cancelled.is_set():
                    room = self.size - self.done
                    chunk = response.read1(min(CHUNK, room))  # what there is, without waiting
                    if not chunk:
                        break
                    if len(chunk) > room:  # pieces of negative length
                        raise DownloadError(f"{shown(self.remote.url)} sends more than it said; fetch it elsewhere")
                    if self.done == 0 and len(chunk) >= 4:  # what is no model need not arrive
                        self._look_at(chunk)
                    self._write(file, chunk)
                if not self.cancelled.is_set():
                    with self._disk():
                        os.fsync(file.fileno())

    def _write(self, file, chunk):
        rest = memoryview(chunk)
        while rest:
            with self._changing():
                written = file.write(rest)
            self.done += written
            rest = rest[written:]

    @contextmanager
    def _changing(self):
        """The part is ours to change: not once we are cancelled, another may be at it then."""
        with self._lock:
            if self.cancelled.is_set():
                raise DownloadError(f"stopped fetching {self.remote.file}")
            with self._disk():
                yield

    @contextmanager
    def _disk(self):
        """What fails here is the disk, and does not get better by asking the server again."""
        try:
            yield
        except OSError as error:
            raise DownloadError(
                f"could not write {self.remote.file} into {self.part.parent}: {_reason(error)}; make room, or set "
                "NBLLM_MODELS to another folder"
            ) from error

    def _hold(self, line):
        """Keep what is read from, so that it can be cut, in place of what was before; None keeps nothing."""
        with self._lock:
            if self._line is not None:
                self._line.close()
            self._line = line and socket.fromfd(line.fileno(), socket.AF_INET, socket.SOCK_STREAM)
            if self.cancelled.is_set():
                self._cut()

    def _cut(self):
        if self._line is not None:
            with suppress(OSError):  # the server has closed it
                self._line.shutdown(socket.SHUT_RDWR)

    def _accept(self, response) -> int:
        """Bytes in all, as the server says; begins again where it does not go on from where we are."""
        length, begun = response.headers.get("Content-Length", ""), self._validator
        size = int(length) if length.isdecimal() and len(length) < 20 else LARGEST + 1 if length else self.remote.size
        if response.status == 206:
            told = re.fullmatch(r"bytes (\d+)-\d+/(\d{1,19})", response.headers.get("Content-Range", ""))
            if not told or int(told[1]) != self.done:
                self._restart()
                raise http.client.HTTPException("the server sent another part than it was asked for")
            if begun and response.headers.get(begun[0], begun[1]) != begun[1]:
                self._restart()
                raise http.client.HTTPException("the server sent a part of another file")
            size = int(told[2])
        elif self.done:
            self._restart()
        where = shown(self.remote.url)
        if size is None:
            raise DownloadError(f"{where} does not say how long the file is: fetch it with a browser")
        if not 0 < size <= LARGEST:
            raise DownloadError(f"{where} gives a length that no model has: give the address of a .gguf file itself")
        expected = self.remote.size or self.size
        if expected is not None and size != expected:
            raise DownloadError(f"{where} offers {size:,} bytes, and the file has {expected:,}: it is another file")
        name = "ETag" if response.headers.get("ETag", "").startswith('"') else "Last-Modified"
        told = response.headers.get(name)
        self._validator = told and (name, told)
        return size

    def _look_at(self, chunk):
        if chunk[:4] not in CONTAINERS:
            kind = "a web page" if chunk.lstrip()[:1] == b"<" else "no model file"
            raise DownloadError(f"{shown(self.remote.url)} is {kind}: give the address of a .gguf file itself")

    def _restart(self):
        with self._changing():
            os.truncate(self.part, 0)
        self.done = 0

    def _check(self):
        with self.part.open("rb") as file:
            self._look_at(file.read(64))
        whole = self.part.stat().st_size == self.size
        if not whole or self.remote.checksum and not matches(self.part, self.remote.checksum):
            with self._changing():
                self.part.unlink()
            what = "checksum" if whole else "length"
            raise DownloadError(f"{self.remote.file} arrived damaged, its {what} is another; fetch it again")


@contextmanager
def _locked(part):
    """One download of a file at a time."""
    if fcntl is None:
        yield
        return
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DownloadError(f"{part.name[1:-5]} is being fetched already; wait for that to end") from None
        yield


def _check_same(target, size):
    here = target.stat().st_size
    if here != size:
        raise DownloadError(
            f"{target} is here already, with {here:,} bytes, and the file at this address has {size:,}: use it by its "
            "path, or rename or delete it first"
        )


def _clean(folder):
    for part in (part for ending in ENDINGS for part in folder.glob(f".*{ending}.part")):
        with suppress(FileNotFoundError):  # another download ended meanwhile
            if time.time() - part.stat().st_mtime > LEFT_BEHIND:
                part.unlink()


def _reason(error):
    if isinstance(error, urllib.error.HTTPError):
        error = f"the server answered {error.code} {error.reason}".rstrip()
    if isinstance(error, urllib.error.URLError):
        error = error.reason
    if isinstance(error, http.client.InvalidURL):  # its message has all of it
        return "control characters or spaces in the address, or a port that is no number"
    if isinstance(error, TimeoutError):
        return f"nothing came for {TIMEOUT} seconds"
    if getattr(error, "errno", None) == errno.ENOSPC:
        return "no space is left on the disk"
    text = why(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
