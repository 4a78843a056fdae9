"""A model as the table of stages that the kernel `step` runs, and the memory that its activations need.

An architecture (`models/`) says here, once, what a layer does; afterwards a step is one compiled call. The numbers of
the stages and their columns are those of `kernels_src/step.py`. Knows no architecture, no weights' values and no
tokens.
"""

from dataclasses import dataclass

import numpy as np

from .packed import ROWS, Matrix, Vector

MATMUL, NORM, QUANTISE, ROPE_KEEP, ATTEND, MERGE, ACTIVATE, PEAKS, EMBED, CHOOSE, SORT, GATHER, MIX = range(13)
SILU, GELU, SOFT_CAP = range(3)  # what ACTIVATE does
COLUMNS = 16
SIDE = 32  # most experts that a token can choose
UNLIMITED = 1 << 30  # a window wider than any context
PAGE = 128  # positions of a page of the cache
PEAK = 128  # logits of which the step tells the largest
MOST_QUERIES = 64  # of a key/value head, that several sequences ask together
SPLIT_TOKENS = 4  # steps of at most so many tokens, all of one sequence, share its pages among threads


def page_result(head_dim):
    """Floats of what one page gives to a query: a partial result of attention."""
    return 32 + head_dim


def scratch(head_dim):
    """Floats that each thread has for itself in attention."""
    return 8 * PAGE + (8 + MOST_QUERIES) * page_result(head_dim)


@dataclass(frozen=True)
class Slot:
    """Activations, (tokens, width): from `base` on in the float array, and in the int8 array the same in 8 bits."""

    base: int
    width: int

    def narrowed(self, width):
        """The same room, for at most as many activations."""
        return Slot(self.base, width)


@dataclass(frozen=True)
class Heads:
    """The shape of attention."""

    count: int
    kv_count: int
    dim: int
    rotated: int  # dimensions that rope turns

    def group(self):
        return self.count // self.kv_count


@dataclass(frozen=True)
class Norm:
    """Weights of a norm, and its biases; `centred`: it takes away the mean (LayerNorm), or else does not (RMSNorm)."""

    weights: Vector
    biases: Vector | None
    centred: bool
    eps: float


@dataclass(frozen=True)
class Linear:
    """A matrix, and what is added to its products."""

    matrix: Matrix
    biases: Vector | None = None


@dataclass(frozen=True)
class Experts:
    """A mixture of experts: `count` of them, of which each token chooses `used`, with `hidden` activations each.

    normalised : whether the probabilities of the chosen ones are made to add up to 1.  router : gives the experts'
    logits.
    gate, up, down : the matrices of all experts, one below the other.
    """

    count: int
    used: int
    hidden: int
    normalised: bool
    router: Linear
    gate: Matrix
    up: Matrix
    down: Matrix


