"""Rope: by how much each position turns each pair of a head's dimensions, scaled as files say.
Knows no heads and no cache."""

import math

import numpy as np

from ...errors import ModelFileError
from ...formats.file import where
from ..arrays import zeros

LEAST = 1e-6  # of what is divided by
BLOCK = 1024  # positions whose angles are computed together
SCALINGS = ("none", "linear", "yarn", "longrope")


class Rope:
    """Rotary position embedding (Su et al., 2021): angle(p, j) = p * scale * base^(-2j / rotated) / factors[j].

    Parameters
    ----------
    file : base.Source
    rotated : int
        Dimensions that are turned, two by two.
    context : int
        Positions that the model was trained for.

    Raises
    ------
    ModelFileError
        The file asks for a scaling that is not computed.
    """

    def __init__(self, file, rotated, context):
        self.rotated = rotated
        self.kind = file.word("rope.scaling.type", "linear")
        if self.kind not in SCALINGS:
            at = where(file.metadata, f"{file.prefix}.rope.scaling.type")
            raise ModelFileError(f"rope scaling {self.kind!r}{at} is not computed; nbllm knows {', '.join(SCALINGS)}.")
        yarn = self.kind == "yarn"  # which divides by the logarithm of the base, and by these turns
        self.base = file.number("rope.freq_base", 1 + LEAST * yarn, 1e12, default=10000.0, kind=float)
        factor = file.number("rope.scale_linear", 0, 1e6, default=1.0, kind=float)  # the key of before August 2023
        factor = file.number("rope.scaling.factor", 0, 1e6, default=factor, kind=float)
        factor = factor and file.number("rope.scaling.factor", LEAST, 1e6, default=factor, kind=float)
        self.factor = factor if factor and self.kind in ("linear", "yarn") else 1.0
        self.original = file.number("rope.scaling.original_context_length", 0, 2**24, default=context) or context
        self.magnitude = file.number("rope.scaling.attn_factor", 0, 1e3, default=1.0, kind=float)
        self.fast = file.number("rope.scaling.yarn_beta_fast", LEAST * yarn, 1e6, default=32.0, kind=float)
        self.slow = file.number("rope.scaling.yarn_beta_slow", LEAST * yarn, 1e6, default=1.0, kind=float)
        names = {"all": "rope_freqs.weight", "long": "rope_factors_long.weight", "short": "rope_factors_short.weight"}
        self.factors = {key: file.array(name, rotated // 2) for key, name in names.items() if file.has(name)}
        for key, factors in self.factors.items():
            if not (np.isfinite(factors) & (factors > 0)).all():
                worst = factors[np.argmin(np.where(np.isfinite(factors), factors, -np.inf))]
                at = file.tensors[names[key]].offset
                raise ModelFileError(
                    f"tensor {names[key]!r} (from byte {at}) has the value {worst}, and angles are divided by it: it "
                    "must be above 0 and finite; the file is damaged, fetch it again."
                )
        if len(self.factors.keys() & {"long", "short"}) == 1:
            raise ModelFileError("of the long and the short factors of rope the file has one only; fetch it again.")

    def turns(self, context):
        """float64 (rotated / 2,): radians a position in a context of so many, and what cosines and sines are multiplied
        with."""
        turns = self.base ** (-np.arange(0, self.rotated, 2) / self.rotated)  # (rotated / 2,) float64
        turns = turns / self.factors.get("all", 1.0)
        if "long" in self.factors:
            turns = turns / self.factors["long" if context > self.original else "short"]
        magnitude = self.magnitude
        if self.kind == "yarn":
            kept = self._kept()
            turns = turns * (kept + (1 - kept) / self.factor)
            magnitude *= 1 + 0.1 * np.log(self.factor)
        else:
            turns = turns / self.factor
        return turns, magnitude

    def _kept(self):
        """float64 (rotated / 2,): how much of each pair's own frequency YaRN keeps (Peng et al., 2023):
        all of the fast ones."""

        def pair(turns):  # the pair that turns so often in the original context
            return self.rotated * np.log(self.original / (turns * 2 * np.pi)) / (2 * np.log(self.base))

        low, high = max(0, np.floor(pair(self.fast))), min(self.rotated - 1, np.ceil(pair(self.slow)))
        return 1 - np.clip((np.arange(self.rotated // 2) - low) / max(0.001, high - low), 0, 1)


class Angles:
    """Cosines and sines of the positions of a context, computed as positions are reached: a context may be so long that
    all of them take longer, and more memory, than what is said in it.

    Parameters
    ----------
    context : int
    turns : list of (float64 (pairs,), float)
        As `Rope.turns` gives them, for each table.

    Attributes
    ----------
    array : float32 (context, tables, 2, pairs)
        Of positions that were not reached yet, zeros.

    Raises
    ------
    TooLargeError
        There is no memory for them.
    """

    def __init__(self, context, turns):
        shape = context, len(turns), 2, turns[0][0].size
        self.array = zeros(math.prod(shape), np.float32).reshape(shape)
        self._turns, self._reached = turns, 0

    def reach(self, positions):
        """float32 (positions, tables, 2, pairs): those of the first positions, of which there are now so many at
        least."""
        while self._reached < min(positions, len(self.array)):
            block = np.arange(self._reached, min(self._reached + BLOCK, len(self.array)))  # (n,)
            for table, (turns, magnitude) in enumerate(self._turns):
                angles = block[:, None] * turns  # (n, pairs) float64
                self.array[block[0] : block[-1] + 1, table, 0] = magnitude * np.cos(angles)
                self.array[block[0] : block[-1] + 1, table, 1] = magnitude * np.sin(angles)
            self._reached += block.size
        return self.array[:positions]
