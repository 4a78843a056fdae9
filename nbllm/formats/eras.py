"""The block layouts of before GGUF, and how they become today's (`blocks.py`).

Three eras: up to 12 May 2023, one week, and since. In the first, a byte of 4-bit codes holds two neighbours; today it
holds one code of either half of the block. In the first two, the scales of three types are float32, today float16. So
codes are kept, bit for bit, and those scales are rounded to the nearest float16, by 2^-11 of their value at most, as
the quantisers of the third era round them. Knows nothing of files or models.
"""

from dataclasses import dataclass

import numpy as np

from ..errors import ModelFileError
from .blocks import LAYOUTS

SCALES = ("d", "m")  # fields of a block


@dataclass(frozen=True)
class Era:
    """Block types by name: all there are, those with float32 scales, and those with neighbours in a byte."""

    types: frozenset
    wide: frozenset = frozenset()
    neighbours: frozenset = frozenset()

    def stored(self, kind):
        """The fields of a block as the era stores it: a structured dtype.

        kind : BlockType
        """
        fields = LAYOUTS[kind.name][0]
        if kind.name in self.wide:
            fields = [(name, "<f4" if name in SCALES else form, *shape) for name, form, *shape in fields]
        return np.dtype(fields)

    def modern(self, kind, data):
        """Rows of blocks in today's layout.

        Parameters
        ----------
        kind : BlockType
        data : uint8 (rows, stored row bytes)

        Returns
        -------
        uint8 (rows, row bytes)

        Raises
        ------
        ModelFileError
            A scale is no number, or too large for a float16.
        """
        if kind.name not in self.wide | self.neighbours:
            return data
        blocks = np.ascontiguousarray(data).view(self.stored(kind))  # (rows, blocks) records
        out = np.empty(blocks.shape, np.dtype(LAYOUTS[kind.name][0]))
        for name in out.dtype.names:
            if name == "qs" and kind.name in self.neighbours:
                out[name] = _halves(blocks[name])
                continue
            with np.errstate(invalid="ignore", over="ignore"):
                out[name] = blocks[name]
            if name in SCALES and kind.name in self.wide and not np.isfinite(out[name]).all():
                raise ModelFileError(f"a scale of its {kind.name} blocks is no number, or too large for 16 bits")
        return out.view(np.uint8)


def _halves(packed):
    """Codes 2j and 2j + 1 in byte j -> codes j and j + 16: uint8 (..., 16) both."""
    codes = np.ascontiguousarray(packed).astype("<u2").view("<u8")  # (..., 4): two codes in every second byte
    codes |= codes << np.uint64(4)
    codes &= np.uint64(0x0F0F0F0F0F0F0F0F)  # now one in each byte
    out = np.empty((*codes.shape[:-1], 2), "<u8")
    for half in range(2):
        out[..., half] = codes[..., half] | codes[..., half + 2] << np.uint64(4)
    return out.view(np.uint8)


WIDE = frozenset({"Q4_0", "Q4_1", "Q8_0"})
SECOND_TYPES = frozenset({"F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"})
FIRST = Era(SECOND_TYPES | {"Q4_2", "Q4_3"}, WIDE, frozenset({"Q4_0", "Q4_1", "Q5_0", "Q5_1"}))
SECOND = Era(SECOND_TYPES, WIDE)
THIRD = Era(SECOND_TYPES | {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"})
