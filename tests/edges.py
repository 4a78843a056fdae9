"""What kernels must bear: memory that begins anywhere and held anything, no tokens at all,
numbers at the ends of their range."""

import numpy as np
from product_runs import KINDS, SCALES, random_blocks

ROWS = (1, 15, 16, 17)  # of which sixteen make a group
TOKENS = (0, 1, 2, 17)  # of which four or eight make a tile
STEPS = (1, 17, 3)

HALVES = np.array(
    [0x0000, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00, 0x2000], np.uint16
)  # zeros, subnormals, the largest, infinities, no number, and a usual one
FINITE = np.array(
    [0.0, -0.0, 1e-45, -1e-40, 1.17549435e-38, 1e-30, 1.0, -65504.0, 65520.0, 1e30, 3.4e38, -3.4028235e38], np.float32
)
NOT_FINITE = np.array([np.inf, -np.inf, np.nan], np.float32)
# of an engine: each step writes first
ACTIVATIONS = ("_f", "_x", "_xd", "_xs", "_xm", "_xl", "_xr", "_scratch", "_peaks")


def _moved(array):
    """A copy that begins one element after what malloc gave, and ends where that does."""
    copy = np.empty(array.nbytes + array.itemsize, np.uint8)[array.itemsize :].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


class Moved:
    """A kernel whose arrays lie elsewhere in each step."""

    def __init__(self, kernel):
        self._kernel = kernel

    def step(self, *arguments):
        there = [_moved(value) if isinstance(value, np.ndarray) else value for value in arguments]
        stopped = self._kernel.step(*there)
        for here, value in zip(arguments, there, strict=True):
            if isinstance(here, np.ndarray) and here.flags.writeable:
                here[...] = value
        return stopped


class Emptied:
    """A kernel that after each step is given another one, of no tokens."""

    def __init__(self, kernel):
        self._kernel = kernel

    def step(self, *arguments):
        stopped = self._kernel.step(*arguments)
        *same, state, work, where, spans, pages, picked, split, threads = arguments
        nothing = np.zeros_like(state), np.zeros_like(work), where[:0], spans[:0], pages[:0], picked[:0]
        assert self._kernel.step(*same, *nothing, split, threads) == 0
        return stopped


def soil(engine):
    """Fill the engine's activations with what no step may read: none of it is a number, or it is the largest."""
    for name in ACTIVATIONS:
        array = getattr(engine, name)
        array.fill(np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).max)


def forget(engine):
    """Give the engine activations that were never written, which is what Valgrind follows."""
    for name in ACTIVATIONS:
        setattr(engine, name, np.empty_like(getattr(engine, name)))


def columns(kind):
    """The fewest columns that a matrix can have."""
    return max(32, kind.elements)


def extreme_blocks(name):
    """uint8 (rows, row_bytes): random rows, in each of which one extreme stands for every half-precision number of a
    block, or for every fifth number of a row without blocks."""
    kind, random = KINDS[name], np.random.default_rng(4)
    floats = np.concatenate([FINITE, NOT_FINITE])
    plain = {"F32": floats, "F16": HALVES, "BF16": (floats.view(np.uint32) >> 16).astype(np.uint16)}
    extremes = plain.get(name, HALVES)
    blocks = random_blocks(kind, (len(extremes), columns(kind)), random)
    if name in plain:
        blocks.view(extremes.dtype)[:, ::5] = extremes[:, None]
        return blocks
    parts = blocks.reshape(len(extremes), -1, kind.bytes)
    for at in SCALES[name]:
        parts[..., at : at + 2] = extremes.view(np.uint8).reshape(-1, 1, 2)
    return blocks


def extreme_activations(name, extremes):
    """float32 (tokens, columns): rows of usual numbers, each with some of one extreme;
    and then rows of nothing else."""
    random = np.random.default_rng(5)
    some = random.standard_normal((len(extremes), columns(KINDS[name]))).astype(np.float32)
    some[:, 3::7] = extremes[:, None]
    return np.concatenate([some, np.broadcast_to(extremes[:, None], some.shape)])
