"""The key/value cache: pages of positions, and the sequences that they are given to.

A page has room for PAGE positions of every layer. Sequences take pages as they grow and give them back as they are cut, so
several share one cache whatever their lengths. Knows what keys and values look like, and not what they mean.
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
        self._free = list(range(self.pages))[::-1]

    def fit(self, sequence, more):
        """Give a sequence the pages for its tokens and `more`, and take back those that it does not need.

        Raises
        ------
        ContextFullError
            There are not enough; the sequence is as before.
        """
        need = -(-(len(sequence.tokens) + more) // PAGE)
        if need - len(sequence.pages) > len(self._free):
            raise ContextFullError(f"the cache is full: all its {self.pages * PAGE} positions are in use.")
        while len(sequence.pages) < need:
            sequence.pages.append(self._free.pop())
        self._free += sequence.pages[need:][::-1]
        del sequence.pages[need:]
