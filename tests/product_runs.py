"""One packed matrix times activations, without a model: what tests of products put through a kernel."""

from types import SimpleNamespace

import numpy as np
from kernel_runs import HALVES

from nbllm.formats.blocks import BLOCK_TYPES
from nbllm.runtime.packed import LAYOUTS, Packer
from nbllm.runtime.program import Linear, Program

KINDS = {kind.name: kind for kind in BLOCK_TYPES.values() if kind.name in LAYOUTS}
PLAIN = {"F32": np.float32, "F16": np.float16}
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q4_2": [0], "Q4_3": [0, 2], "Q8_0": [0], **HALVES}  # where blocks have halves


def random_blocks(kind, shape, random):
    """uint8 (rows, row_bytes): any bits, but for the half-precision numbers, which are kept small."""
    rows, columns = shape
    values = random.standard_normal(shape)
    if kind.name in PLAIN:
        return values.astype(PLAIN[kind.name]).view(np.uint8)
    if kind.name == "BF16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    blocks = random.integers(0, 256, (rows, columns // kind.elements, kind.bytes), dtype=np.uint8)
    for at in SCALES[kind.name]:
        scales = random.uniform(-0.01, 0.01, blocks.shape[:2]).astype("<f2")
        blocks[..., at : at + 2] = scales[..., None].view(np.uint8)
    if kind.name == "Q8_0":
        blocks[..., 2:][blocks[..., 2:] == 128] = 129  # no quantiser writes -128
    return blocks.reshape(rows, -1)


def product(kernel, blocks, kind, x):
    """The product that a kernel makes, and the activations that it made it of.

    Parameters
    ----------
    kernel : module or other object with `step`
    blocks : uint8 (rows, row_bytes)
    kind : BlockType
    x : float32 (tokens, columns)

    Returns
    -------
    float32 (tokens, rows), float64 (tokens, columns)
    """
    (rows, row_bytes), (tokens, columns) = blocks.shape, x.shape
    tensor = SimpleNamespace(
        name="w", shape=(rows, columns), block_type=kind, nbytes=blocks.nbytes,
        read=lambda start=0, stop=None: blocks.ravel()[start:stop],
    )  # fmt: skip
    packer, program = Packer(), Program(tokens, tokens, 1, 2)
    matrix = packer.matrix(tensor)
    source, target = program.slot(columns), program.slot(rows)
    program.quantise(source)
    program.linear(Linear(matrix), source, target)
    n = program.activations
    f, q = np.zeros(n, np.float32), np.zeros(n, np.int8)
    scale, total, *scaled = (np.zeros(n // 32, dtype) for dtype in (np.float32, np.int32, *[np.float32] * 3))
    f[source.base : source.base + x.size] = x.ravel()
    table, none = program.table(), np.zeros(1, np.float32)
    half, small = np.zeros(1, np.uint16), np.zeros(1, np.int8)
    kernel.step(
        table, none, none, np.concatenate([piece.copy() for piece in packer.pack()]), f, q, scale, total, *scaled,
        half, half, small, small, none, none, 16, none, none, np.zeros(1, np.int32), np.zeros(5, np.int32),
        np.zeros(2 * len(table), np.int32), np.zeros(2 * tokens, np.int64), np.zeros((1, 4), np.int64),
        np.zeros(1, np.int64),
        np.arange(tokens), 0, 2,
    )  # fmt: skip
    with np.errstate(invalid="ignore"):
        quantised = q[: x.size].reshape(-1, 32) * scale[: x.size // 32, None].astype(np.float64)
    used = x.astype(np.float64) if kind.elements == 1 else quantised.reshape(x.shape)
    return f[target.base : target.base + tokens * target.width].reshape(tokens, target.width)[:, :rows], used
