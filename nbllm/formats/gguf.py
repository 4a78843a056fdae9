"""The GGUF container: its metadata, and where each tensor lies in the file.

Follows the GGUF specification (ggml's docs/gguf.md), versions 2 and 3, little-endian. Knows the layout of the file and
refuses to know what a key or a tensor means. Every count, length and offset is checked against the size of the file
before it is used, so a damaged or hostile file ends in one `ModelFileError`, early, and nothing else.
"""

import math
import mmap
import os
import stat
import weakref
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import ModelFileError, ModelNotFoundError
from .blocks import BLOCK_TYPES, BlockType

VERSIONS = (2, 3)
HEADER_BYTES = 24  # magic, version, number of tensors, number of keys
DEFAULT_ALIGNMENT = 32

SCALARS = {  # value type -> how it is stored
    0: np.dtype("<u1"), 1: np.dtype("<i1"), 2: np.dtype("<u2"), 3: np.dtype("<i2"), 4: np.dtype("<u4"),
    5: np.dtype("<i4"), 6: np.dtype("<f4"), 7: np.dtype("?"), 10: np.dtype("<u8"), 11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}  # fmt: skip
UINT32, STRING, ARRAY = 4, 8, 9
SMALLEST_STRING = 8  # its length

# Far above any real model, low enough that no file can make the reader spend seconds or gigabytes on its header.
MAX_ENTRIES = 1 << 16  # keys, tensors
MAX_STRINGS = 1 << 22  # in one array; the largest vocabularies have 2**18 tokens, and twice as many merges
MAX_KEY_BYTES = 1 << 16
MAX_NAME_BYTES = 63
MAX_STRING_BYTES = 1 << 30
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 20

OTHER_FORMATS = {  # first bytes -> what they are
    b"lmgg": "a GGML file of before GGUF",
    b"fmgg": "a GGMF file of before GGUF",
    b"tjgg": "a GGJT file of before GGUF",
    b"lagg": "a LoRA adapter of before GGUF",
    b"PK\x03\x04": "a zip archive, perhaps a PyTorch checkpoint",
    b"\x1f\x8b\x08\x00": "a gzip archive",
    b"<!DO": "a web page",
    b"<htm": "a web page",
    b"vers": "perhaps a Git LFS pointer, not the file it stands for",
}
FETCH_AGAIN = "the file is damaged or incomplete; fetch it again"


@dataclass(frozen=True)
class Tensor:
    """One tensor of a file.

    Attributes
    ----------
    name : str
    shape : tuple of int
        In NumPy's order, slowest first: (rows, columns), or (n,).
    block_type : BlockType
    offset, nbytes : int
        Where its bytes lie, from the start of the file.
    """

    name: str
    shape: tuple
    block_type: BlockType
    offset: int
    nbytes: int
    _mapping: "_Mapping" = field(repr=False, compare=False)

    @property
    def data(self):
        """uint8 (rows, row_bytes), or (row_bytes,) for one dimension: a read-only view of the mapped file."""
        raw = self._mapping.bytes[self.offset : self.offset + self.nbytes]  # (nbytes,) uint8
        return raw.reshape(*self.shape[:-1], -1)

    def read(self, start=0, stop=None):
        """uint8 (stop - start,): bytes of the tensor, read as `GGUF.read` does."""
        stop = self.nbytes if stop is None else stop
        return self._mapping.read(self.offset + start, self.offset + stop)


class GGUF:
    """An open GGUF file. Use it as a context manager, or call `close()`.

    The tensors' bytes are mapped, not read. A view taken before `close()` stays valid and keeps the mapping alive.
    Touching what was cut off a file that is mapped ends the process (SIGBUS); `read` raises an error then.

    Attributes
    ----------
    path : Path
    size : int
        Bytes of the file.
    version : int
    metadata : dict
        str, int, float and bool as such; arrays of strings as list of str (UTF-8, undecodable bytes as surrogate
        escapes); other arrays as NumPy arrays.
    tensors : dict of str to Tensor
        In the order of the file.
    """

    def __init__(self, path, version, metadata, tensors, mapping):
        self.path, self.version, self.metadata, self.tensors = path, version, metadata, tensors
        self.size = mapping.bytes.size
        self._mapping = mapping

    def read(self, start, stop):
        """uint8 (stop - start,): bytes of the file, read into memory of their own.

        Raises
        ------
        ModelFileError
            The file was cut short since it was opened, or the disk fails.
        """
        return self._mapping.read(start, stop)

    def close(self):
        self._mapping.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def open_gguf(path):
    """Open a GGUF file and read all but its tensors' bytes.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    GGUF

    Raises
    ------
    ModelNotFoundError
        There is no such file.
    ModelFileError
        It is not a GGUF file that can be read; the message names the field that is wrong.
    """
    path = Path(path)
    mapping = _Mapping(path)
    cursor = _Cursor(mapping.data, path.name)
    version = _version(cursor)
    n_tensors = cursor.count("the number of tensors", MAX_ENTRIES, smallest=24)
    n_keys = cursor.count("the number of metadata keys", MAX_ENTRIES, smallest=13)
    metadata, types = {}, {}
    for _ in range(n_keys):
        key = cursor.name("a metadata key", MAX_KEY_BYTES)
        if key in metadata:
            cursor.fail(f"metadata key {_short(key)} is there twice")
        types[key] = cursor.integer("<u4", f"the type of {_short(key)}")
        metadata[key] = cursor.value(types[key], _short(key))
    alignment = _alignment(cursor, metadata, types)
    tensors = _tensors(cursor, n_tensors, alignment, mapping)
    return GGUF(path, version, metadata, tensors, mapping)


