"""An open model file, as every container gives it; and checked reading of what stands before the tensors' bytes.

Metadata goes by GGUF's keys, tensors by GGUF's names and today's block layouts (`blocks.py`), whatever the container
has; so nothing after this needs to know it. Refuses to know what a key or a tensor means.
"""

import os
import stat
import weakref
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import ModelFileError, ModelNotFoundError
from .blocks import BlockType

WINDOW = 1 << 16  # bytes that are read at a time of what stands before the tensors' bytes
SMALLEST = 24  # bytes; no container's header and first entry are shorter
FETCH_AGAIN = "the file is damaged or incomplete; fetch it again"


@dataclass(frozen=True)
class Tensor:
    """One tensor of a model file.

    Attributes
    ----------
    name : str
    shape : tuple of int
        In NumPy's order, slowest first: (rows, columns), or (n,).
    block_type : BlockType
    offset : int
        Where its bytes begin, from the start of the file; the parts of a file of several follow one another.
    nbytes : int
        Of its rows in the layout of `block_type`.
    """

    name: str
    shape: tuple
    block_type: BlockType
    offset: int
    nbytes: int
    _file: "File" = field(repr=False, compare=False)

    @property
    def data(self):
        """uint8 (rows, row_bytes), or (row_bytes,) for one dimension: all of it, read now, and read-only."""
        raw = self.read()  # (nbytes,) uint8
        raw.flags.writeable = False
        return raw.reshape(*self.shape[:-1], -1)

    def read(self, start=0, stop=None):
        """uint8 (stop - start,): bytes of the tensor, read as `ModelFile.read` does."""
        stop = self.nbytes if stop is None else stop
        return self._file.read(self.offset + start, self.offset + stop)


class Metadata(dict):
    """Metadata that knows where in the file each value is.

    Attributes
    ----------
    places : dict of str to int
        A key -> the byte at which its value begins, in the first part.
    """

    def __init__(self, values, places):
        super().__init__(values)
        self.places = places


def where(metadata, key):
    """Where the value of a key is, for a message: " (at byte 12)", or nothing if it is not known."""
    at = getattr(metadata, "places", {}).get(key)
    return "" if at is None else f" (at byte {at})"


class ModelFile:
    """An open model file; `open_model` opens one. Use it as a context manager, or call `close()`.

    It is read and never mapped: touching what was cut off a mapped file would end the process (SIGBUS), and with it the
    user's variables; `read` raises an error then.

    Attributes
    ----------
    path : Path
        Of the first part, if there are several.
    size : int
        Bytes of the file, all parts together.
    container : str
        What kind of file it is, with its version: "GGUF 3".
    metadata : dict
        str, int, float and bool as such; arrays of strings as list of str (UTF-8, undecodable bytes as surrogate
        escapes); other arrays as NumPy arrays. Metadata, where the container has values under keys.
    tensors : dict of str to Tensor
        In the order of the file.
    """

    def __init__(self, container, metadata, tensors, files):
        self.container, self.metadata, self.tensors = container, metadata, tensors
        self.path, self.size = files[0].path, sum(file.size for file in files)
        self._files = files

    def read(self, start, stop):
        """uint8 (stop - start,): bytes of the file, read into memory of their own.

        Raises
        ------
        ModelFileError
            The file was cut short since it was opened, or the disk fails.
        """
        pieces = [np.empty(0, np.uint8)]
        for file, following in zip(self._files, [*self._files[1:], None], strict=True):
            begin, end = max(start, file.start), min(stop, following.start) if following else stop
            if begin < end:
                pieces.append(file.read(begin, end))
        return np.concatenate(pieces)

    def close(self):
        for file in self._files:
            file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class File:
    """An open file, shared by all its tensors so that one `close()` lets go of it.

    Parameters
    ----------
    path : str or Path
    start : int
        Bytes of the parts before this one. Positions given to `read` count from the start of the first part.

    Raises
    ------
    ModelNotFoundError
        There is no such file.
    ModelFileError
        It cannot be read, or is shorter than any model file.
    """

    def __init__(self, path, start=0):
        self.path, self.start = Path(path), start
        file = _open(self.path)
        self._release = weakref.finalize(self, os.close, file)
        self._file = open(file, "rb", buffering=0, closefd=False)
        self.size = os.fstat(file).st_size
        if self.size < SMALLEST:
            raise ModelFileError(
                f"{self.path.name!r} has {self.size} bytes, fewer than the {SMALLEST} of any model file; {FETCH_AGAIN}."
            )

    @property
    def data(self):
        """A new Window of this file."""
        return Window(self)

    def read(self, start, stop):
        out = np.empty(stop - start, np.uint8)
        try:
            self._file.seek(start - self.start)
            done = 0
            while done < out.size and (n := self._file.readinto(out[done:])):
                done += n
        except OSError as error:
            raise ModelFileError(f"{self.path.name!r} cannot be read: {error}.") from None
        if done < out.size:
            at = start - self.start + done
            raise ModelFileError(
                f"{self.path.name!r} was cut short while it was read: it ends at byte {at}, not {self.size}; "
                f"{FETCH_AGAIN}."
            )
        return out

    def followed_by(self, paths):
        """This file and the other parts of the same model: list of File."""
        files = [self]
        for path in paths:
            try:
                files.append(File(path, files[-1].start + files[-1].size))
            except ModelNotFoundError:
                raise ModelFileError(
                    f"{self.path.name!r} has {len(paths) + 1} parts, and {path.name!r} is not beside it; put it there."
                ) from None
        return files

    def close(self):
        self._file.close()
        self._release()


