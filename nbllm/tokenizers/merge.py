"""Merging neighbours by priority, which byte-pair encoding and SentencePiece do with the symbols of a word.

And cutting where no merge can ever go across, so that each piece can be merged, and remembered, by itself.

Refuses to know where priorities come from, and what becomes of the symbols.
"""

import heapq
from array import array
from itertools import compress, count
from math import inf
from operator import add, not_

import numpy as np

from .looking import OFTEN, looking, unwatched

NEVER = inf  # the priority of a pair that does not merge
LONG = 256  # symbols, above which a heap is faster than looking at all pairs each time
PIECE = 1 << 16  # characters that are cut at once


def merge(symbols, priority, look=unwatched):
    """The symbols after merging neighbours, lowest priority first and leftmost among equals, until no pair merges.

    Parameters
    ----------
    symbols : list of str
        Is changed.
    priority : callable
        Of two neighbours: a number, or NEVER.
    look : callable
        As in `looking.py`.

    Returns
    -------
    list of str
    """
    if len(symbols) > LONG:
        return _merge_many(symbols, priority, look)
    pairs = list(map(priority, symbols, symbols[1:]))  # pairs[i] is the priority of symbols i and i + 1
    while pairs:
        best = min(pairs)
        if best == NEVER:
            break
        i = pairs.index(best)
        symbols[i] += symbols.pop(i + 1)
        del pairs[i]
        if i:
            pairs[i - 1] = priority(symbols[i - 1], symbols[i])
        if i < len(pairs):
            pairs[i] = priority(symbols[i], symbols[i + 1])
    return symbols


def _merge_many(symbols, priority, look):
    """The same with a heap of candidates over a linked list: n log n, whatever the text."""
    n = len(symbols)
    # Arrays, for lists of numbers take ten times the memory. Index of the next living symbol, n after the last: (n,)
    following = array("q", np.arange(1, n + 1, dtype=np.int64).tobytes())
    # Index of the one before, -1 before the first: (n + 1,)
    preceding = array("q", np.arange(-1, n, dtype=np.int64).tobytes())
    heap = []  # (priority, index of the left symbol, left, right)

    def offer(left, right):
        if left >= 0 and right < n:
            value = priority(symbols[left], symbols[right])
            if value < NEVER:
                heapq.heappush(heap, (value, left, symbols[left], symbols[right]))

    for i in looking(range(n - 1), look):
        offer(i, i + 1)
    since = 0
    while heap:
        since += 1
        if since % OFTEN == 0:
            look()
        _, i, left, right = heapq.heappop(heap)
        j = following[i]
        if symbols[i] != left or j == n or symbols[j] != right:
            continue  # one of the two has merged with another neighbour meanwhile
        symbols[i], symbols[j] = left + right, None
        following[i] = following[j]
        preceding[following[j]] = i
        offer(preceding[i], i)
        offer(i, following[i])
    return [symbol for symbol in symbols if symbol is not None]


def cut(text, joins, look=unwatched):
    """The text in pieces: cut between two characters a and b where `joins(a + b)` is false."""
    ends = []
    for begin in range(0, len(text), PIECE):
        look()
        pairs = map(add, text[begin : begin + PIECE], text[begin + 1 : begin + PIECE + 1])
        ends += compress(count(begin + 1), map(not_, map(joins, pairs)))
    ends.append(len(text))
    return [text[a:b] for a, b in looking(zip([0, *ends], ends), look)]
