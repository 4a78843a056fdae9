"""A packed matrix times activations is what its dequantised weights give, for every block type, with one token and with many."""

from types import SimpleNamespace

import numpy as np
import pytest
from kernel_runs import HALVES

from nbllm.formats.blocks import BLOCK_TYPES, dequantize
from nbllm.runtime import ops
from nbllm.runtime.packed import LAYOUTS, Packer
from nbllm.runtime.program import Linear, Program

ROWS, COLUMNS, TOKENS = 40, 512, 11  # rows that do not fill a group, tokens that do not fill a tile
KINDS = {kind.name: kind for kind in BLOCK_TYPES.values() if kind.name in LAYOUTS}
PLAIN = {"F32": np.float32, "F16": np.float16}


def random_blocks(kind, random):
    """uint8 (ROWS, row_bytes): any bits, but for the half-precision numbers, which are kept small."""
    values = random.standard_normal((ROWS, COLUMNS))
    if kind.name in PLAIN:
        return values.astype(PLAIN[kind.name]).view(np.uint8)
    if kind.name == "BF16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    blocks = random.integers(0, 256, (ROWS, COLUMNS // kind.elements, kind.bytes), dtype=np.uint8)
    for at in {"Q4_0": [0], "Q4_1": [0, 2], "Q4_2": [0], "Q4_3": [0, 2], "Q8_0": [0], **HALVES}[kind.name]:
        scales = random.uniform(-0.01, 0.01, blocks.shape[:2]).astype("<f2")
        blocks[..., at : at + 2] = scales[..., None].view(np.uint8)
    if kind.name == "Q8_0":
        blocks[..., 2:][blocks[..., 2:] == 128] = 129  # no quantiser writes -128
    return blocks.reshape(ROWS, -1)


def product(blocks, kind, x):
    """The compiled product: float32 (tokens, ROWS), and the activations that it was made of, float64 (tokens, COLUMNS)."""
    tensor = SimpleNamespace(
        name="w", shape=(ROWS, COLUMNS), block_type=kind, nbytes=blocks.nbytes,
        read=lambda start=0, stop=None: blocks.ravel()[start:stop],
    )  # fmt: skip
    packer, program = Packer(), Program(len(x), len(x), 1, 2)
    matrix = packer.matrix(tensor)
    source, target = program.slot(COLUMNS), program.slot(ROWS)
    program.quantise(source)
    program.linear(Linear(matrix), source, target)
    n = program.activations
    f, q = np.zeros(n, np.float32), np.zeros(n, np.int8)
    scale, total, *scaled = (np.zeros(n // 32, dtype) for dtype in (np.float32, np.int32, *[np.float32] * 3))
    f[source.base : source.base + x.size] = x.ravel()
    table, none = program.table(), np.zeros(1, np.float32)
    half, small = np.zeros(1, np.uint16), np.zeros(1, np.int8)
    ops.load().step(
        table, none, none, np.concatenate([piece.copy() for piece in packer.pack()]), f, q, scale, total, *scaled,
        half, half, small, small, none, none, 16, none, none, np.zeros(1, np.int32), np.zeros(5, np.int32),
        np.zeros(2 * len(table), np.int32), np.zeros(2 * len(x), np.int64), np.zeros((1, 4), np.int64), np.zeros(1, np.int64),
        np.arange(len(x)), 0, 2,
    )  # fmt: skip
    quantised = q[: x.size].reshape(-1, 32) * scale[: x.size // 32, None].astype(np.float64)
    used = x.astype(np.float64) if kind.elements == 1 else quantised.reshape(x.shape)
    return f[target.base : target.base + len(x) * target.width].reshape(len(x), -1)[:, :ROWS], used


@pytest.mark.parametrize("name", KINDS)
def test_a_product_is_that_of_the_dequantised_weights(name):
    random = np.random.default_rng(3)
    blocks = random_blocks(KINDS[name], random)
    x = random.standard_normal((TOKENS, COLUMNS)).astype(np.float32)
    got, used = product(blocks, KINDS[name], x)
    assert np.abs(used - x).max() <= np.abs(x).max() / 127 / 2 * 1.001
    right = used @ dequantize(KINDS[name], blocks).astype(np.float64).T
    assert np.abs(got - right).max() < 1e-6 * np.abs(right).max()
    alone, _ = product(blocks, KINDS[name], x[4:5])
    assert np.array_equal(alone[0], got[4])
