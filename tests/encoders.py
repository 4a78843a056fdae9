"""Quantises float32 weights into blocks, as each of ggml's three eras stored them.

Every block gets the simplest scales that fit it. The order of the float32 operations is that of the models whose logits
were recorded, which must come out byte for byte: do not tidy it. Shares nothing with `nbllm.formats`.
"""

import numpy as np

WIDE = {"Q4_0", "Q4_1", "Q8_0"}  # whose scales are float32 in the first two eras
IDS = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q4_2": 4, "Q4_3": 5, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8,
    "Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14,
}  # fmt: skip


def encode(values, name, era=3):
    """The bytes of float32 values (..., columns) in blocks of the type named, as era 1, 2 or 3 stored them."""
    elements, function = ENCODERS[name]
    blocks = np.ascontiguousarray(values, np.float32).reshape(-1, elements)  # (blocks, elements)
    if name in PLAIN:
        return blocks.astype(PLAIN[name]).tobytes()
    if name.endswith("_K"):
        return function(blocks).tobytes()
    scale = "<f4" if name in WIDE and era < 3 else "<f2"
    return function(blocks, scale, _pairs if era == 1 else _halves).tobytes()


def _halves(codes):
    """Codes (blocks, n) below 16 -> (blocks, n / 2): j low, j + n / 2 high"""
    half = codes.shape[1] // 2
    return (codes[:, :half] | codes[:, half:] << 4).astype(np.uint8)


def _pairs(codes):
    """Codes (blocks, n) below 16 -> (blocks, n / 2): 2j low, 2j + 1 high"""
    return (codes[:, ::2] | codes[:, 1::2] << 4).astype(np.uint8)


def _raw(values, form):
    """(blocks,) or (blocks, n) -> uint8 (blocks, bytes)"""
    return np.ascontiguousarray(values.astype(form)).reshape(len(values), -1).view(np.uint8)


def _inverse(d):
    return np.where(d != 0, 1 / np.where(d != 0, d, 1), 0).astype(np.float32)


def _peak(x):
    """Of the last axis, the value of the largest magnitude."""
    return np.take_along_axis(x, np.abs(x).argmax(-1)[..., None], -1)[..., 0]


def _high(codes):
    """The fifth bits of codes (blocks, 32): uint8 (blocks, 4)"""
    return np.packbits(codes >> 4 & 1, axis=1, bitorder="little")


def _symmetric(bits):
    offset = 1 << bits - 1

    def function(x, scale, pack):
        d = (_peak(x) / -offset).astype(np.float32)  # (blocks,)
        codes = np.clip(np.floor(x * _inverse(d)[:, None] + offset + 0.5), 0, 2 * offset - 1).astype(np.uint8)
        return np.concatenate([_raw(d, scale), *[_high(codes)] * (bits == 5), pack(codes & 15)], 1)

    return function


def _affine(bits):
    top = (1 << bits) - 1

    def function(x, scale, pack):
        low = x.min(1)  # (blocks,)
        d = ((x.max(1) - low) / top).astype(np.float32)
        codes = np.clip(np.floor((x - low[:, None]) * _inverse(d)[:, None] + 0.5), 0, top).astype(np.uint8)
        return np.concatenate([_raw(d, scale), _raw(low, scale), *[_high(codes)] * (bits == 5), pack(codes & 15)], 1)

    return function


def _q8_0(x, scale, _):
    d = (np.abs(x).max(1) / 127).astype(np.float32)
    return np.concatenate([_raw(d, scale), _raw(np.rint(x * _inverse(d)[:, None]), np.int8)], 1)


