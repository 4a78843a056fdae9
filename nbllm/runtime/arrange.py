"""Block types as the kernels read them, where these want a block's bits in another order than the file has them.

The blocks of 256 columns become eight of 32 with their scales in 8 bits; fifth and third bits, and pairs of bits, stand
as the unpacking steps of `kernels_src/matmul.py` want them. Every function takes the blocks of some rows as they are in
the file, uint8 (rows, blocks, bytes), and returns uint8 (rows, blocks, other bytes). Knows nothing of groups of rows or
of files.
"""

import numpy as np


# Several bytes are computed with as one unsigned integer, and place by place along the last axis: over many short rows
# of bytes NumPy is several times slower.


def _words(data, most=8):
    """uint8 (..., n) -> the same as (..., n / width) unsigned integers, as wide as n allows"""
    data = np.ascontiguousarray(data)
    return data.view(f"u{min(most, data.shape[-1] & -data.shape[-1])}")


def _bytes(*words):
    """Unsigned integers (...) each -> uint8 (..., all their bytes)"""
    return np.stack(words, -1).view(np.uint8)


def _every(byte, words):
    return words.dtype.type(int.from_bytes(bytes([byte]) * words.itemsize, "little"))


def _nibbles(codes):
    """uint8 (..., 32) below 16 -> (..., 16): element j low, element j + 16 high"""
    words = _words(codes)  # (..., 4) uint64
    return _bytes(*(words[..., i] | words[..., i + 2] << 4 for i in range(2)))


def _pairs(codes):
    """uint8 (..., 32) below 4 -> (..., 8): byte 4u + c holds the elements c, 4 + c, 8 + c and 12 + c of half u"""
    w = _words(codes, 4)  # (..., 8) uint32
    return _bytes(*(w[..., i] | w[..., i + 1] << 2 | w[..., i + 2] << 4 | w[..., i + 3] << 6 for i in (0, 4)))


def _bits(codes):
    """uint8 (..., 32) of 0 and 1 -> (..., 4): bit v of byte c is element 4v + c"""
    words = _words(codes, 4)  # (..., 8) uint32
    bits = words[..., 0].copy()
    for v in range(1, 8):
        bits |= words[..., v] << v
    return _bytes(bits)


def _spread(data, shifts, mask):
    """uint8 (..., n) -> (..., len(shifts), n): the bits of every byte from each of the shifts on"""
    words = _words(data)
    return np.stack([words >> shift & _every(mask, words) for shift in shifts], -2).view(np.uint8)


def _flat(codes):
    """(rows, blocks of 256, ...) -> (rows, blocks of 32, 32)"""
    return codes.reshape(len(codes), -1, 32)


def _joined(blocks, *parts):
    """The parts of every block, however they are cut along a row, as uint8 (rows, blocks, bytes)."""
    return np.concatenate([part.reshape(*blocks.shape[:2], -1) for part in parts], -1)


def _q5(blocks, qh):
    fifth = np.unpackbits(blocks[..., qh : qh + 4], axis=-1, bitorder="little")
    return _joined(blocks, blocks[..., :qh], blocks[..., qh + 4 :], _bits(fifth))


def q5_0(blocks):
    return _q5(blocks, 2)


def q5_1(blocks):
    return _q5(blocks, 4)


def _k_scales(packed):
    """Q4_K's and Q5_K's 12 bytes -> scales and minima, uint8 (rows, blocks, 8) each, 6 bits"""
    words = _words(packed, 4)  # (rows, blocks, 3) uint32
    low, high, last = words[..., 0], words[..., 1], words[..., 2]
    six, four, two = (_every(mask, words) for mask in (63, 15, 3))
    scales = _bytes(low & six, last & four | (low >> 6 & two) << 4)
    minima = _bytes(high & six, last >> 4 & four | (high >> 6 & two) << 4)
    return scales, minima


def _per_32(*values):
    """(rows, blocks of 256, 8) each -> (rows, blocks of 32, len(values))"""
    return np.stack(values, -1).reshape(len(values[0]), -1, len(values))


