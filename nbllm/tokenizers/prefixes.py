"""Which of many tokens a text has at a place: the longest there, however many and however long they are.

Refuses to know what tokens are, and which of them are wanted.
"""

import re
from bisect import bisect_right

from .looking import looking, unwatched


class Prefixes:
    """
    Parameters
    ----------
    tokens : iterable of str
    """

    def __init__(self, tokens):
        self._sorted = sorted({token for token in tokens if token})
        self._shorter = []  # for each of them the index of the longest that it begins with, -1 for none
        for i, token in enumerate(self._sorted):
            before = i - 1
            while before >= 0 and not token.startswith(self._sorted[before]):
                before = self._shorter[before]
            self._shorter.append(before)
        self._longest = max(map(len, self._sorted), default=0)
        self._heads = {token[:2] for token in self._sorted}  # two characters, since one is often a space
        first = "".join({token[0] for token in self._sorted})
        self._first = re.compile(f"[{re.escape(first)}]" if first else "(?!)")

    def at(self, text, begin, end=None):
        """The longest that the text has at `begin` and before `end`; empty if there is none."""
        until = begin + self._longest
        part = text[begin : until if end is None else min(end, until)]
        i = bisect_right(self._sorted, part) - 1
        while i >= 0 and not part.startswith(self._sorted[i]):
            i = self._shorter[i]
        return self._sorted[i] if i >= 0 else ""

    def places(self, text, look=unwatched):
        """Where one of them may begin, from the left. `look` as in `looking.py`."""
        for match in looking(self._first.finditer(text), look):
            begin = match.start()
            if match[0] in self._heads or text[begin : begin + 2] in self._heads:
                yield begin
