"""Block types: how a row of weights is cut into blocks, and what number each element of a block stands for.

The layouts are ggml's, as they are in every GGUF file (ggml-common.h, and `dequantize_row_*` in ggml-quants.c), and so
is the order of the float32 operations, which makes the values equal to the last bit; Q4_2 and Q4_3 are as ggml had them
in April and May 2023 (`dequantize_row_q4_2`, `_q4_3` in ggml.c). Knows nothing of files or models.
"""

from dataclasses import dataclass

import numpy as np

from ..errors import ModelFileError


@dataclass(frozen=True)
class BlockType:
    """`elements` consecutive weights of a row, stored in `bytes` bytes."""

    id: int
    name: str
    elements: int
    bytes: int


# Every id that a model file may hold, so that what cannot be computed can at least be named.
BLOCK_TYPES = {
    id: BlockType(id, name, elements, bytes)
    for id, name, elements, bytes in (
        (0, "F32", 1, 4), (1, "F16", 1, 2), (2, "Q4_0", 32, 18), (3, "Q4_1", 32, 20), (4, "Q4_2", 16, 10),
        (5, "Q4_3", 16, 12), (6, "Q5_0", 32, 22), (7, "Q5_1", 32, 24), (8, "Q8_0", 32, 34), (9, "Q8_1", 32, 36),
        (10, "Q2_K", 256, 84), (11, "Q3_K", 256, 110), (12, "Q4_K", 256, 144), (13, "Q5_K", 256, 176),
        (14, "Q6_K", 256, 210), (15, "Q8_K", 256, 292), (16, "IQ2_XXS", 256, 66), (17, "IQ2_XS", 256, 74),
        (18, "IQ3_XXS", 256, 98), (19, "IQ1_S", 256, 50), (20, "IQ4_NL", 32, 18), (21, "IQ3_S", 256, 110),
        (22, "IQ2_S", 256, 82), (23, "IQ4_XS", 256, 136), (24, "I8", 1, 1), (25, "I16", 1, 2), (26, "I32", 1, 4),
        (27, "I64", 1, 8), (28, "F64", 1, 8), (29, "IQ1_M", 256, 56), (30, "BF16", 1, 2), (34, "TQ1_0", 256, 54),
        (35, "TQ2_0", 256, 66), (39, "MXFP4", 32, 17), (40, "NVFP4", 64, 36), (41, "Q1_0", 128, 18),
    )
}  # fmt: skip
OF_2023 = frozenset({4, 5})  # types that only files of before GGUF have

IQ4_VALUES = np.array(  # the 16 levels of the non-linear 4-bit types
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32
)  # (16,) float32


def dequantize(block_type, data):
    """The numbers that rows of blocks stand for.

    Parameters
    ----------
    block_type : BlockType
    data : uint8 (..., row_bytes)
        `row_bytes` is a multiple of `block_type.bytes`.

    Returns
    -------
    float32 (..., row_elements)
        Blocks with damaged scales give non-finite numbers, without a warning.

    Raises
    ------
    ModelFileError
        The block type is one whose values nbllm cannot compute.
    """
    if block_type.name not in LAYOUTS:
        raise ModelFileError(f"Block type {block_type.name} is not supported; use one of {', '.join(LAYOUTS)}.")
    fields, values = LAYOUTS[block_type.name]
    blocks = np.ascontiguousarray(data).view(np.dtype(fields))  # (..., row_blocks) records
    with np.errstate(invalid="ignore", over="ignore"):
        return values(blocks).reshape(*data.shape[:-1], -1)


def _planes(packed, bits):
    """Unsigned fields of `bits` bits: uint8 (..., n) -> uint8 (..., 8 // bits * n).

    First the lowest field of every byte, then the next field of every byte, and so on: ggml's order.
    """
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]  # (8 // bits, 1) uint8
    fields = (packed[..., None, :] >> shifts) & np.uint8((1 << bits) - 1)  # (..., 8 // bits, n) uint8
    return fields.reshape(*packed.shape[:-1], -1)


def _neighbours(packed):
    """Unsigned fields of 4 bits: uint8 (..., n) -> uint8 (..., 2 * n). The two of a byte are next to each other."""
    return np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:-1], -1)


def _split(array, parts):
    """(..., n) -> (..., parts, n // parts)"""
    return array.reshape(*array.shape[:-1], parts, -1)


def _f32(array):
    return array.astype(np.float32)


def _scale(blocks, name="d"):
    """The blocks' scale, to multiply elements with: float32 (..., blocks, 1)"""
    return _f32(blocks[name])[..., None]


def _five_bits(blocks):
    """Codes of Q5_0 and Q5_1: uint8 (..., blocks, 32)"""
    return _planes(blocks["qs"], 4) | np.unpackbits(blocks["qh"], axis=-1, bitorder="little") << 4


def _six_bit_scales(packed):
    """Scales and minima of Q4_K and Q5_K: uint8 (..., 12) -> two of uint8 (..., 8), values 0 to 63."""
    a, b, c = packed[..., :4], packed[..., 4:8], packed[..., 8:]  # each (..., 4) uint8
    scales = np.concatenate([a & 63, c & 15 | a >> 6 << 4], -1)
    minima = np.concatenate([b & 63, c >> 4 | b >> 6 << 4], -1)
    return scales, minima


