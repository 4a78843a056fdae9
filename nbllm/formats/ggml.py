"""What all containers of before GGUF share: a header of numbers, a vocabulary, and records of tensors to the end.
The tensors are whole, or each is cut into as many pieces as there are files.

Nothing tells where a record is but the end of the one before it. Refuses to know which numbers and which tensors a
model has (`ggjt.py` and `gptj.py` do).
"""

import math
from dataclasses import dataclass, field

import numpy as np

from ..errors import ModelFileError
from .blocks import BLOCK_TYPES, BlockType
from .eras import Era
from .file import FETCH_AGAIN, Cursor, File, Metadata, Tensor, short

MAX_TOKENS = 1 << 20
MAX_TOKEN_BYTES = 1 << 10
MAX_NAME_BYTES = 127
ALIGNMENT = 32

SIZES = {  # field of a header -> least and most; far beyond any real model's
    "n_vocab": (1, MAX_TOKENS), "n_ctx": (1, 1 << 24), "n_embd": (1, 1 << 17), "n_mult": (1, 1 << 17),
    "n_head": (1, 4096), "n_layer": (1, 1024), "n_rot": (1, 1 << 17), "ftype": (0, 2**31 - 1),
}  # fmt: skip


@dataclass(frozen=True)
class OldTensor(Tensor):
    """A tensor that is stored in the layout of an era, in one piece or in several, as one in today's layout."""

    _era: Era = field(repr=False, compare=False)
    _pieces: tuple = field(repr=False, compare=False)  # of (File, offset, bytes)
    _by_columns: bool = field(repr=False, compare=False)  # whether the pieces are columns of it, or rows

    def read(self, start=0, stop=None):
        stop = self.nbytes if stop is None else stop
        count, pieces = math.prod(self.shape[:-1]), len(self._pieces)  # rows
        row_bytes = self.nbytes // count
        first, last = start // row_bytes, -(-stop // row_bytes)
        if self._by_columns:
            parts = [self._read(piece, count, first, last) for piece in self._pieces]
        else:
            count //= pieces
            bounds = np.clip(np.array([first, last]) - np.arange(pieces)[:, None] * count, 0, count).tolist()
            parts = [self._read(piece, count, *rows) for piece, rows in zip(self._pieces, bounds, strict=True)]
        rows = np.concatenate(parts, axis=int(self._by_columns))  # (last - first, row_bytes) uint8
        return rows.reshape(-1)[start - first * row_bytes : stop - first * row_bytes]

    def _read(self, piece, count, first, last):
        """uint8 (last - first, bytes): rows of a piece that has `count` of them."""
        file, offset, nbytes = piece
        row_bytes = nbytes // count
        raw = file.read(offset + first * row_bytes, offset + last * row_bytes)
        try:
            return self._era.modern(self.block_type, raw.reshape(-1, row_bytes))
        except ModelFileError as error:
            place = f"{file.path.name!r}: tensor {self.name!r} (from byte {offset - file.start})"
            raise ModelFileError(f"{place}: {error}: {FETCH_AGAIN}.") from None


@dataclass(frozen=True)
class Record:
    """A tensor as one file has it; where, does not count when two are compared.

    Attributes
    ----------
    shape : tuple of int
        In NumPy's order.
    kind : BlockType
    offset : int
        Of its bytes in this file.
    nbytes : int
        As stored.
    """

    shape: tuple
    kind: BlockType
    offset: int = field(compare=False)
    nbytes: int


@dataclass(frozen=True)
class Part:
    """One file, read up to its end.

    Attributes
    ----------
    file : File
    cursor : Cursor
        To fail with.
    container : str
    era : Era
    numbers : dict of str to int
        Of the header.
    tokens : list of bytes
    scores : list of float
    head : bytes
        All before the first record.
    records : dict of str to Record
        By the names of the file.
    """

    file: File
    cursor: Cursor
    container: str
    era: Era
    numbers: dict
    tokens: list
    scores: list
    head: bytes
    records: dict

    def described(self, metadata, fields):
        """Metadata: these values, and those of the header's numbers that are GGUF's under other names.

        fields : dict of str to str, GGUF's key -> the header's name
        """
        numbers = {key: self.numbers[name] for key, name in fields.items()}
        return Metadata(numbers | metadata, {key: self.cursor.places[name] for key, name in fields.items()})

    def piece(self, name):
        """Of a tensor: the file, where it begins, from the start of the first part, and its bytes."""
        record = self.records[name]
        return self.file, self.file.start + record.offset, record.nbytes


def header(cursor, fields):
    """The numbers of a header: dict of int by the names in `fields`, each within `SIZES`."""
    found = {}
    for name in fields:
        low, high = SIZES[name]
        found[name] = cursor.integer("<i4", name)
        cursor.places[name] = cursor.begun
        if not low <= found[name] <= high:
            cursor.fail(f"{name} is {found[name]}, outside of {low} to {high}")
    return found


