"""The GGUF container: its metadata, and where each tensor lies, in one file or in several that a model was split into.

Follows the GGUF specification (ggml's docs/gguf.md), versions 1 to 3, little-endian. Knows the layout of the file and
refuses to know what a key or a tensor means.
"""

import math
import re
from dataclasses import replace

import numpy as np

from .blocks import BLOCK_TYPES, OF_2023
from .file import Cursor, Metadata, ModelFile, Tensor, short

VERSIONS = {1: "<u4", 2: "<u8", 3: "<u8"}  # version -> how counts, lengths and dimensions are stored
DEFAULT_ALIGNMENT = 32

SCALARS = {  # value type -> how it is stored
    0: np.dtype("<u1"), 1: np.dtype("<i1"), 2: np.dtype("<u2"), 3: np.dtype("<i2"), 4: np.dtype("<u4"),
    5: np.dtype("<i4"), 6: np.dtype("<f4"), 7: np.dtype("?"), 10: np.dtype("<u8"), 11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}  # fmt: skip
UINT32, STRING, ARRAY = 4, 8, 9

# Far above any real model, low enough that no file can make the reader spend seconds or gigabytes on its header.
MAX_ENTRIES = 1 << 16  # keys, tensors
AT_ONCE = 4096  # strings that are read at once
MAX_STRINGS = 1 << 22  # in one array; the largest vocabularies have 2**18 tokens, and twice as many merges
MAX_KEY_BYTES = 1 << 16
MAX_NAME_BYTES = 63
MAX_STRING_BYTES = 1 << 30
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 20
MAX_PARTS = 1 << 10

PART_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)  # the first is 00001


def read_gguf(file):
    """As `open_model`, of an open File."""
    cursor, version, metadata, tensors = _part(file)
    count = _split(cursor, metadata, "count", 1, MAX_PARTS, 1)
    if count == 1:
        return ModelFile(f"GGUF {version}", metadata, tensors, [file])
    files = file.followed_by(_other_parts(cursor, metadata, count))
    for number, other in enumerate(files[1:], 1):
        cursor, _, keys, more = _part(other)
        _split(cursor, keys, "count", count, count)
        _split(cursor, keys, "no", number, number)
        for name, tensor in more.items():
            if name in tensors:
                cursor.fail(f"tensor {short(name)} is in an earlier part too", at=tensor.offset - other.start)
            tensors[name] = tensor
    _split(cursor, metadata, "tensors.count", len(tensors), len(tensors), len(tensors))
    return ModelFile(f"GGUF {version}, {count} parts", metadata, tensors, files)


def _part(file):
    """Read one file up to its tensors' bytes: its Cursor, version, metadata and tensors."""
    cursor = _Cursor(file, "<u4")
    version = _version(cursor)
    cursor.length = np.dtype(VERSIONS[version])
    width = cursor.length.itemsize
    n_tensors = cursor.count("the number of tensors", MAX_ENTRIES, smallest=width + 16)
    n_keys = cursor.count("the number of metadata keys", MAX_ENTRIES, smallest=width + 5)
    metadata, types = Metadata({}, cursor.places), {}
    for _ in range(n_keys):
        key = cursor.text("a metadata key", cursor.raw("a metadata key", MAX_KEY_BYTES))
        if key in metadata:
            cursor.fail(f"metadata key {short(key)} is there twice")
        types[key] = cursor.integer("<u4", f"the type of {short(key)}")
        cursor.places[key] = cursor.position
        metadata[key] = cursor.value(types[key], short(key))
    alignment = _alignment(cursor, metadata, types)
    return cursor, version, metadata, _tensors(cursor, n_tensors, alignment, file)


def _version(cursor):
    magic = cursor.take(4, "the first bytes")
    if magic != b"GGUF":
        cursor.fail(f"a GGUF file does not begin with {magic!r}", "use a GGUF file")
    version = cursor.integer("<u4", "the version")
    if version not in VERSIONS:
        swapped = version & 0xFFFF == 0 and version >> 24 in VERSIONS
        found = "big-endian" if swapped else f"version {version}"
        cursor.fail(f"GGUF {found} is not supported", "use a little-endian file of version 1, 2 or 3")
    return version


def _alignment(cursor, metadata, types):
    key = "general.alignment"
    alignment = metadata.get(key, DEFAULT_ALIGNMENT)
    if types.get(key, UINT32) != UINT32:
        cursor.fail(f"{key} has value type {types[key]}, not {UINT32} (u32)", at=key)
    if alignment.bit_count() != 1 or alignment > MAX_ALIGNMENT:
        cursor.fail(f"{key} is {alignment}, not a power of two from 1 to {MAX_ALIGNMENT}", at=key)
    return alignment


def _split(cursor, metadata, key, low, high, *default):
    """One of the keys that tell how a model was split; it must be a whole number from low to high."""
    key = f"split.{key}"
    value = metadata.get(key, *default)
    if type(value) is not int or not low <= value <= high:
        limits = low if low == high else f"a number from {low} to {high}"
        cursor.fail(f"{key} is {value!r}, not {limits}", "put together the parts of one model, all of them", key)
    return value


