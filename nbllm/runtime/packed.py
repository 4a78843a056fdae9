"""Weights laid out for the kernels: groups of sixteen rows, block by block, at the file's own bit width.

In a group, the numbers that sixteen rows have at the same place stand beside each other, so that one load brings a
value for each of the sixteen lanes. The layout is the same for every instruction set; `kernels_src/matmul.py` reads it.
Rows are filled up to a multiple of sixteen with zeros. Knows block layouts, and no architecture.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from ..errors import ModelFileError
from ..formats.blocks import BLOCK_TYPES
from . import arrange

ROWS = 16  # of a group
ALIGN = 64  # bytes, a cache line
LAYOUT = 1  # goes up when the same plan comes to give other bytes: what the cache has of before is then not used
PIECE = 1 << 18  # bytes packed at a time, so many that they stay in a core's own cache


@dataclass(frozen=True)
class Matrix:
    """Where a packed matrix lies: `groups` of `group_bytes` from `offset` on, in the packed bytes."""

    kind: int  # GGUF's number of the block type
    offset: int
    group_bytes: int
    groups: int
    rows: int
    columns: int


@dataclass(frozen=True)
class Vector:
    """Where float32 numbers lie: `size` of them from `offset` on, in the packed bytes."""

    offset: int
    size: int


def _aligned(n):
    return -(-n // ALIGN) * ALIGN


@dataclass(frozen=True)
class Rows:
    """Where rows lie that are only looked up, as they are in the file: `count` of `row_bytes` from `offset` on."""

    kind: int
    offset: int
    row_bytes: int
    count: int


class Layout:
    """How blocks are packed.

    Parameters
    ----------
    parts : tuple of (int, int, int)
        The parts of a block: where one begins and ends, and how many bytes of a row stand together in the packed form.
        A group holds one part of all its blocks, then the next.
    elements : int
        Columns of a block.
    arranged : callable, optional
        Brings the file's blocks into the form that is cut into parts (`arrange.py`).
    """

    def __init__(self, parts, elements=32, arranged=None):
        self.parts, self.elements, self.arranged = parts, elements, arranged
        self.bytes = parts[-1][1]


LAYOUTS = {
    "F32": Layout(((0, 4, 4),), 1),
    "F16": Layout(((0, 2, 2),), 1),
    "BF16": Layout(((0, 2, 2),), 1),
    "Q4_0": Layout(((0, 2, 2), (2, 18, 4))),
    "Q4_1": Layout(((0, 4, 2), (4, 20, 4))),
    "Q4_2": Layout(((0, 4, 2), (4, 20, 4)), arranged=arrange.q4_2),
    "Q4_3": Layout(((0, 8, 2), (8, 24, 4)), arranged=arrange.q4_3),
    "Q5_0": Layout(((0, 2, 2), (2, 22, 4)), arranged=arrange.q5_0),
    "Q5_1": Layout(((0, 4, 2), (4, 24, 4)), arranged=arrange.q5_1),
    "Q8_0": Layout(((0, 2, 2), (2, 34, 4))),
    "Q2_K": Layout(((0, 4, 2), (4, 20, 1), (20, 84, 4)), 256, arrange.q2_k),
    "Q3_K": Layout(((0, 2, 2), (2, 18, 1), (18, 114, 4)), 256, arrange.q3_k),
    "Q4_K": Layout(((0, 4, 2), (4, 20, 1), (20, 148, 4)), 256, arrange.q4_k),
    "Q5_K": Layout(((0, 4, 2), (4, 20, 1), (20, 180, 4)), 256, arrange.q5_k),
    "Q6_K": Layout(((0, 2, 2), (2, 18, 1), (18, 210, 4)), 256, arrange.q6_k),
    "IQ4_NL": Layout(((0, 2, 2), (2, 18, 4))),
    "IQ4_XS": Layout(((0, 2, 2), (2, 10, 1), (10, 138, 4)), 256, arrange.iq4_xs),
}


def rows(data, place, ids):
    """Rows as they were in the file.

    Parameters
    ----------
    data : uint8 (size,)
        The packed bytes.
    place : Rows or Matrix
        As from `Packer.lookup`.
    ids : int64 (n,)

    Returns
    -------
    uint8 (n, row_bytes)
    """
    if isinstance(place, Rows):
        return data[place.offset : place.offset + place.count * place.row_bytes].reshape(place.count, -1)[ids]
    kind = BLOCK_TYPES[place.kind]
    out = np.empty((len(ids), place.columns // kind.elements * kind.bytes), np.uint8)
    for row, packed in zip(_row_words(out, LAYOUTS[kind.name]), _packed_words(data, place)):
        row[...] = packed[ids // ROWS, :, :, ids % ROWS]
    return out


def _row_words(rows, layout):
    """uint8 (n, row_bytes) -> of each part its words, (n, blocks, words) views."""
    n, size = rows.shape
    for start, stop, width in layout.parts:
        shape = n, size // layout.bytes, (stop - start) // width
        yield np.ndarray(shape, f"u{width}", rows, start, (size, layout.bytes, width))


def _packed_words(data, matrix):
    """uint8 (size,) -> of each part the words of a matrix, (groups, blocks, words, 16) views."""
    layout = LAYOUTS[BLOCK_TYPES[matrix.kind].name]
    offset = matrix.offset
    for start, stop, width in layout.parts:
        shape = matrix.groups, matrix.columns // layout.elements, (stop - start) // width, ROWS
        strides = matrix.group_bytes, shape[2] * ROWS * width, ROWS * width, width
        yield np.ndarray(shape, f"u{width}", data, offset, strides)
        offset += _aligned(shape[1] * strides[1])


def _group_bytes(layout, columns):
    return sum(_aligned(columns // layout.elements * (stop - start) * ROWS) for start, stop, _ in layout.parts)


class Packer:
    """Collects tensors, says where each will lie, and then packs them all.

    Attributes
    ----------
    size : int
        Bytes of everything collected so far.
    """

    def __init__(self):
        self.size = 0
        self._jobs = []

    def matrix(self, tensor, order=None) -> Matrix:
        """Collect a matrix.

        Parameters
        ----------
        tensor : formats.file.Tensor
            (..., columns); all but the last count as rows.
        order : int64 (n,), optional
            Which of its rows are to be packed, in this order.

        Raises
        ------
        ModelFileError
            No kernel computes its block type, or its width is not a multiple of 32.
        """
        kind = tensor.block_type
        if kind.name not in LAYOUTS:
            raise ModelFileError(
                f"tensor {tensor.name!r} is of block type {kind.name}, which nbllm does not compute yet: "
                f"use a file of {', '.join(LAYOUTS)}."
            )
        columns = tensor.shape[-1]
        rows = math.prod(tensor.shape[:-1]) if order is None else len(order)
        if columns % 32:
            raise ModelFileError(
                f"tensor {tensor.name!r} has {columns} columns, not a multiple of 32: nbllm cannot run it."
            )
        matrix = Matrix(
            kind.id, self.size, _group_bytes(LAYOUTS[kind.name], columns), -(-rows // ROWS), rows, columns
        )
        self._jobs.append((matrix, tensor, order))
        self.size += matrix.groups * matrix.group_bytes
        return matrix

    def lookup(self, tensor, matrix=None):
        """What `rows` reads a tensor's rows from: the matrix packed from it, if there is one,
        or else a copy of the rows.

        Bits that were rearranged are not brought back, so such rows are kept a second time; only those that are looked
        up are ever read from the disk.
        """
        if matrix and LAYOUTS[tensor.block_type.name].arranged is None:
            return matrix
        count = tensor.shape[0]
        place = Rows(tensor.block_type.id, self.size, tensor.nbytes // count, count)
        self._jobs.append((place, tensor, None))
        self.size = _aligned(self.size + tensor.nbytes)
        return place

    def vector(self, values) -> Vector:
        """Collect float32 (n,) numbers."""
        values = np.ascontiguousarray(values, np.float32)
        vector = Vector(self.size, values.size)
        self._jobs.append((vector, values, None))
        self.size = _aligned(self.size + values.nbytes)
        return vector

    def plan(self) -> bytes:
        """All that decides the packed bytes, except for the bytes of the matrices in the file."""
        parts = [str(LAYOUT).encode()]
        for place, source, order in self._jobs:
            parts.append(repr(place).encode())
            if isinstance(place, Vector):
                parts.append(source.tobytes())
            else:
                layout = LAYOUTS[source.block_type.name] if isinstance(place, Matrix) else None
                parts += [source.name.encode(), repr(layout and layout.parts).encode()]
                parts.append(b"" if order is None else order.tobytes())
        return b"\n".join(parts)

    def pack(self):
        """Yield the packed bytes from the first to the last, a piece at a time.

        Each piece, uint8 (n,), is valid until the next is asked for: no more of the model than that is held in memory.
        """
        for place, source, order in self._jobs:
            if isinstance(place, Vector):
                piece = np.zeros(_aligned(source.nbytes), np.uint8)
                piece[: source.nbytes] = source.view(np.uint8)
                yield piece
            elif isinstance(place, Rows):
                yield from self._rows(source)
            else:
                yield from self._matrix(place, source, order)

    def _rows(self, tensor):
        for start in range(0, tensor.nbytes, PIECE):
            stop = min(start + PIECE, tensor.nbytes)
            part = tensor.read(start, stop)  # (stop - start,) uint8
            yield np.pad(part, (0, _aligned(stop) - stop)) if stop == tensor.nbytes else part

    def _matrix(self, matrix, tensor, order):
        layout = LAYOUTS[tensor.block_type.name]
        step = max(1, PIECE // matrix.group_bytes)  # groups
        piece = np.zeros(step * matrix.group_bytes, np.uint8)
        for group in range(0, matrix.groups, step):
            ids = np.arange(group * ROWS, min((group + step) * ROWS, matrix.rows))
            part = _read(tensor, ids if order is None else order[ids])  # (n, row_bytes) uint8
            groups = -(-len(part) // ROWS)
            if len(part) % ROWS:
                part = np.pad(part, ((0, groups * ROWS - len(part)), (0, 0)))
            if layout.arranged:
                blocks = part.reshape(len(part), -1, tensor.block_type.bytes)
                part = np.ascontiguousarray(layout.arranged(blocks)).reshape(len(part), -1)
            packed = _packed_words(piece, replace(matrix, offset=0, groups=groups))
            for to, row in zip(packed, _row_words(part, layout)):
                to[...] = row.reshape(groups, ROWS, *row.shape[1:]).transpose(0, 2, 3, 1)
            yield piece[: groups * matrix.group_bytes]


def _read(tensor, ids):
    """uint8 (n, row_bytes): rows that lie near each other in the file."""
    start, size = ids.min(), tensor.nbytes // math.prod(tensor.shape[:-1])
    return tensor.read(start * size, (ids.max() + 1) * size).reshape(-1, size)[ids - start]
