"""Byte-level byte-pair encoding, as GPT-2 has it: text is cut into words, and the bytes of each word merged by rank.

The cutting differs between models; `PRE_TOKENIZERS` has a row for each one known. Refuses to know about special tokens.
"""

import heapq
from functools import lru_cache

import regex

from ..errors import ModelFileError
from .base import Tokenizer, read_key

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# tokenizer.ggml.pre -> patterns, each of which cuts the pieces that the one before it left
PRE_TOKENIZERS = {
    "gpt-2": (GPT2,),
    "smollm": (r"\p{N}", GPT2),
}

# GPT-2 spells every byte as a printable character: itself where it is one, else the next from U+0100 on.
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
SPELLING = {byte: byte for byte in PRINTABLE} | {
    byte: 256 + i for i, byte in enumerate(sorted(set(range(256)) - set(PRINTABLE)))
}
BYTES = {chr(code): bytes([byte]) for byte, code in SPELLING.items()}

CACHED_WORDS, CACHED_LENGTH = 1 << 16, 64  # longer words hardly ever come back


class BPE(Tokenizer):
    """Byte-level BPE (`tokenizer.ggml.model` = gpt2).

    Vocabularies that were learnt from text have no token for bytes that never occurred in it: some control characters,
    and what only unassigned code points use. Such bytes are left out of the ids, as llama.cpp leaves them out.
    """

    def __init__(self, metadata):
        super().__init__(metadata)
        pre = read_key(metadata, "pre", str, "default")
        if pre not in PRE_TOKENIZERS:
            known = ", ".join(PRE_TOKENIZERS)
            raise ModelFileError(f"Pre-tokenizer {pre[:80]!r} is not supported; use a model with one of {known}.")
        self._patterns = [regex.compile(f"({pattern})") for pattern in PRE_TOKENIZERS[pre]]
        merges = read_key(metadata, "merges", list)  # "left right", best first
        self._ranks = dict(zip(reversed(merges), range(len(merges) - 1, -1, -1), strict=True))  # first twin wins
        self._cached_word_ids = lru_cache(CACHED_WORDS)(self._word_ids)

    def encode_plain(self, text):
        words = [text]
        for pattern in self._patterns:
            words = [part for word in words for part in pattern.split(word) if part]
        ids = []
        for word in words:
            ids += self._cached_word_ids(word) if len(word) <= CACHED_LENGTH else self._word_ids(word)
        return ids

    def plain_bytes(self, token):
        # A character that spells no byte (some files have such tokens) stands for itself.
        return b"".join(BYTES.get(char) or char.encode("utf-8", "surrogateescape") for char in token)

    def _word_ids(self, word):
        """Token ids of one word: list of int."""
        raw = word.encode("utf-8", "surrogatepass")  # a lone surrogate is no character, but no reason to fail either
        symbols = self._merge(list(raw.decode("latin-1").translate(SPELLING)))
        ids = []
        for symbol in symbols:
            id = self.ids.get(symbol)  # None: a byte the vocabulary lacks, or a merge whose result is no token
            ids += [id] if id is not None else [self.ids[char] for char in symbol if char in self.ids]
        return ids

    def _merge(self, symbols):
        """Merge neighbours, best rank first and leftmost among equals, until no pair has a rank.

        A heap of candidate pairs over a linked list: n log n, whatever the text.
        """
        ranks, n = self._ranks, len(symbols)
        following = list(range(1, n + 1))  # (n,) index of the next living symbol, n after the last
        preceding = list(range(-1, n))  # (n + 1,) index of the one before, -1 before the first
        heap = []  # (rank, index of the left symbol, left, right)

        def offer(left, right):
            if left >= 0 and right < n:
                rank = ranks.get(f"{symbols[left]} {symbols[right]}")
                if rank is not None:
                    heapq.heappush(heap, (rank, left, symbols[left], symbols[right]))

        for i in range(n - 1):
            offer(i, i + 1)
        while heap:
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
