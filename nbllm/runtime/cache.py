"""The key/value cache: pages of positions, and the sequences that they are given to.

A page has room for PAGE positions of every layer. Sequences take pages as they grow and give them back as they are cut, so
several share one cache whatever their lengths; those that begin alike share pages, too, until one of them writes to one.
Knows what keys and values look like, and not what they mean.
"""

import numpy as np

from ..errors import ContextFullError, OptionError
from .program import PAGE

PRECISIONS = (32, 16, 8)  # bits of a number


class Sequence:
    """Tokens that follow each other.

    Attributes
    ----------
    tokens : list of int
        The ids whose keys and values are in the cache. It may be cut at its end at any time, and then goes on from there.
    pages : list of int
        Numbers of the pages that they lie in, PAGE in each.
    """

    def __init__(self):
        self.tokens = []
        self.pages = []


class Cache:
    """Keys and values of all layers.

    Parameters
    ----------
    layers : int
    heads : program.Heads
    positions : int
        Room for so many, of all sequences together.
    bits : int
        16 for half precision; 8 for 8-bit numbers with one scale for a head of a position, which takes about half the memory; 32
        for the numbers as they were computed.

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
        if bits not in PRECISIONS:
            raise OptionError(f"cache_bits={bits!r} is not supported: give {' or '.join(map(str, PRECISIONS))}.")
        self.bits = bits
        self.pages = -(-positions // PAGE)
        n = layers * self.pages * heads.kv_count * PAGE  # heads of positions
        half, small = (n * heads.dim * (bits == width) for width in (16, 8))
        scales = {8: n, 32: n * heads.dim}.get(bits, 0)
        self.arrays = (
            np.zeros(half, np.uint16),  # keys (layers, pages, kv_heads, PAGE / 16, head_dim, 16) float16
            np.zeros(half, np.uint16),  # values (layers, pages, kv_heads, PAGE, head_dim) float16
            np.zeros(small, np.int8),  # the same in 8 bits
            np.zeros(small, np.int8),
            np.zeros(scales, np.float32),  # scales of the keys (layers, pages, kv_heads, PAGE), or the same in 32 bits
            np.zeros(scales, np.float32),  # and of the values, or these
        )
        self.nbytes = sum(array.nbytes for array in self.arrays)
        self._layers = layers
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
        for array in self.arrays:
            if array.size:
                pages = array.reshape(self._layers, self.pages, -1)
                pages[:, to] = pages[:, page]