def _other_parts(cursor, metadata, count):
    """The paths of all parts but the first, which this one must be."""
    path = cursor.path
    name = PART_NAME.fullmatch(path.name)
    if not name or int(name[3]) != count:
        cursor.fail(
            f"split.count is {count}, and the file's name is not like it",
            f"rename its parts, the first to NAME-00001-of-{count:05d}.gguf",
            "split.count",
        )
    paths = [path.with_name(f"{name[1]}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
    if metadata.get("split.no") != 0 or path != paths[0]:
        cursor.fail(f"it is not the first of {count} parts", f"open {paths[0].name!r}", "split.no")
    return paths[1:]


def _tensors(cursor, n_tensors, alignment, file):
    tensors, expected = {}, 0
    for _ in range(n_tensors):
        name = cursor.text("a tensor name", cursor.raw("a tensor name", MAX_NAME_BYTES))
        if name in tensors:
            cursor.fail(f"tensor {short(name)} is there twice")
        tensor = tensors[name] = _tensor(cursor, name, file)
        if tensor.offset != expected:  # no gaps, no overlaps, aligned: as every writer lays them out
            cursor.fail(
                f"tensor {short(name)} has offset {tensor.offset}, not {expected}, where the one before it ends"
            )
        expected += tensor.nbytes + -tensor.nbytes % alignment
    start = cursor.position + -cursor.position % alignment  # of the tensors' bytes
    for name, tensor in tensors.items():
        stop = start + tensor.offset + tensor.nbytes
        if stop > cursor.size:
            begin = start + tensor.offset
            cursor.fail(f"tensor {short(name)} ends at byte {stop}, the file at {cursor.size}", at=begin)
        tensors[name] = replace(tensor, offset=file.start + start + tensor.offset)
    return tensors


def _tensor(cursor, name, file):
    """A Tensor whose offset is that in the file, from the start of the tensors' bytes."""
    shown = short(name)
    n_dims = cursor.integer("<u4", f"the number of dimensions of tensor {shown}")
    if not 1 <= n_dims <= MAX_DIMENSIONS:
        cursor.fail(f"tensor {shown} has {n_dims} dimensions, not 1 to {MAX_DIMENSIONS}")
    shape = tuple(cursor.array(cursor.length, n_dims, f"the shape of tensor {shown}").tolist()[::-1])
    shape_at = cursor.begun
    if 0 in shape:
        cursor.fail(f"tensor {shown} has a dimension of 0: {shape}")
    type_id = cursor.integer("<u4", f"the type of tensor {shown}")
    if type_id not in BLOCK_TYPES or type_id in OF_2023:
        cursor.fail(f"tensor {shown} has the unknown block type {type_id}", "use a file of another quantisation")
    kind = BLOCK_TYPES[type_id]
    if shape[-1] % kind.elements:
        multiple = f"no multiple of {kind.name}'s {kind.elements}"
        cursor.fail(f"tensor {shown} has rows of {shape[-1]}, {multiple}", at=shape_at)
    offset = cursor.integer("<u8", f"the offset of tensor {shown}")
    return Tensor(name, shape, kind, offset, math.prod(shape) // kind.elements * kind.bytes, file)


class _Cursor(Cursor):
    """Checked reading of metadata values, too."""

    def value(self, type_id, what):
        if type_id in SCALARS:
            return self.array(SCALARS[type_id], 1, what)[0].item()
        if type_id == STRING:
            return self.raw(what, MAX_STRING_BYTES).decode("utf-8", "surrogateescape")
        if type_id != ARRAY:
            self.fail(f"{what} has the unknown value type {type_id}")
        element = self.integer("<u4", f"the element type of {what}")
        if element == STRING:
            return self.strings(self.count(f"the length of {what}", MAX_STRINGS, self.length.itemsize), what)
        if element not in SCALARS:
            self.fail(f"{what} is an array of the unsupported value type {element}")
        dtype = SCALARS[element]
        return self.array(dtype, self.count(f"the length of {what}", MAX_STRING_BYTES, dtype.itemsize), what)

    def strings(self, count, what):
        texts = []
        while len(texts) < count:  # a part at a time, so that one long string does not make all of them slow
            part = range(len(texts), min(len(texts) + AT_ONCE, count))
            texts += self._short_strings(len(part)) or [
                self.raw(f"string {i} of {what}", MAX_STRING_BYTES).decode("utf-8", "surrogateescape") for i in part
            ]
        return texts

    def _short_strings(self, count):
        """As `strings`, of part of them, several times faster;
        None unless every string is under 256 bytes and without NUL.

        A vocabulary has hundreds of thousands of strings. Reading one byte of each length, decoding all of them at
        once with NUL between them, and splitting there, costs a fraction of as many calls.
        """
        width = self.length.itemsize
        data = self.data[self.position : self.position + count * (width + 255)]
        position, starts = 0, []
        try:
            for _ in range(count):
                starts.append(position)
                position += width + data[position]
        except IndexError:
            return None
        region = np.frombuffer(data[:position], np.uint8).copy()  # (bytes of all strings,) uint8
        starts = np.array(starts, np.int64)  # (count,)
        if position > len(data) or any(region[starts + i].any() for i in range(1, width)):
            return None
        keep = np.ones(len(region), bool)
        for i in range(1, width):
            keep[starts + i] = False
        region[starts] = 0
        texts = region[keep].tobytes().decode("utf-8", "surrogateescape").split("\0")[1:]
        if len(texts) != count:
            return None
        self.position += position
        return texts
