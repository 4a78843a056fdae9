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
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from nbllm import __version__
from nbllm.catalogue.known import CONTAINERS
from nbllm.errors import DownloadError, Stopped
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
        The server refuses, lies about the size, or sends another file.
    """
    target, part = folder / remote.file, folder / f".{remote.file}.part"
    folder.mkdir(parents=True, exist_ok=True)
    _clean(folder)
    with _locked(part):
        transfer = _Transfer(remote, part)
        transfer.start()
        try:
            while transfer.is_alive():
                if flag.is_set():
                    raise Stopped(f"stopped fetching {remote.file}; what is here is kept for the next attempt")
                if transfer.size is not None:
                    if not transfer.agreed.is_set():
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

    size, done : bytes in all, None until the server has told, and bytes here. error : why it ended, if it failed.
    """

    def __init__(self, remote, part):
        super().__init__(name="nbllm download", daemon=True)
        self.remote, self.part = remote, part
        self.size = self.error = None
        self.agreed, self.cancelled = threading.Event(), threading.Event()
        self._line, self._lock = None, threading.Lock()  # what is read from, under a descriptor of our own
        self._validator = None  # of what the part is a part of
        part.touch()
        self.done = part.stat().st_size
        if remote.checksum is None or self.done > (remote.size or self.done):  # nothing would tell, or it does at once
            self._restart()
        elif self.done == remote.size:
            self.size = self.done

    def cancel(self):
        """End it now, also where it waits for a server that says nothing."""
        self.cancelled.set()
        self.agreed.set()
        with self._lock:
            if self._line is not None:
                with suppress(OSError):  # the server has closed it
                    self._line.shutdown(socket.SHUT_RDWR)

    def run(self):
        try:
            self._fetch()
            if not self.cancelled.is_set():
                self._check()
        except (OSError, http.client.HTTPException, ValueError) as error:
            answered = isinstance(error, urllib.error.HTTPError)
            advice = "look whether the address is right, and open to you" if answered else "try again when online"
            self.error = DownloadError(f"could not fetch {self.remote.file}: {_reason(error)}; {advice}")
            if answered:
                error.close()
        except DownloadError as error:
            self.error = error

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
                full = getattr(error, "errno", None) == errno.ENOSPC
                if offline or full or isinstance(error, http.client.InvalidURL):
                    raise
                reason = error
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
                headers["If-Range"] = self._validator
        with _OPENER.open(urllib.request.Request(self.remote.url, headers=headers), timeout=TIMEOUT) as response:
            self.size = self._accept(response)
            self.agreed.wait()
            with self._cancellable(response), self.part.open("r+b") as file:
                file.seek(self.done)
                while not self.cancelled.is_set():
                    chunk = response.read1(min(CHUNK, self.size - self.done))  # what there is, without waiting
                    if self.cancelled.is_set() or not chunk:  # another may be at it by now
                        break
                    if self.done == 0 and len(chunk) >= 4:  # what is no model need not arrive
                        self._look_at(chunk)
                    file.write(chunk)
                    self.done += len(chunk)
                if not self.cancelled.is_set():
                    file.flush()
                    os.fsync(file.fileno())

    @contextmanager
    def _cancellable(self, response):
        if response.isclosed():  # there is nothing to come
            yield
            return
        with socket.fromfd(response.fileno(), socket.AF_INET, socket.SOCK_STREAM) as line:
            with self._lock:
                self._line = line
            try:
                yield
            finally:
                with self._lock:
                    self._line = None

    def _accept(self, response) -> int:
        """Bytes in all, as the server says; begins again where it does not go on from where we are."""
        length = response.headers.get("Content-Length", "")
        size = int(length) if length.isdecimal() else self.remote.size
        if response.status == 206:
            told = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
            if not told or int(told[1]) != self.done:
                self._restart()
                raise http.client.HTTPException("the server sent another part than it was asked for")
            size = int(told[2])
        elif self.done:
            self._restart()
        if size is None:
            raise DownloadError(f"{self.remote.url} does not say how long the file is: fetch it with a browser")
        expected = self.remote.size or self.size
        if expected is not None and size != expected:
            offer = f"{self.remote.url} offers {size:,} bytes"
            raise DownloadError(f"{offer}, and the file has {expected:,}: it is another file")
        etag = response.headers.get("ETag", "")
        self._validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
        return size

    def _look_at(self, chunk):
        if chunk[:4] not in CONTAINERS:
            kind = "a web page" if chunk.lstrip()[:1] == b"<" else "no model file"
            raise DownloadError(f"{self.remote.url} is {kind}: give the address of a .gguf file itself")

    def _restart(self):
        os.truncate(self.part, 0)
        self.done = 0

    def _check(self):
        with self.part.open("rb") as file:
            self._look_at(file.read(64))
        if self.remote.checksum and not matches(self.part, self.remote.checksum):
            self.part.unlink()
            raise DownloadError(f"{self.remote.file} arrived damaged, its checksum is another; fetch it again")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """What lets us in at one host is no other host's business."""

    def redirect_request(self, request, response, code, message, headers, url):
        new = super().redirect_request(request, response, code, message, headers, url)
        if new and urllib.parse.urlsplit(url).netloc != urllib.parse.urlsplit(request.full_url).netloc:
            new.remove_header("Authorization")
        return new


_OPENER = urllib.request.build_opener(_Redirects)


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


def _clean(folder):
    for part in folder.glob(".*.part"):
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > LEFT_BEHIND:
                part.unlink()


def _reason(error):
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}".rstrip()
    if isinstance(error, urllib.error.URLError):
        error = error.reason
    if isinstance(error, TimeoutError):
        return f"nothing came for {TIMEOUT} seconds"
    if getattr(error, "errno", None) == errno.ENOSPC:
        return "no space is left on the disk"
    return str(getattr(error, "strerror", None) or error or type(error).__name__).splitlines()[0]