def _affine(blocks, scales, minima, codes):
    """d * scale * code - dmin * minimum, the scales and minima one per sub-block."""
    scales = _scale(blocks) * _f32(scales)  # (..., blocks, sub-blocks) float32
    minima = _scale(blocks, "dmin") * _f32(minima)
    return scales[..., None] * _f32(_split(codes, scales.shape[-1])) - minima[..., None]


def _scaled(blocks, scales, codes):
    """d * scale * code, the scales one per sub-block."""
    scales = _scale(blocks) * _f32(scales)  # (..., blocks, sub-blocks) float32
    return scales[..., None] * _f32(_split(codes, scales.shape[-1]))


def _q2_k(blocks):
    codes = _planes(_split(blocks["qs"], 2), 2)  # (..., blocks, 2, 128) uint8
    return _affine(blocks, blocks["scales"] & 15, blocks["scales"] >> 4, codes.reshape(*blocks.shape, 256))


def _q3_k(blocks):
    low = _planes(_split(blocks["qs"], 2), 2).reshape(*blocks.shape, 256)
    codes = (low | _planes(blocks["hmask"], 1) << 2).astype(np.int8) - 4  # (..., blocks, 256) int8
    packed = blocks["scales"]  # (..., blocks, 12) uint8
    scales = (_planes(packed[..., :8], 4) | _planes(packed[..., 8:], 2) << 4).astype(np.int8) - 32
    return _scaled(blocks, scales, codes)


def _q4_k(blocks):
    codes = _planes(_split(blocks["qs"], 4), 4)  # (..., blocks, 4, 64) uint8
    return _affine(blocks, *_six_bit_scales(blocks["scales"]), codes.reshape(*blocks.shape, 256))


def _q5_k(blocks):
    low = _planes(_split(blocks["qs"], 4), 4).reshape(*blocks.shape, 256)
    return _affine(blocks, *_six_bit_scales(blocks["scales"]), low | _planes(blocks["qh"], 1) << 4)


def _q6_k(blocks):
    codes = _planes(_split(blocks["ql"], 2), 4) | _planes(_split(blocks["qh"], 2), 2) << 4  # (..., blocks, 2, 128)
    return _scaled(blocks, blocks["scales"], codes.reshape(*blocks.shape, 256).astype(np.int8) - 32)


def _iq4_xs(blocks):
    low = _planes(blocks["scales_l"][..., None], 4).reshape(*blocks.shape, 8)
    high = _planes(blocks["scales_h"][..., None], 2).reshape(*blocks.shape, 8)
    codes = _planes(_split(blocks["qs"], 8), 4).reshape(*blocks.shape, 256)
    return _scaled(blocks, (low | high << 4).astype(np.int8) - 32, IQ4_VALUES[codes])


LAYOUTS = {  # name -> the fields of a block in their order, and the function from blocks to values
    "F32": ([("x", "<f4")], lambda b: b["x"].copy()),
    "F16": ([("x", "<f2")], lambda b: _f32(b["x"])),
    "BF16": ([("x", "<u2")], lambda b: (b["x"].astype(np.uint32) << 16).view(np.float32)),
    "Q4_0": ([("d", "<f2"), ("qs", "u1", 16)], lambda b: _scale(b) * _f32(_planes(b["qs"], 4).astype(np.int8) - 8)),
    "Q4_1": (
        [("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)],
        lambda b: _scale(b) * _f32(_planes(b["qs"], 4)) + _scale(b, "m"),
    ),
    "Q4_2": ([("d", "<f2"), ("qs", "u1", 8)], lambda b: _scale(b) * _f32(_neighbours(b["qs"]).astype(np.int8) - 8)),
    "Q4_3": (
        [("d", "<f2"), ("m", "<f2"), ("qs", "u1", 8)],
        lambda b: _scale(b) * _f32(_neighbours(b["qs"])) + _scale(b, "m"),
    ),
    "Q5_0": (
        [("d", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)],
        lambda b: _scale(b) * _f32(_five_bits(b).astype(np.int8) - 16),
    ),
    "Q5_1": (
        [("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)],
        lambda b: _scale(b) * _f32(_five_bits(b)) + _scale(b, "m"),
    ),
    "Q8_0": ([("d", "<f2"), ("qs", "i1", 32)], lambda b: _scale(b) * _f32(b["qs"])),
    "Q2_K": ([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")], _q2_k),
    "Q3_K": ([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")], _q3_k),
    "Q4_K": ([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)], _q4_k),
    "Q5_K": ([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)], _q5_k),
    "Q6_K": ([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")], _q6_k),
    "IQ4_NL": ([("d", "<f2"), ("qs", "u1", 16)], lambda b: _scale(b) * IQ4_VALUES[_planes(b["qs"], 4)]),
    "IQ4_XS": ([("d", "<f2"), ("scales_h", "u1", 2), ("scales_l", "u1", 4), ("qs", "u1", 128)], _iq4_xs),
}
