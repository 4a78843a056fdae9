"""The key/value cache: pages of positions, and the sequences that they are given to.

A page has room for PAGE positions of every layer. Sequences take pages as they grow and give them back as they are cut,
so several share one cache whatever their lengths; those that begin alike share pages, too, until one of them writes to
one.
Knows what keys and values look like, and not what they mean.
"""

import numpy as np

from ..errors import ContextFullError, OptionError, quoted
from .arrays import zeros
from .program import PAGE

PRECISIONS = (32, 16, 8)  # bits of a number


def checked_bits(bits) -> int:
    """The precision, if there is such a one; OptionError otherwise."""
    if bits not in PRECISIONS:
        raise OptionError(f"cache_bits={quoted(bits)} is not supported: give {' or '.join(map(str, PRECISIONS))}.")
    return bits


class Sequence:
    """Tokens that follow each other.

    Attributes
    ----------
    tokens : list of int
        The ids whose keys and values are in the cache. It may be cut at its end at any time, and then goes on from
        there.
    pages : list of int
        Numbers of the pages that they lie in, PAGE in each.
    ended : bool
        Whether another sequence has gone on with its tokens; nothing can be computed for it.
    """

    def __init__(self):
        self.tokens = []
        self.pages = []
        self.ended = False


class Cache:
    """Keys and values of all layers.

    Parameters
    ----------
    layers : int
    heads : program.Heads
    positions : int
        Room for so many, of all sequences together.
    bits : int
        16 for half precision; 8 for 8-bit numbers with one scale for a head of a position, which takes about half the
        memory; 32 for the numbers as they were computed.

    Attributes
    ----------
    pages : int
    arrays : tuple
        As the kernel takes them. Memory is used from a page's first use on.
    nbytes : int

    Raises
    ------
    OptionError
        There is no such precision.
    """

    def __init__(self, layers, heads, positions, bits=16):
        self.bits = checked_bits(bits)
        self.pages = -(-positions // PAGE)
        n = layers * self.pages * heads.kv_count * PAGE  # heads of positions
        half, small = (n * heads.dim * (bits == width) for width in (16, 8))
        scales = {8: n, 32: n * heads.dim}.get(bits, 0)
        self.arrays = (
            zeros(half, np.uint16),  # keys (layers, pages, kv_heads, PAGE / 16, head_dim, 16) float16
            zeros(half, np.uint16),  # values (layers, pages, kv_heads, PAGE, head_dim) float16
            zeros(small, np.int8),  # the same in 8 bits
            zeros(small, np.int8),
            zeros(scales, np.float32),  # scales of the keys (layers, pages, kv_heads, PAGE), or the same in 32 bits
            zeros(scales, np.float32),  # and of the values, or these
        )
        self.nbytes = sum(array.nbytes for array in self.arrays)
        self._layers, self._heads = layers, heads
        self._free = list(range(self.pages))[::-1]
        self._users = [0] * self.pages  # how many sequences have each page

    @property
    def free(self) -> int:
        """How many pages no sequence has."""
        return len(self._free)

    def fork(self, sequence, length) -> Sequence:
        """A new sequence with the first `length` tokens of another; nothing is copied yet."""
        forked = Sequence()
        forked.tokens = sequence.tokens[:length]
        forked.pages = sequence.pages[: -(-len(forked.tokens) // PAGE)]
        for page in forked.pages:
            self._users[page] += 1
        return forked

    @property
    def layout(self) -> dict[str, int]:
        """What tells whether pages of another cache can be put into this one: they are laid out alike."""
        heads = {"layers": self._layers, "heads": self._heads.kv_count, "head_dim": self._heads.dim}
        return {"bits": self.bits, **heads, "page": PAGE, "page_bytes": sum(part.nbytes for part in self._parts(0))}

    def read(self, sequence):
        """The bytes of a sequence's pages, in order, one after the other; yields uint8 (page_bytes,), a copy.

        What the last page holds beyond the sequence is of others, and comes as zeros.
        """
        for number, page in enumerate(sequence.pages):
            parts = [part.copy() for part in self._parts(page)]
            if (number + 1) * PAGE > len(sequence.tokens):
                self._clear(parts, len(sequence.tokens) - number * PAGE)
            yield np.concatenate([part.view(np.uint8).ravel() for part in parts])

    def write(self, sequence, number, data) -> bool:
        """Put bytes that `read` gave into a sequence's page, by its number there; whether all in them is finite.

        data : uint8 (page_bytes,)
        """
        finite, at = True, 0
        for part in self._parts(sequence.pages[number]):
            values = data[at : at + part.nbytes].view(part.dtype).reshape(part.shape)
            floats = values.view(np.float16) if part.dtype == np.uint16 else values
            finite &= part.dtype == np.int8 or bool(np.isfinite(floats).all())
            part[...] = values
            at += part.nbytes
        return finite

    def release(self, sequence):
        """Take back all pages of a sequence, which then is empty."""
        sequence.tokens = []
        self.fit(sequence, 0)

    def fit(self, sequence, more):
        """Give a sequence the pages for its tokens and `more`, and take back those that it does not need.

        Raises
        ------
        ContextFullError
            There are not enough; the sequence is as before.
        """
        length = len(sequence.tokens)
        need = -(-(length + more) // PAGE)
        first = length // PAGE  # the first page that is going to be written to
        shared = more > 0 and first < len(sequence.pages) and self._users[sequence.pages[first]] > 1
        for page in sequence.pages[need:]:
            self._give_back(page)
        del sequence.pages[need:]
        if need - len(sequence.pages) + shared > len(self._free):
            raise ContextFullError(f"the cache is full: all its {self.pages * PAGE} positions are in use.")
        if shared:
            own = self._take()
            self._copy(sequence.pages[first], own)
            self._give_back(sequence.pages[first])
            sequence.pages[first] = own
        while len(sequence.pages) < need:
            sequence.pages.append(self._take())

    def _take(self):
        page = self._free.pop()
        self._users[page] = 1
        return page

    def _give_back(self, page):
        self._users[page] -= 1
        if not self._users[page]:
            self._free.append(page)

    def _copy(self, page, to):
        for source, target in zip(self._parts(page), self._parts(to), strict=True):
            target[...] = source

    def _parts(self, page):
        """What each array has of a page: views (layers, n)."""
        return [array.reshape(self._layers, self.pages, -1)[:, page] for array in self.arrays if array.size]

    def _clear(self, parts, length):
        """Zeros from this position of a page on, in a copy of it."""
        shape = self._layers, self._heads.kv_count
        keys, values, *scales = parts
        keys = keys.reshape(*shape, PAGE // 16, self._heads.dim, 16)
        keys[:, :, length // 16, :, length % 16 :] = 0
        keys[:, :, length // 16 + 1 :] = 0
        for part in (values, *scales):
            part.reshape(*shape, PAGE, -1)[:, :, length:] = 0
