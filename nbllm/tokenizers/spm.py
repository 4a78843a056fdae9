"""Merging of characters, with spaces spelled as U+2581 and what is no token as bytes: SentencePiece, and Gemma 4.

Refuses to know about special tokens.
"""

import re
from functools import cached_property
from operator import add

import numpy as np

from ..errors import ModelFileError
from ..formats.file import where
from .base import BYTE, CACHED_LENGTH, Tokenizer, merge_ranks, read_key, remembering
from .looking import looking, unwatched
from .merge import NEVER, cut, merge

SPACE = "\u2581"  # how a space is spelled
SHORT = 2048  # characters that are merged sooner than it is found out where to cut


class SPM(Tokenizer):
    """SentencePiece's merging by score (`tokenizer.ggml.model` = llama), without normalisation, as llama.cpp has it.

    No word boundary is given, and a text may be long. But where no token has two characters side by side, no merge
    goes across them, so the text is cut there, and what is between two cuts is looked up if it was there before.
    """

    DEFAULTS = {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    SPACE_PREFIX = True  # where the file does not say

    def __init__(self, metadata):
        super().__init__(metadata)
        self.add_bos = self._wants_bos(metadata, True)
        self.space_prefix = bool(read_key(metadata, "add_space_prefix", (bool, int), self.SPACE_PREFIX))
        self._bytes = [self.ids.get(f"<0x{byte:02X}>", self.ids.get(chr(byte), self.unknown_id)) for byte in range(256)]
        self._byte_of = {  # id of a byte token -> the byte
            id: bytes([byte]) for byte, id in enumerate(self._bytes) if id is not None and self.types[id] == BYTE
        }
        self._priority = self._priorities(metadata)
        self._cached_ids = remembering(self._word_ids)

    def encode_plain(self, text, start, look=unwatched):
        if start and self.space_prefix:
            text = " " + text
        ids = []
        for word in looking(self._words(text.replace(" ", SPACE), look), look):
            ids += self._cached_ids(word) if len(word) <= CACHED_LENGTH else self._word_ids(word, look)
        return ids

    def token_bytes(self, id):
        return self._byte_of.get(id) or super().token_bytes(id)

    def plain_bytes(self, token):
        return token.replace(SPACE, " ").encode("utf-8", "surrogateescape")

    def _words(self, text, look):
        """The text in pieces that no merge connects: list of str."""
        return cut(text, self._neighbours.__contains__, look) if len(text) > SHORT else [text]

    def _word_ids(self, word, look=unwatched):
        """Token ids of one word: list of int."""
        ids = []
        for symbol in looking(merge(list(word), self._priority, look), look):
            id = self.ids.get(symbol)
            if id is None:
                ids += [self._bytes[byte] for byte in symbol.encode("utf-8", "surrogatepass")]
            else:
                ids.append(id)
        return [id for id in ids if id is not None]

    @cached_property
    def _neighbours(self):
        """All pairs of characters that stand side by side in a token: set of str."""
        every = "\n".join(self.tokens)  # so that a few pairs are in it that are in no token, which does no harm
        return set(map(add, every, every[1:]))

    def _priorities(self, metadata):
        """The priority of two symbols to be merged, as a function of them."""
        scores = read_key(metadata, "scores", np.ndarray)
        if len(scores) != self.vocab_size or scores.dtype.kind not in "iuf":
            raise ModelFileError(
                f"tokenizer.ggml.scores{where(metadata, 'tokenizer.ggml.scores')} has {len(scores)} entries of "
                f"{scores.dtype}, not {self.vocab_size} numbers, one for each token; use another model file."
            )
        by_id = [*(-scores.astype(np.float64)).tolist(), NEVER]  # (vocab_size + 1,) lowest is best
        for id in self.special_ids:
            by_id[id] = NEVER  # text must not merge into what is no text
        ids = self.ids
        return lambda left, right: by_id[ids.get(left + right, -1)]  # the last is for no token


class SpacedBPE(SPM):
    """Merging by rank, within lines (`tokenizer.ggml.model` = gemma4). Line feeds that are one token are not merged."""

    DEFAULTS = {}
    SPACE_PREFIX = False

    def _words(self, text, look):
        lines = [match[0] for match in looking(re.finditer("\n+|[^\n]+", text), look)]
        if len(text) <= SHORT:
            return lines
        joins = self._neighbours.__contains__
        return [word for line in lines for word in ([line] if line[0] == "\n" else cut(line, joins, look))]

    def _word_ids(self, word, look=unwatched):
        return [self.ids[word]] if word[0] == "\n" and word in self.ids else super()._word_ids(word, look)

    @cached_property
    def _neighbours(self):
        every = "\n".join(self._ranks).replace(" ", "")
        return set(map(add, every, every[1:]))

    def _priorities(self, metadata):
        ranks = self._ranks = merge_ranks(metadata)
        return lambda left, right: ranks.get(f"{left} {right}", NEVER)