def _q4_k_nibbles(qs):
    """128 bytes, every 32 of them the low and the high nibbles of two blocks -> (rows, blocks of 32, 16)"""
    words = _words(qs.reshape(*qs.shape[:2], 4, 32))  # (rows, blocks, 4, 4) uint64
    first, last = words[..., :2].copy(), words[..., 2:].copy()
    low, high = _every(15, words), _every(240, words)
    both = [first & low | (last & low) << 4, first >> 4 & low | last & high]
    return np.stack(both, -2).view(np.uint8).reshape(len(qs), -1, 16)


def q4_k(blocks):
    scales, minima = _k_scales(blocks[..., 4:16])
    return _joined(blocks, blocks[..., :4], _per_32(scales, minima), _q4_k_nibbles(blocks[..., 16:]))


def q5_k(blocks):
    scales, minima = _k_scales(blocks[..., 4:16])
    fifth = _spread(blocks[..., 16:48], range(8), 1)
    quants = np.concatenate([_q4_k_nibbles(blocks[..., 48:]), _bits(_flat(fifth))], -1)
    return _joined(blocks, blocks[..., :4], _per_32(scales, minima), quants)


def q6_k(blocks):
    low = blocks[..., :128].reshape(*blocks.shape[:2], 2, 64)
    high = blocks[..., 128:192].reshape(*blocks.shape[:2], 2, 32)
    low, high = _flat(_spread(low, (0, 4), 15)), _flat(_spread(high, (0, 2, 4, 6), 3))
    scales = blocks[..., 192:208].reshape(len(blocks), -1, 2)
    return _joined(blocks, blocks[..., 208:], scales, np.concatenate([_nibbles(low), _pairs(high)], -1))


def _q2_codes(qs):
    """64 bytes -> (rows, blocks of 32, 32)"""
    return _flat(_spread(qs.reshape(*qs.shape[:2], 2, 32), (0, 2, 4, 6), 3))


def q3_k(blocks):
    third = _flat(_spread(blocks[..., :32], range(8), 1))
    packed = blocks[..., 96:108]
    low = np.concatenate([packed[..., :8] & 15, packed[..., :8] >> 4], -1)
    high = _spread(packed[..., 8:], (0, 2, 4, 6), 3).reshape(*packed.shape[:2], 16)
    scales = (low | high << 4) - np.uint8(32)  # int8, as bytes
    quants = np.concatenate([_pairs(_q2_codes(blocks[..., 32:96])), _bits(third)], -1)
    return _joined(blocks, blocks[..., 108:], scales.reshape(len(blocks), -1, 2), quants)


def q2_k(blocks):
    return _joined(
        blocks, blocks[..., 80:], blocks[..., :16].reshape(len(blocks), -1, 2), _pairs(_q2_codes(blocks[..., 16:80]))
    )


def iq4_xs(blocks):
    high = blocks[..., 2:4].copy().view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16) & 3  # (rows, blocks, 8)
    low = _spread(blocks[..., 4:8], (0, 4), 15).swapaxes(-1, -2).reshape(*high.shape)
    scales = (low | high.astype(np.uint8) << 4) - np.uint8(32)  # int8, as bytes
    return _joined(blocks, blocks[..., :2], _per_32(scales), blocks[..., 8:].reshape(len(blocks), -1, 16))


def _q4_16(blocks, start):
    """Two blocks of 16, a byte for each two neighbours, make one of 32."""
    pairs = blocks.reshape(len(blocks), -1, 2, blocks.shape[-1])
    codes = _spread(pairs[..., start:], (0, 4), 15).swapaxes(-1, -2)  # (rows, blocks, 2, 8, 2)
    return _joined(pairs, pairs[..., :start], _nibbles(codes.reshape(*pairs.shape[:2], 32)))


def q4_2(blocks):
    return _q4_16(blocks, 2)


def q4_3(blocks):
    return _q4_16(blocks, 4)