def vocabulary(cursor, count, scores, first_tensor):
    """The tokens' bytes and their scores: list of bytes, list of float.

    Parameters
    ----------
    count : int
        As the header has it. Fewer are returned where the record of the tensor named `first_tensor` begins before that.
    scores : bool
        Whether there are any; otherwise they are 0.
    """
    smallest = 8 if scores else 4
    if count > (room := (cursor.size - cursor.position) // smallest):
        cursor.fail(f"n_vocab is {count}, and the file has room for {room}", at="n_vocab")
    tokens, values = [], []
    for i in range(count):
        name_at = cursor.position + 20  # of a matrix' record: dimensions, length of the name, type, two sizes
        if cursor.data[name_at : name_at + len(first_tensor)] == first_tensor:
            break
        tokens.append(cursor.raw(f"token {i}", MAX_TOKEN_BYTES))
        values.append(cursor.array(np.dtype("<f4"), 1, f"the score of token {i}")[0].item() if scores else 0.0)
    return tokens, values


def records(cursor, names, era, aligned):
    """The tensors from here to the end of the file.

    Parameters
    ----------
    names : container of str
        What a tensor may be called.
    era : Era
    aligned : bool
        Whether the bytes of each begin at a multiple of 32.

    Returns
    -------
    dict of str to Record
    """
    found = {}
    while cursor.position < cursor.size:
        what, at = f"the tensor record at byte {cursor.position}", cursor.position
        n_dims, length, type_id = cursor.array(cursor.length, 3, what).tolist()
        if n_dims not in (1, 2):
            cursor.fail(f"{what} has {n_dims} dimensions, not 1 or 2")
        if length > MAX_NAME_BYTES:
            cursor.fail(f"{what} has a name of {length} bytes, the limit is {MAX_NAME_BYTES}", at=at + 4)
        shape = tuple(cursor.array(cursor.length, n_dims, what).tolist()[::-1])
        name = cursor.text(f"the name of {what}", cursor.take(length, what))
        if name not in names:
            cursor.fail(f"{short(name)} is no tensor of this architecture with so many layers")
        if name in found:
            cursor.fail(f"tensor {short(name)} is there twice")
        kind = BLOCK_TYPES.get(type_id)
        if kind is None or kind.name not in era.types:
            known = ", ".join(kind.name for kind in BLOCK_TYPES.values() if kind.name in era.types)
            cursor.fail(f"tensor {short(name)} has block type {type_id}, which is none of {known}", at=at + 8)
        if 0 in shape:
            cursor.fail(f"tensor {short(name)} has a dimension of 0: {shape}", at=at + 12)
        if shape[-1] % kind.elements:
            multiple = f"no multiple of {kind.name}'s {kind.elements}"
            cursor.fail(f"tensor {short(name)} has rows of {shape[-1]}, {multiple}", at=at + 12)
        nbytes = math.prod(shape) // kind.elements * era.stored(kind).itemsize
        if aligned:
            cursor.position += -cursor.position % ALIGNMENT
        cursor.need(nbytes, f"tensor {short(name)}")
        found[name] = Record(shape, kind, cursor.position, nbytes)
        cursor.position += nbytes
    return found


def joined(parts, names, sizes, columns=()):
    """The tensors of all parts, each checked to be there in its shape.

    Parameters
    ----------
    parts : list of Part
    names : dict of str to (str, str) or None
        A tensor's name in the file -> GGUF's, and a letter of `sizes` for each of its dimensions, slowest first; None
        for one that may be there and is not needed.
    sizes : dict of str to int
    columns : tuple of str
        Endings of the names of those matrices that are cut into columns; the others are cut into rows.

    Returns
    -------
    dict of str to Tensor
        By GGUF's names.
    """
    first, tensors = parts[0], {}
    for name, target in names.items():
        if target and name not in first.records:
            first.cursor.fail(f"tensor {short(name)} is missing", at=first.cursor.size)
    for part in parts[1:]:
        if part.head != first.head:
            part.cursor.fail(f"its header or vocabulary is not that of {first.file.path.name!r}", at=0)
        for name in names:
            record = part.records.get(name)
            if record != first.records.get(name):
                part.cursor.fail(
                    f"tensor {short(name)} is not as in {first.file.path.name!r}", at=record and record.offset
                )
    for name, record in first.records.items():
        if not names[name]:
            continue
        new_name, letters = names[name]
        cut = len(record.shape) == 2  # a vector is whole in every part
        pieces = tuple(part.piece(name) for part in (parts if cut else parts[:1]))
        by_columns = cut and name.endswith(columns)
        shape = list(record.shape)
        shape[-1 if by_columns else 0] *= len(pieces)
        expected = [sizes[letter] for letter in letters]
        if shape != expected:
            first.cursor.fail(f"tensor {short(name)} has shape {shape}, by the header {expected}", at=record.offset)
        nbytes = math.prod(shape) // record.kind.elements * record.kind.bytes
        tensors[new_name] = OldTensor(
            new_name, tuple(shape), record.kind, pieces[0][1], nbytes, first.file, first.era, pieces, by_columns
        )
    return tensors
