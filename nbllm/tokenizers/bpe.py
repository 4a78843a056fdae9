"""Byte-level byte-pair encoding, as GPT-2 has it: text is cut into words, and the bytes of each word merged by rank.

How words are cut is in `pre_tokenizers.py`. Refuses to know about special tokens.
"""

import re
from functools import cached_property

import regex

from ..formats.file import where
from .base import CACHED_LENGTH, Tokenizer, merge_ranks, read_key, remembering
from .looking import looking, unwatched
from .merge import NEVER, PIECE, cut, merge
from .pre_tokenizers import pre_tokenizer

# GPT-2 spells every byte as a printable character: itself where it is one, else the next from U+0100 on.
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
SPELLING = {byte: byte for byte in PRINTABLE} | {
    byte: 256 + i for i, byte in enumerate(sorted(set(range(256)) - set(PRINTABLE)))
}
BYTES = {chr(code): bytes([byte]) for byte, code in SPELLING.items()}


def _spelled_class(start, stop):
    """A character class of these bytes in their spelling."""
    return "[" + "".join(re.escape(chr(SPELLING[byte])) for byte in range(start, stop)) + "]"


# In a merge, "left right", whose right side begins a character: what its left side ends with, a character or as much of
# one as it has, and what the right one begins with, a character or as much.
_ASCII, _MORE, _LEAD = _spelled_class(0, 0x80), _spelled_class(0x80, 0xC0), _spelled_class(0xC0, 0x100)
SEAM = re.compile(
    f"(^{_MORE}+|{_ASCII}|{_LEAD}{_MORE}*) ({_ASCII}|{_spelled_class(0xC0, 0xE0)}{_MORE}?"
    f"|{_spelled_class(0xE0, 0xF0)}{_MORE}{{0,2}}|{_spelled_class(0xF0, 0x100)}{_MORE}{{0,3}})",
    re.MULTILINE,
)


AT_ONCE = 1 << 17  # characters that a pattern splits sooner than somebody waits for it to be broken off
LONG = 3  # characters of a word that is worth to be cut before it is merged


class BPE(Tokenizer):
    """Byte-level BPE (`tokenizer.ggml.model` = gpt2).

    Vocabularies that were learnt from text have no token for bytes that never occurred in it: some control characters,
    and what only unassigned code points use. Such bytes are left out of the ids, as llama.cpp leaves them out.

    Files of GPT-J of 2023 hold the tokens' bytes as they are, and some no merges. GPT-2's vocabulary, which is theirs,
    has its tokens in the order of the merges that made them, so a token's id then serves as the rank.
    """

    def __init__(self, metadata):
        super().__init__(metadata)
        raw = " the" in self.ids and spelled(" the") not in self.ids
        if raw:
            self._spell_tokens()
        name = read_key(metadata, "pre", str, "gpt-2" if raw else "default")
        self._pre = pre_tokenizer(name, where(metadata, "tokenizer.ggml.pre"))
        self.add_bos = self._wants_bos(metadata, self._pre.add_bos)
        self._patterns = [regex.compile(f"({pattern})") for pattern in self._pre.patterns]
        if raw and "tokenizer.ggml.merges" not in metadata:
            by_text = {text: id for text, id in self.ids.items() if id not in self.special_ids}
            self._ranks, self._rank = {}, lambda left, right: by_text.get(left + right, NEVER)
        else:
            by_pair = self._ranks = merge_ranks(metadata)
            self._rank = lambda left, right: by_pair.get(f"{left} {right}", NEVER)
        self._cached_ids = remembering(self._ids)
        self._cached_merged = remembering(self._merged)
        self._cached_joins = remembering(self._joins)

    def encode_plain(self, text, start=True, look=unwatched):
        return self._ids(text, 0, look)

    def plain_bytes(self, token):
        # A character that spells no byte (some files have such tokens) stands for itself.
        return b"".join(BYTES.get(char) or char.encode("utf-8", "surrogateescape") for char in token)

    def _ids(self, text, stage, look=unwatched):
        """Token ids of what the patterns before this stage left: list of int."""
        for stage, pattern in enumerate(self._patterns[stage:], stage + 1):
            split = pattern.split(text) if len(text) <= AT_ONCE else looking(pattern.splititer(text), look)
            parts = [part for part in split if part]
            if len(parts) > 1:
                ids = []
                for part in looking(parts, look):
                    ids += self._cached_ids(part, stage) if len(part) <= CACHED_LENGTH else self._ids(part, stage, look)
                return ids
        return self._word_ids(text, look) if text else []

    def _word_ids(self, word, look=unwatched):
        """Token ids of one word: list of int."""
        if self._pre.whole_words and (id := self.ids.get(spelled(word))) is not None:
            return [id]
        if len(word) < LONG or word.isascii() or not self._ranks:
            return self._merged(word, look)
        ids = []  # Chinese, for instance, has words of whole sentences
        for piece in looking(cut(word, self._cached_joins, look), look):
            ids += self._cached_merged(piece) if len(piece) <= CACHED_LENGTH else self._merged(piece, look)
        return ids

    def _merged(self, word, look=unwatched):
        symbols, ids = [], []
        for begin in range(0, len(word), PIECE):
            look()
            symbols += spelled(word[begin : begin + PIECE])
        for symbol in looking(merge(symbols, self._rank, look), look):
            id = self.ids.get(symbol)  # None: a byte the vocabulary lacks, or a merge whose result is no token
            ids += [id] if id is not None else [self.ids[char] for char in symbol if char in self.ids]
        return ids

    def _joins(self, pair):
        """Whether any merge could go across these two characters, or parts of them."""
        left, right = map(spelled, pair)
        begins = [right[: n + 1] for n in range(len(right))]
        return any((left[n:], begin) in self._seams for n in range(len(left)) for begin in begins)

    @cached_property
    def _seams(self):
        return set(SEAM.findall("\n".join(self._ranks)))

    def _spell_tokens(self):
        extra = (id for id, token in enumerate(self.tokens) if token.startswith("<|extratoken_"))
        self.special_ids |= frozenset(extra)  # GPT-J's vocabulary is filled up with them
        self.tokens = [
            token if id in self.special_ids or id in self.user_ids else spelled(token, "surrogateescape")
            for id, token in enumerate(self.tokens)
        ]
        self.ids = dict(zip(self.tokens, range(self.vocab_size), strict=True))


def spelled(text, errors="surrogatepass"):
    """The text's bytes in GPT-2's spelling. A lone surrogate is no character, but no reason to fail either."""
    return text.encode("utf-8", errors).decode("latin-1").translate(SPELLING)