@dataclass(frozen=True)
class Bench:
    """Room for a mixture of experts: for each token its logits, the shared expert's and its choices; the list of
    experts; and for each choice of a token its row of what goes into the experts, of the activations within, and of
    what they give."""

    logits: Slot
    shared: Slot
    choices: Slot
    table: int
    rows: Slot
    gate: Slot
    up: Slot
    out: Slot


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

    def embed(self, slot: Slot, scale=1.0, positions: Vector | None = None):
        """Multiply the tokens' embeddings, and add what belongs to their positions."""
        self._add(EMBED, [slot.base, slot.width, self._const(scale), positions.offset if positions else -1])

    def norm(self, norm: Norm, source: Slot, target: Slot, add=False, outputs=False, heads=None, barrier=True):
        """target = the norm of source, or target + that.

        heads : (int, int), optional
            So many pieces of so many numbers are normed by themselves, with the same weights or with their own.
        """
        pieces, size, step = 1, source.width, 0
        if heads:
            pieces, size = heads
            step = 4 * size if norm.weights.size > size else 0
        self._add(
            NORM,
            [norm.weights.offset, source.base, target.base, source.width, self._const(norm.eps),
             norm.biases.offset if norm.biases else -1, int(norm.centred), int(add), pieces, size, step],
            outputs=outputs, barrier=barrier,
        )  # fmt: skip

    def linear(self, linear: Linear, source: Slot, target: Slot, add=False, outputs=False, barrier=True):
        """target = matrix @ source + biases, or target + that.
        Without a barrier the next stage must not need the target."""
        biases = linear.biases.offset if linear.biases else -1
        self._product(linear.matrix, linear.matrix.groups, source, target, add, biases, -1, outputs, barrier)

    def _product(self, matrix, groups, source, target, add=False, biases=-1, table=-1, outputs=False, barrier=True):
        if groups * ROWS > target.width or matrix.columns != source.width:
            raise ValueError(f"{matrix} does not fit {source} and {target}")
        self._add(
            MATMUL,
            [matrix.kind, matrix.offset, matrix.group_bytes, groups,
             source.base, source.width, target.base, target.width, int(add), biases, table],
            outputs=outputs, barrier=barrier,
        )  # fmt: skip

    def attention(
        self, layer, heads: Heads, q: Slot, k: Slot, v: Slot, target: Slot, scale=None, window=None, cap=0.0,
        table=(0, 1),
    ):  # fmt: skip
        """Turn q and k by rope, keep k and v in the cache, and attend to the positions up to each token's own.

        Parameters
        ----------
        scale : float, optional
            Of the products of queries and keys; by default 1 / sqrt(heads.dim).
        window : int, optional
            How many positions a token sees, its own included; by default all.
        cap : float
            What soft-caps the products, or 0.
        table : (int, int)
            Which of how many tables of angles.
        """
        place = layer * self.pages * heads.kv_count * PAGE * heads.dim
        half = heads.rotated // 2
        self._add(
            ROPE_KEEP,
            [q.base, k.base, v.base, heads.count, heads.kv_count, heads.dim, place,
             self._const(scale or heads.dim**-0.5), half, q.width, k.width, table[1] * 2 * half, table[0] * 2 * half],
        )  # fmt: skip
        own = self.threads * scratch(heads.dim)
        columns = [q.base, target.base, heads.count, heads.kv_count, heads.dim, place, own, q.width]
        self._add(ATTEND, [*columns, window or UNLIMITED, self._const(cap)])
        self._add(MERGE, columns)
        quads = -(-SPLIT_TOKENS * heads.group() // 4)
        self.scratch = max(self.scratch, own + heads.kv_count * quads * 4 * self.pages * page_result(heads.dim))
        if heads.dim % 32:  # whole blocks of 32 are quantised head by head already
            self.quantise(target)

    def quantise(self, slot: Slot):
        """Fill in the 8 bits of activations that were written as floats only."""
        self._add(QUANTISE, [slot.base, slot.width])

    def activate(self, kind, source: Slot, target: Slot, times: Slot | None = None, cap=0.0, outputs=False):
        """target = SILU, GELU or SOFT_CAP of source, and that times `times`."""
        columns = [source.base, times.base if times else -1, target.base, target.width, kind, self._const(cap)]
        self._add(ACTIVATE, columns, outputs=outputs)

    def bench(self, experts: Experts, width) -> Bench:
        """Room for `mixture`, which all layers may use."""
        rows = [self.slot(experts.used * n) for n in (width, experts.hidden, experts.hidden, width)]
        table = self.activations
        self.activations += -(-(5 * experts.count + 4) // 32) * 32
        return Bench(self.slot(experts.count), self.slot(32), self.slot(4 * SIDE), table, *rows)

    def mixture(self, experts: Experts, bench: Bench, source: Slot, target: Slot, kind, shared=None):
        """target += what the experts that a token chooses make of source:
        down @ (activation(gate @ source) * (up @ source)).

        Parameters
        ----------
        kind : int
            The activation.
        shared : (Linear, Slot), optional
            What gives the logit of the shared expert's weight, and what that expert gave.
        """
        choices, used, width = bench.choices.base, experts.used, source.width
        if shared:
            self.linear(shared[0], source, bench.shared, barrier=False)
        self.linear(experts.router, source, bench.logits)
        self._add(
            CHOOSE,
            [bench.logits.base, bench.logits.width, experts.count, used, choices, int(experts.normalised),
             bench.shared.base if shared else -1, bench.shared.width],
        )  # fmt: skip
        self._add(SORT, [choices, experts.count, used, bench.table])
        self._add(GATHER, [choices, used, source.base, bench.rows.base, width])
        self._of_experts(experts, experts.gate, bench, bench.rows, bench.gate, barrier=False)
        self._of_experts(experts, experts.up, bench, bench.rows, bench.up)
        self.activate(kind, bench.gate, bench.gate, bench.up)
        self._of_experts(experts, experts.down, bench, bench.gate, bench.out)
        self._add(MIX, [choices, used, bench.out.base, target.base, width, shared[1].base if shared else -1])

    def _of_experts(self, experts, matrix, bench, source, target, barrier=True):
        """A product in which each row has the matrix of its expert."""
        rows, used = matrix.rows // experts.count, experts.used
        self._product(
            matrix, rows // ROWS, Slot(source.base, source.width // used), Slot(target.base, target.width // used),
            barrier=barrier, table=bench.table,
        )  # fmt: skip

    def peaks(self, logits: Slot, vocab):
        """Tell the largest of every PEAK of the `vocab` logits of each output."""
        self._add(PEAKS, [logits.base, logits.width, vocab], outputs=True)

    def _const(self, value):
        if value not in self._consts:
            self._consts.append(value)
        return self._consts.index(value)

    def _add(self, op, columns, outputs=False, barrier=True):
        self._rows.append([op, int(barrier), int(outputs), *columns])
