"""WordPiece, as BERT has it: text is cut at spaces and punctuation, each word into the longest tokens from its start.

Refuses to know about special tokens.
"""

import unicodedata
from functools import cached_property
from math import inf

from .base import CACHED_LENGTH, Tokenizer, read_key, remembering
from .looking import OFTEN, looking, unwatched
from .prefixes import Prefixes

START = "\u2581"  # before a token that begins a word
PIECE = 1 << 14  # characters that are normalised at once

# What is cut into single characters, as Chinese is written without spaces. The gap before 0x2B920 is BERT's own.
IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


class WordPiece(Tokenizer):
    """WordPiece (`tokenizer.ggml.model` = bert). A word that cannot be made of tokens is the unknown token."""

    DEFAULTS = {"bos_token_id": 101, "unknown_token_id": 100}
    longest = inf  # for a word of any length may be the unknown token

    def __init__(self, metadata):
        super().__init__(metadata)
        self.add_bos = self._wants_bos(metadata, True)
        lowercase = bool(read_key(metadata, "normalizer.lowercase", (bool, int), True))
        strip_accents = bool(read_key(metadata, "normalizer.strip_accents", (bool, int), lowercase))
        self._normal = Normal(lowercase, strip_accents)
        self._cached_ids = remembering(self._word_ids)

    def encode_plain(self, text, start, look=unwatched):
        ids, normal = [], []
        for begin in range(0, len(text), PIECE):
            look()
            normal.append(text[begin : begin + PIECE].translate(self._normal))
        for word in looking("".join(normal).split(" "), look):
            if word:
                ids += self._cached_ids(word) if len(word) <= CACHED_LENGTH else self._word_ids(word, look)
        return ids

    def plain_bytes(self, token):
        return token.replace(START, " ").encode("utf-8", "surrogateescape")

    def _word_ids(self, word, look=unwatched):
        """Token ids of one word: list of int."""
        word, ids, begin = START + word, [], 0
        if word in self.ids:
            return [self.ids[word]]
        while begin < len(word):
            if len(ids) % OFTEN == 0:
                look()
            token = self._prefixes.at(word, begin)
            if not token:
                return [] if self.unknown_id is None else [self.unknown_id]
            ids.append(self.ids[token])
            begin += len(token)
        return ids

    @cached_property
    def _prefixes(self):
        return Prefixes(self.tokens)


class Normal(dict):
    """For `str.translate`: what a character becomes, spaces around it if it is a word of its own. Filled as needed."""

    def __init__(self, lowercase, strip_accents):
        self._lowercase, self._strip_accents = lowercase, strip_accents

    def __missing__(self, code):
        char = chr(code)
        if self._strip_accents:
            char = unicodedata.normalize("NFD", char)[0]
        self[code] = result = self._normal(char, ord(char))
        return result

    def _normal(self, char, code):
        category = unicodedata.category(char)
        if char.isspace() and not "\x1c" <= char <= "\x1f":  # which Unicode does not call white space
            return " "
        if code in (0, 0xFFFD) or category in ("Cc", "Cf", "Co", "Cs") or self._strip_accents and category[0] == "M":
            return ""
        if category[0] == "P" or category[0] == "S" and code < 0x7F or any(a <= code <= b for a, b in IDEOGRAPHS):
            return f" {self._lower(char)} "
        return self._lower(char)

    def _lower(self, char):
        return char.lower()[0] if self._lowercase else char