class Window:
    """A file as a sequence of bytes, of which only a few are held: `data[at]`, `data[start:stop]`, as of bytes."""

    def __init__(self, file):
        self._file, self._start, self._held = file, 0, b""

    def __getitem__(self, key):
        if not isinstance(key, slice):
            return self[key : key + 1][0]
        start, stop, _ = key.indices(self._file.size)
        if not self._start <= start <= stop <= self._start + len(self._held):
            end = max(stop, min(start + WINDOW, self._file.size))
            self._held = (
                self._file.read(self._file.start + start, self._file.start + end).tobytes() if start < stop else b""
            )
            self._start = start
        return self._held[start - self._start : stop - self._start]


def _open(path):
    """A file descriptor."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise ModelFileError(f"{path.name!r} is a directory; give the path of the model file in it.")
        if not stat.S_ISREG(mode):  # reading a pipe or a device could wait for ever
            raise ModelFileError(f"{path.name!r} is not a regular file; give the path of a model file.")
        return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError):
        raise ModelNotFoundError(f"There is no file {str(path)!r}; check the path.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ModelFileError(f"{str(path)!r} cannot be read: {error}.") from None


class Cursor:
    """A position in a file, and checked reading from there.

    Every count and length is checked against what is left of the file before it is used, so a damaged or hostile file
    ends in one `ModelFileError`, early, and nothing else.

    Parameters
    ----------
    file : File
    length : str
        How counts and lengths are stored.
    """

    def __init__(self, file, length):
        self.data, self.size, self.position, self.path = file.data, file.size, 0, file.path
        self.length = np.dtype(length)
        self.begun = 0  # where that begins which was read last
        self.places = {}  # what has a name -> where it begins

    def fail(self, what, advice=FETCH_AGAIN, at=None):
        """Refuse the file for what was read last, or for what begins at a byte or under a name."""
        at = self.places.get(at, self.begun) if not isinstance(at, int) else at
        raise ModelFileError(f"{self.path.name!r}: {what} (at byte {at}): {advice}.")

    def need(self, size, what):
        if size > self.size - self.position:
            left = self.size - self.position
            self.fail(f"{what} needs {size} bytes, the file has {left} more", at=self.position)

    def array(self, dtype, count, what):
        return np.frombuffer(self.take(count * dtype.itemsize, what), dtype).copy()  # (count,) dtype

    def integer(self, dtype, what):
        return int(self.array(np.dtype(dtype), 1, what)[0])

    def count(self, what, limit, smallest):
        """A number of things of at least `smallest` bytes each."""
        count, room = self.integer(self.length, what), (self.size - self.position) // smallest
        if count > min(limit, room):
            self.fail(f"{what} is {count}, the limit {limit}" + f", and the file has room for {room}" * (room < limit))
        return count

    def raw(self, what, limit):
        """Bytes, with their length before them."""
        length = self.integer(self.length, f"the length of {what}")
        if length > limit:
            self.fail(f"the length of {what} is {length}, the limit {limit}")
        return self.take(length, what)

    def take(self, length, what):
        self.need(length, what)
        self.begun = self.position
        self.position += length
        return self.data[self.begun : self.position]

    def text(self, what, raw):
        """A name, which must be UTF-8 and not empty."""
        try:
            return raw.decode("utf-8") or self.fail(f"{what} is empty")
        except UnicodeDecodeError:
            self.fail(f"{what} is not UTF-8 but {short(raw)}")


def short(value):
    """A key, name or value as it may stand in a message: quoted, on one line, not too long."""
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else value[:77] + "...")
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."