def _open(path):
    """A file descriptor."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise ModelFileError(f"{path.name!r} is a directory; give the path of the model file in it.")
        if not stat.S_ISREG(mode):  # reading a pipe or a device could wait for ever
            raise ModelFileError(f"{path.name!r} is not a regular file; give the path of a GGUF file.")
        return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError):
        raise ModelNotFoundError(f"There is no file {str(path)!r}; check the path.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ModelFileError(f"{str(path)!r} cannot be read: {error}.") from None


class _Mapping:
    """The file, open and mapped, shared by all its tensors so that one `close()` lets go of it."""

    def __init__(self, path):
        file = _open(path)
        self._name = path.name
        self._release = weakref.finalize(self, os.close, file)
        self._file = open(file, "rb", buffering=0, closefd=False)
        size = os.fstat(file).st_size
        if size < HEADER_BYTES:
            raise ModelFileError(f"{path.name!r} has {size} bytes, fewer than a GGUF header; {FETCH_AGAIN}.")
        try:
            self.data = mmap.mmap(file, size, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: it has become shorter
            raise ModelFileError(f"{str(path)!r} cannot be read: {error}.") from None
        self._bytes = np.frombuffer(self.data, np.uint8)  # (file size,) uint8

    @property
    def bytes(self):
        if self._bytes is None:
            raise ValueError("the GGUF file is closed")
        return self._bytes

    def read(self, start, stop):
        out = np.empty(stop - start, np.uint8)
        try:
            self._file.seek(start)
            done = 0
            while done < out.size and (n := self._file.readinto(out[done:])):
                done += n
        except OSError as error:
            raise ModelFileError(f"{self._name!r} cannot be read: {error}.") from None
        if done < out.size:
            raise ModelFileError(f"{self._name!r} was cut short while it was read; {FETCH_AGAIN}.")
        return out

    def close(self):
        self._file.close()
        self._release()
        self._bytes = self.data = None  # the mapping itself goes with the last view of it


class _Cursor:
    """A position in the header, and checked reading from there."""

    def __init__(self, data, name):
        self.data, self.size, self.position, self.file = data, len(data), 0, name

    def fail(self, what, advice=FETCH_AGAIN):
        raise ModelFileError(f"{self.file!r}: {what} (near byte {self.position}): {advice}.")

    def need(self, size, what):
        if size > self.size - self.position:
            self.fail(f"{what} needs {size} bytes, the file has {self.size - self.position} more")

    def array(self, dtype, count, what):
        self.need(count * dtype.itemsize, what)
        values = np.frombuffer(self.data, dtype, count, self.position)  # (count,) dtype
        self.position += values.nbytes
        return values.copy()

    def integer(self, dtype, what):
        return int(self.array(np.dtype(dtype), 1, what)[0])

    def count(self, what, limit, smallest):
        """A u64 number of things of at least `smallest` bytes each."""
        count = self.integer("<u8", what)
        if count > min(limit, (self.size - self.position) // smallest):
            self.fail(f"{what} is {count}, more than {limit} or than the file has room for")
        return count

    def raw(self, what, limit):
        length = self.integer("<u8", f"the length of {what}")
        if length > limit:
            self.fail(f"the length of {what} is {length}, the limit {limit}")
        self.need(length, what)
        start = self.position
        self.position += length
        return self.data[start : self.position]

    def name(self, what, limit):
        try:
            name = self.raw(what, limit).decode("utf-8")
        except UnicodeDecodeError:
            self.fail(f"{what} is not UTF-8")
        return name or self.fail(f"{what} is empty")

    def value(self, type_id, what):
        if type_id in SCALARS:
            return self.array(SCALARS[type_id], 1, what)[0].item()
        if type_id == STRING:
            return self.raw(what, MAX_STRING_BYTES).decode("utf-8", "surrogateescape")
        if type_id != ARRAY:
            self.fail(f"{what} has the unknown value type {type_id}")
        element = self.integer("<u4", f"the element type of {what}")
        if element == STRING:
            return self.strings(self.count(f"the length of {what}", MAX_STRINGS, SMALLEST_STRING), what)
        if element not in SCALARS:
            self.fail(f"{what} is an array of the unsupported value type {element}")
        dtype = SCALARS[element]
        return self.array(dtype, self.count(f"the length of {what}", MAX_STRING_BYTES, dtype.itemsize), what)

    def strings(self, count, what):
        return self._short_strings(count) or [
            self.raw(f"string {i} of {what}", MAX_STRING_BYTES).decode("utf-8", "surrogateescape")
            for i in range(count)
        ]

    def _short_strings(self, count):
        """As `strings`, several times faster; None unless every string is under 256 bytes and without NUL.

        A vocabulary has hundreds of thousands of strings. Reading one byte of each length, decoding all of them at
        once with NUL between them, and splitting there, costs a fraction of as many calls.
        """
        data, position, starts = self.data, self.position, []
        try:
            for _ in range(count):
                starts.append(position)
                position += 8 + data[position]
        except IndexError:
            return None
        region = np.frombuffer(data[self.position : position], np.uint8).copy()  # (bytes of all strings,) uint8
        starts = np.array(starts, np.int64) - self.position  # (count,)
        if position > self.size or any(region[starts + i].any() for i in range(1, 8)):
            return None
        keep = np.ones(len(region), bool)
        for i in range(1, 8):
            keep[starts + i] = False
        region[starts] = 0
        texts = region[keep].tobytes().decode("utf-8", "surrogateescape").split("\0")[1:]
        if len(texts) != count:
            return None
        self.position = position
        return texts


def _version(cursor):
    magic = cursor.data[:4]
    if magic != b"GGUF":
        found = OTHER_FORMATS.get(magic, f"something else (it begins with {magic!r})")
        raise ModelFileError(f"{cursor.file!r} is not a GGUF file but {found}; nbllm reads GGUF files.")
    cursor.position = 4
    version = cursor.integer("<u4", "the version")
    if version not in VERSIONS:
        swapped = version & 0xFFFF == 0 and version >> 24 in VERSIONS
        found = "big-endian" if swapped else f"version {version}"
        cursor.fail(f"GGUF {found} is not supported", "use a little-endian file of version 2 or 3")
    return version


def _alignment(cursor, metadata, types):
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if types.get("general.alignment", UINT32) != UINT32:
        cursor.fail(f"general.alignment has value type {types['general.alignment']}, not {UINT32} (u32)")
    if alignment.bit_count() != 1 or alignment > MAX_ALIGNMENT:
        cursor.fail(f"general.alignment is {alignment}, not a power of two from 1 to {MAX_ALIGNMENT}")
    return alignment


def _tensors(cursor, n_tensors, alignment, mapping):
    infos = {}
    for _ in range(n_tensors):
        name = cursor.name("a tensor name", MAX_NAME_BYTES)
        if name in infos:
            cursor.fail(f"tensor {_short(name)} is there twice")
        infos[name] = _tensor_info(cursor, _short(name))
    start = cursor.position + -cursor.position % alignment  # of the tensors' bytes
    tensors, expected = {}, 0
    for name, (shape, block_type, offset) in infos.items():
        nbytes = math.prod(shape) // block_type.elements * block_type.bytes
        if offset != expected:  # no gaps, no overlaps, aligned: as every writer lays them out
            cursor.fail(f"tensor {_short(name)} has offset {offset}, not {expected}, where the one before it ends")
        if start + offset + nbytes > cursor.size:
            cursor.fail(f"tensor {_short(name)} ends at byte {start + offset + nbytes}, the file at {cursor.size}")
        tensors[name] = Tensor(name, shape, block_type, start + offset, nbytes, mapping)
        expected += nbytes + -nbytes % alignment
    return tensors


def _tensor_info(cursor, name):
    n_dims = cursor.integer("<u4", f"the number of dimensions of tensor {name}")
    if not 1 <= n_dims <= MAX_DIMENSIONS:
        cursor.fail(f"tensor {name} has {n_dims} dimensions, not 1 to {MAX_DIMENSIONS}")
    shape = tuple(cursor.array(np.dtype("<u8"), n_dims, f"the shape of tensor {name}").tolist()[::-1])
    if 0 in shape:
        cursor.fail(f"tensor {name} has a dimension of 0")
    type_id = cursor.integer("<u4", f"the type of tensor {name}")
    if type_id not in BLOCK_TYPES:
        cursor.fail(f"tensor {name} has the unknown block type {type_id}", "use a file of another quantisation")
    block_type = BLOCK_TYPES[type_id]
    if shape[-1] % block_type.elements:
        cursor.fail(f"tensor {name} has rows of {shape[-1]}, no multiple of {block_type.name}'s {block_type.elements}")
    return shape, block_type, cursor.integer("<u8", f"the offset of tensor {name}")


def _short(text):
    """A key or name as it may stand in a message: quoted, on one line, not too long."""
    return repr(text if len(text) <= 80 else text[:77] + "...")
