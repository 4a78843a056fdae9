"""Which tokens of a step attention goes over at once, as the kernels are told it. Knows page numbers and no content."""

from math import gcd

from .generation import common_prefix
from .program import MOST_QUERIES


def together(queries):
    """How many sequences attention goes over at once, where each has so many queries of a key/value head: no place
    among eight is left empty, if that is possible."""
    return max(1, min(8 // gcd(8, queries), MOST_QUERIES // queries))


def attended(parts, most):
    """The spans of tokens that attention goes over at once, and the lists of pages that they name
    (`kernels_src/step.py`).

    Sequences that compute a token each and begin with the same pages, as those with the same instruction do, are one
    span.

    Parameters
    ----------
    parts : list of (list of int, int)
        A sequence's pages, and how many tokens it computes.
    most : int
        Sequences in a span.
    """
    spans, pages, token, i = [], [], 0, 0
    while i < len(parts):
        first, tokens = parts[i]
        alike, end = len(first), i + 1
        while end < min(i + most, len(parts)) and tokens == parts[end][1] == 1:
            common = common_prefix(first[:alike], parts[end][0])
            if not common:
                break
            alike, end = common, end + 1
        lists = [each for each, _ in parts[i:end]]
        longest = max(map(len, lists))
        apart = longest if len(lists) > 1 else 0
        spans.append((token, tokens * len(lists), len(pages), alike, apart))
        for each in lists:
            pages += each + [0] * (longest - len(each))
        token, i = token + tokens * len(lists), end
    return spans, pages
