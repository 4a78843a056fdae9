"""Weights laid out for the kernels: groups of sixteen rows, block by block, at the file's own bit width.

In a group, the numbers that sixteen rows have at the same place stand beside each other, so that one load brings a value
for each of the sixteen lanes. The layout is the same for every instruction set; `kernels_src/matmul.py` reads it. Rows are
filled up to a multiple of sixteen with zeros. Knows block layouts, and no architecture.
"""

from dataclasses import dataclass

import numpy as np

from ..errors import ModelFileError

ROWS = 16  # of a group
ALIGN = 64  # bytes, a cache line
CHUNK = 1 << 22  # bytes packed at a time


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


def _interleave(blocks, start, stop, width):
    """(groups, 16, nb, bytes) uint8 -> (groups, nb * bytes of all rows): bytes start to stop, `width` of a row at a time."""
    part = blocks[..., start:stop]
    groups, rows, nb, size = part.shape
    part = part.reshape(groups, rows, nb, size // width, width)
    return part.transpose(0, 2, 3, 1, 4).reshape(groups, -1)


def _scales_then_quants(scale_bytes):
    """A layout: every block's half-precision scales, 2 bytes of a row at a time, then its quants, 4 bytes at a time."""

    def pack(blocks, out):
        scales = _interleave(blocks, 0, scale_bytes, 2)
        out[:, : scales.shape[1]] = scales
        out[:, _aligned(scales.shape[1]) :] = _interleave(blocks, scale_bytes, blocks.shape[-1], 4)

    def group_bytes(nb, block_bytes):
        return _aligned(nb * ROWS * scale_bytes) + nb * ROWS * (block_bytes - scale_bytes)

    return pack, group_bytes


def _columns(size):
    """A layout: column after column, `size` bytes of a row at a time."""

    def pack(blocks, out):
        out[:] = _interleave(blocks, 0, size, size)

    def group_bytes(nb, block_bytes):
        return nb * ROWS * block_bytes

    return pack, group_bytes


LAYOUTS = {  # block type -> (pack, group_bytes)
    "F32": _columns(4),
    "F16": _columns(2),
    "BF16": _columns(2),
    "Q4_0": _scales_then_quants(2),
    "Q4_1": _scales_then_quants(4),
    "Q8_0": _scales_then_quants(2),
}


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
        tensor : formats.gguf.Tensor
            (rows, columns)
        order : int64 (rows,), optional
            The order in which its rows are to be packed.

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
        rows, columns = tensor.shape
        if columns % 32:
            raise ModelFileError(f"tensor {tensor.name!r} has {columns} columns, not a multiple of 32: nbllm cannot run it.")
        pack, group_bytes = LAYOUTS[kind.name]
        groups = -(-rows // ROWS)
        size = group_bytes(columns // kind.elements, kind.bytes)
        matrix = Matrix(kind.id, self.size, size, groups, rows, columns)
        self._jobs.append((matrix, tensor, pack, order))
        self.size = _aligned(self.size + groups * size)
        return matrix

    def vector(self, values) -> Vector:
        """Collect float32 (n,) numbers."""
        values = np.ascontiguousarray(values, np.float32)
        vector = Vector(self.size, values.size)
        self._jobs.append((vector, values, None, None))
        self.size = _aligned(self.size + values.nbytes)
        return vector

    def pack(self, out):
        """Fill out, uint8 (size,). Yields the bytes done so far, several times a second."""
        for place, source, pack, order in self._jobs:
            if isinstance(place, Vector):
                out[place.offset : place.offset + source.nbytes] = source.view(np.uint8)
            else:
                yield from self._matrix(place, source, pack, order, out)
        yield self.size

    def _matrix(self, place, tensor, pack, order, out):
        data = tensor.data  # (rows, row_bytes) uint8
        target = out[place.offset : place.offset + place.groups * place.group_bytes].reshape(place.groups, -1)
        step = max(1, CHUNK // place.group_bytes)  # groups
        for g in range(0, place.groups, step):
            rows = np.arange(g * ROWS, min((g + step) * ROWS, place.rows))
            part = data[rows[0] : rows[-1] + 1] if order is None else data[order[rows]]
            groups = -(-len(rows) // ROWS)
            if len(rows) % ROWS:
                part = np.concatenate([part, np.zeros((groups * ROWS - len(rows), part.shape[1]), np.uint8)])
            blocks = part.reshape(groups, ROWS, -1, tensor.block_type.bytes)
            pack(blocks, target[g : g + groups])
            yield place.offset + (g + groups) * place.group_bytes