def _planes(codes, bits, group):
    """Codes (blocks, n) -> (blocks, bits * n / 8): the fields of a byte come from places `group` apart."""
    fields = codes.reshape(len(codes), -1, 8 // bits, group)  # (blocks, groups, 8 // bits, group)
    shifts = np.arange(0, 8, bits)[:, None]
    return (fields << shifts).sum(2).astype(np.uint8).reshape(len(codes), -1)


def _minima(x, group, top, most):
    """What Q2_K, Q4_K and Q5_K share: d, dmin float16 (blocks,); scales, minima uint8 (blocks, groups); codes uint8
    (blocks, 256)."""
    x = x.reshape(len(x), -1, group)  # (blocks, groups, group)
    low = np.minimum(x.min(2), 0)
    scale = (x.max(2) - low) / top
    d, dmin = ((a.max(1) / most).astype(np.float16) for a in (scale, -low))
    scales, minima = (
        np.clip(np.rint(a * _inverse(b.astype(np.float32))[:, None]), 0, most).astype(np.uint8)
        for a, b in ((scale, d), (-low, dmin))
    )
    steps, shifts = (b.astype(np.float32)[:, None] * a for a, b in ((scales, d), (minima, dmin)))
    codes = np.clip(np.rint((x + shifts[..., None]) * _inverse(steps)[..., None]), 0, top).astype(np.uint8)
    return d, dmin, scales, minima, codes.reshape(-1, 256)


def _six_bits(scales, minima):
    """Two of uint8 (blocks, 8) below 64 -> (blocks, 12)"""
    a, b = (x[:, :4] | x[:, 4:] >> 4 << 6 for x in (scales, minima))
    return np.concatenate([a, b, scales[:, 4:] & 15 | (minima[:, 4:] & 15) << 4], 1)


def _q2_k(x):
    d, dmin, scales, minima, codes = _minima(x, 16, 3, 15)
    return np.concatenate([scales | minima << 4, _planes(codes, 2, 32), _raw(d, "<f2"), _raw(dmin, "<f2")], 1)


def _q4_k(x):
    d, dmin, scales, minima, codes = _minima(x, 32, 15, 63)
    return np.concatenate([_raw(d, "<f2"), _raw(dmin, "<f2"), _six_bits(scales, minima), _planes(codes, 4, 32)], 1)


def _q5_k(x):
    d, dmin, scales, minima, codes = _minima(x, 32, 31, 63)
    parts = _six_bits(scales, minima), _planes(codes >> 4, 1, 32), _planes(codes & 15, 4, 32)
    return np.concatenate([_raw(d, "<f2"), _raw(dmin, "<f2"), *parts], 1)


def _signed(x, least, scale_least):
    """What Q3_K and Q6_K share: d float16 (blocks,), scales int32 (blocks, 16), codes int32 (blocks, 256)."""
    x = x.reshape(len(x), 16, 16)
    scale = _peak(x) / least  # (blocks, 16)
    d = (_peak(scale) / scale_least).astype(np.float16)
    wide = d.astype(np.float32)[:, None]
    scales = np.clip(np.rint(scale * _inverse(wide)), scale_least, -scale_least - 1).astype(np.int32)
    codes = np.clip(np.rint(x * _inverse(wide * scales)[..., None]), least, -least - 1).astype(np.int32)
    return d, scales, codes.reshape(-1, 256)


def _q3_k(x):
    d, scales, codes = _signed(x, -4.0, -32.0)
    scales, codes = (scales + 32).astype(np.uint8), (codes + 4).astype(np.uint8)
    low = scales[:, :8] & 15 | (scales[:, 8:] & 15) << 4
    parts = _planes(codes >> 2, 1, 32), _planes(codes & 3, 2, 32), low, _planes(scales >> 4, 2, 4)
    return np.concatenate([*parts, _raw(d, "<f2")], 1)


def _q6_k(x):
    d, scales, codes = _signed(x, -32.0, -128.0)
    codes = (codes + 32).astype(np.uint8)
    parts = _planes(codes & 15, 4, 64), _planes(codes >> 4, 2, 32), _raw(scales, np.int8)
    return np.concatenate([*parts, _raw(d, "<f2")], 1)


PLAIN = {"F32": "<f4", "F16": "<f2"}
ENCODERS = {  # name -> elements of a block, function
    "F32": (1, None), "F16": (1, None),
    "Q4_0": (32, _symmetric(4)), "Q4_1": (32, _affine(4)), "Q4_2": (16, _symmetric(4)), "Q4_3": (16, _affine(4)),
    "Q5_0": (32, _symmetric(5)), "Q5_1": (32, _affine(5)), "Q8_0": (32, _q8_0),
    "Q2_K": (256, _q2_k), "Q3_K": (256, _q3_k), "Q4_K": (256, _q4_k), "Q5_K": (256, _q5_k), "Q6_K": (256, _q6_k),
}  # fmt: skip
