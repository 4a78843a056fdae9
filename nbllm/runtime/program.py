"""A model as the table of stages that the kernel `step` runs, and the memory that its activations need.

An architecture (`models/`) says here, once, what a layer does; afterwards a step is one compiled call. The numbers of the
stages and their columns are those of `kernels_src/step.py`. Knows no architecture, no weights' values and no tokens.
"""

from dataclasses import dataclass

import numpy as np

from .packed import ROWS, Matrix, Vector

MATMUL, RMS_NORM, QUANTISE, ROPE_KEEP, ATTEND, MERGE, SILU_MUL, PEAKS = range(8)
COLUMNS = 16
PAGE = 128  # positions of a page of the cache
PEAK = 128  # logits of which the step tells the largest
SPLIT_TOKENS = 4  # steps of at most so many tokens, all of one sequence, share its pages among threads


@dataclass(frozen=True)
class Slot:
    """Activations, (tokens, width): from `base` on in the float array, and in the int8 array the same in 8 bits."""

    base: int
    width: int


@dataclass(frozen=True)
class Heads:
    """The shape of attention."""

    count: int
    kv_count: int
    dim: int
    rotated: int  # dimensions that rope turns

    def group(self):
        return self.count // self.kv_count


class Program:
    """Built by an architecture, stage after stage.

    Parameters
    ----------
    max_tokens, max_outputs : int
        Most tokens in a step, and most of these whose logits are wanted.
    pages : int
        Pages in the cache.
    threads : int

    Attributes
    ----------
    activations : int
        Elements of the activations.
    scratch : int
        Floats of scratch memory.
    input, output : Slot
        Where the tokens' embeddings go and where the logits come from; set by the architecture.
    """

    def __init__(self, max_tokens, max_outputs, pages, threads):
        self.max_tokens, self.max_outputs, self.pages, self.threads = max_tokens, max_outputs, pages, threads
        self.activations = 0
        self.scratch = 0
        self.input = self.output = None
        self._rows = []
        self._consts = []

    def slot(self, width, outputs=False) -> Slot:
        """Room for `width` activations a token; `outputs`: of the tokens whose logits are wanted only."""
        slot = Slot(self.activations, -(-width // 32) * 32)
        self.activations += slot.width * (self.max_outputs if outputs else self.max_tokens)
        return slot

    def table(self):
        """(stages, COLUMNS) int64"""
        return np.array([row + [0] * (COLUMNS - len(row)) for row in self._rows], np.int64)

    def consts(self):
        """(n,) float32"""
        return np.array(self._consts, np.float32)

    def rms_norm(self, weights: Vector, source: Slot, target: Slot, eps, outputs=False):
        """target = source / sqrt(mean of its squares + eps) * weights"""
        self._add(RMS_NORM, [weights.offset, source.base, target.base, source.width, self._const(eps)], outputs=outputs)

    def matmul(self, matrix: Matrix, source: Slot, target: Slot, add=False, outputs=False, barrier=True):
        """target = matrix @ source, or target + that. Without a barrier the next stage must not need the target."""
        if matrix.groups * ROWS > target.width or matrix.columns != source.width:
            raise ValueError(f"{matrix} does not fit {source} and {target}")
        self._add(
            MATMUL,
            [matrix.kind, matrix.offset, matrix.group_bytes, matrix.groups,
             source.base, source.width, target.base, target.width, int(add)],
            outputs=outputs, barrier=barrier,
        )  # fmt: skip

    def attention(self, layer, heads: Heads, q: Slot, k: Slot, v: Slot, target: Slot):
        """Turn q and k by rope, keep k and v in the cache, and attend to all positions up to each token's own."""
        place = layer * self.pages * heads.kv_count * PAGE * heads.dim
        scale = self._const(heads.dim**-0.5)
        self._add(
            ROPE_KEEP,
            [q.base, k.base, v.base, heads.count, heads.kv_count, heads.dim, place,
             scale, heads.rotated // 2, q.width, k.width],
        )  # fmt: skip
        result = 32 + heads.dim  # floats of a partial result
        own = self.threads * (4 * PAGE + 8 * result)
        columns = [q.base, target.base, heads.count, heads.kv_count, heads.dim, place, own, q.width]
        self._add(ATTEND, columns)
        self._add(MERGE, columns)
        quads = -(-SPLIT_TOKENS * heads.group() // 4)
        self.scratch = max(self.scratch, own + heads.kv_count * quads * 4 * self.pages * result)
        if heads.dim % 32:  # whole blocks of 32 are quantised head by head already
            self.quantise(target)

    def quantise(self, slot: Slot):
        """Fill in the 8 bits of activations that were written as floats only."""
        self._add(QUANTISE, [slot.base, slot.width])

    def silu_mul(self, gate: Slot, up: Slot, target: Slot):
        """target = silu(gate) * up"""
        self._add(SILU_MUL, [gate.base, up.base, target.base, target.width])

    def peaks(self, logits: Slot, vocab):
        """Tell the largest of every PEAK of the `vocab` logits of each output."""
        self._add(PEAKS, [logits.base, logits.width, vocab], outputs=True)

    def _const(self, value):
        if value not in self._consts:
            self._consts.append(value)
        return self._consts.index(value)

    def _add(self, op, columns, outputs=False, barrier=True):
        self._rows.append([op, int(barrier), int(outputs), *columns])
