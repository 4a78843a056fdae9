"""What every tokenizer shares: its vocabulary, special tokens, and decoding ids to text as they come.

Follows the GGUF specification's `tokenizer.ggml.*` keys, with llama.cpp's meaning. Refuses to know how plain text
becomes tokens (a subclass does) and what a conversation is.
"""

import codecs
import heapq
import weakref
from bisect import bisect, insort
from functools import cached_property, lru_cache

import numpy as np

from ..errors import ModelFileError, OptionError
from ..formats.file import short, where
from .looking import unwatched
from .prefixes import Prefixes

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # of tokenizer.ggml.token_type

# Files often name only one end-of-generation token, so the known ones are ends by their text.
END_TEXTS = (
    "</s>", "<eos>", "[EOS]", "[EOT]", "[e~[", "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>",
    "<|calls|>", "<|flush|>", "<end_of_turn>", "<turn|>", "<|tool_response>", "<|endoftext|>", "<|eom_id|>", "<EOT>",
    "_<EOT>", "<|end_of_text|>", "<end_of_utterance>", "<｜end▁of▁sentence｜>", "<|fim_pad|>", "<fim-pad>", "<fim_pad>",
    "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>",
)  # fmt: skip
NO_ENDS = {  # text -> an end only where not all of these are tokens, too
    "<|end|>": ("<|return|>", "<|call|>"),
    "</s>": ("<|tool_response>",),
}
# So are those around code to fill in, of which some files say that they are plain text.
CONTROL_TEXTS = (
    "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>",
    "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>",
    "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>",
)  # fmt: skip
# Phi-3's special tokens, but for these, take the white space that follows them. Only the model's name tells.
STRIPPING_NAMES, NOT_STRIPPING = ("phi-3", "phi3"), ("<unk>", "<s>", "<|endoftext|>")
CACHED_WORDS, CACHED_LENGTH = 1 << 16, 64  # what subclasses keep of words; longer ones hardly ever come back
END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")


def remembering(method, size=CACHED_WORDS):
    """A function for an object to keep: its own method, which remembers what it gave.

    It does not hold the object. A circle of references would keep the megabytes of a vocabulary until Python looks for
    circles, which it does the more seldom the more there is.
    """
    weak = weakref.WeakMethod(method)
    return lru_cache(size)(lambda *arguments: weak()(*arguments))


class Tokenizer:
    """Text to token ids and back, for one model's vocabulary.

    Attributes
    ----------
    vocab_size : int
    bos_id, eos_id, unknown_id : int or None
    add_bos : bool
        Whether a sequence given to the model begins with `bos_id`; `encode` never adds it.
    end_ids : frozenset of int
        Tokens that end a reply.
    special_ids : frozenset of int
        Tokens that are no text: control tokens, and the one for unknown text.
    """

    DEFAULTS = {}  # what keys like bos_token_id are where the file does not say
    space_prefix = False  # whether a text begins with a space that is not shown

    def __init__(self, metadata):
        self.tokens = read_key(metadata, "tokens", list)  # id -> text, in the file's spelling
        self.vocab_size = len(self.tokens)
        if not self.vocab_size:
            at = where(metadata, "tokenizer.ggml.tokens")
            raise ModelFileError(f"tokenizer.ggml.tokens is empty{at}; use another model file.")
        self.ids = dict(zip(self.tokens, range(self.vocab_size), strict=True))  # text -> id
        self.types = _token_types(metadata, self.vocab_size)  # (vocab_size,) int64
        ends = [self.ids[text] for text in END_TEXTS if text in self.ids and not self._has_all(NO_ENDS.get(text))]
        # As llama.cpp does: some files call them normal or user-defined.
        self.types[ends + [self.ids[text] for text in CONTROL_TEXTS if text in self.ids]] = CONTROL
        self.special_ids = frozenset(np.flatnonzero((self.types == CONTROL) | (self.types == UNKNOWN)).tolist())
        self.user_ids = frozenset(np.flatnonzero(self.types == USER_DEFINED).tolist())
        self.bos_id, self.eos_id, self.unknown_id = (
            self._token_id(metadata, name) for name in ("bos_token_id", "eos_token_id", "unknown_token_id")
        )
        self.add_bos = self._wants_bos(metadata, False)
        self._stripping = self._stripping_ids(str(metadata.get("general.name", "")).lower())
        keyed = (self._token_id(metadata, key) for key in END_KEYS)
        self.end_ids = frozenset(ends) | {id for id in keyed if id is not None}

    def encode(self, text, special=True, start=True, look=unwatched):
        """Token ids of a text, without a token for the beginning of the sequence.

        Parameters
        ----------
        text : str
        special : bool, or callable of begin and end -> int
            Whether special tokens written out in the text become those tokens, or stay text; or of what is there in the
            text, how far from its beginning such a token may reach.
        start : bool
            Whether the text begins a sequence or follows a special token, rather than going on from other text.
        look : callable
            Is called now and then, and may raise to end it.

        Returns
        -------
        list of int
        """
        ids, at, stripping = [], 0, False
        for begin, end, id in (*self._literals_in(text, special, look), (len(text), None, None)):
            plain = text[at:begin].lstrip(" \t\n\v\f\r") if stripping else text[at:begin]
            if plain:
                ids += self.encode_plain(plain, start, look)
            if id is not None:
                ids.append(id)
                at, start, stripping = end, True, id in self._stripping
        return ids

    def decode(self, ids, start=True):
        """The text of token ids: special tokens as they are written, bytes that are not UTF-8 as U+FFFD.

        start : whether the ids begin a text; then the space that `encode` put before it is taken away.
        """
        raw = b"".join(map(self.token_bytes, ids))
        if start and self.space_prefix and ids and ids[0] not in self.special_ids:
            raw = raw.removeprefix(b" ")
        return raw.decode("utf-8", "replace")

    def stream(self):
        """A new `StreamDecoder`: the same text as `decode` has for ids that go on from others, one token at a time."""
        return StreamDecoder(self.token_bytes)

    def token_bytes(self, id):
        """The bytes of one token; OptionError when there is no token of that id."""
        if not 0 <= id < self.vocab_size:
            raise OptionError(f"Token id {id} is not in the vocabulary; ids go from 0 to {self.vocab_size - 1}.")
        if id in self.special_ids or id in self.user_ids:
            return self.tokens[id].encode("utf-8", "surrogateescape")
        return self.plain_bytes(self.tokens[id])

    def holds(self, text, count):
        """Whether so many tokens may be enough for a text, by its length alone."""
        if len(text) <= count:
            return True
        size = len(text.encode("utf-8", "surrogatepass"))
        return size <= count * self._long or size <= count * self.longest

    @cached_property
    def _long(self):
        """The bytes of the token of most characters: soon known, and mostly enough."""
        return len(self.token_bytes(self.ids[max(self.tokens, key=len)]))

    @cached_property
    def longest(self):
        """The most bytes that a token stands for."""
        return max(len(self.token_bytes(id)) for id in range(self.vocab_size))

    def encode_plain(self, text, start, look):
        """Token ids of text without special tokens: list of int. `start` and `look` as in `encode`."""
        raise NotImplementedError

    def plain_bytes(self, token):
        """The bytes that a token of plain text, in the vocabulary's spelling, stands for."""
        raise NotImplementedError

    def _literals_in(self, text, special, look):
        """(begin, end, id) of each special and user-defined token in the text: longest first, then leftmost."""
        may = special if callable(special) else lambda begin, end: end if special else begin
        every, users = self._every_literal, self._user_literals
        coming, cuts = [], []  # heap of (bytes of the token, negative; id; begin; end); (begin, end, id) in order

        def offer(begin, end):
            literal = every.at(text, begin, end)
            if literal and self._literals[literal] not in self.user_ids:
                reach = may(begin, begin + len(literal))
                if reach < begin + len(literal):
                    literal = max(every.at(text, begin, reach), users.at(text, begin, end), key=len)
            if literal:
                size = len(literal.encode("utf-8", "surrogatepass"))
                heapq.heappush(coming, (-size, self._literals[literal], begin, begin + len(literal)))

        for begin in every.places(text, look):
            offer(begin, len(text))
        while coming:
            look()
            _, id, begin, end = heapq.heappop(coming)
            i = bisect(cuts, (begin, len(text)))
            if i and cuts[i - 1][1] > begin:
                continue
            free = cuts[i][0] if i < len(cuts) else len(text)
            if end <= free:
                insort(cuts, (begin, end, id))
            else:
                offer(begin, free)
        return cuts

    @cached_property
    def _literals(self):
        """Special and user-defined tokens: text -> id."""
        return {self.tokens[id]: id for id in sorted(self.special_ids | self.user_ids) if self.tokens[id]}

    @cached_property
    def _every_literal(self):
        return Prefixes(self._literals)

    @cached_property
    def _user_literals(self):
        return Prefixes(text for text, id in self._literals.items() if id in self.user_ids)

    def _stripping_ids(self, name):
        if not any(part in name for part in STRIPPING_NAMES):
            return frozenset()
        return (self.special_ids | self.user_ids) - {self.ids[text] for text in NOT_STRIPPING if text in self.ids}

    def _has_all(self, texts):
        return bool(texts) and all(text in self.ids for text in texts)

    def _wants_bos(self, metadata, default):
        """Whether sequences begin with BOS: as the file says, else as this kind of vocabulary has it."""
        wanted = read_key(metadata, "add_bos_token", (bool, int), None)
        if wanted and self.bos_id is None:
            raise ModelFileError(
                f"tokenizer.ggml.add_bos_token is true{where(metadata, 'tokenizer.ggml.add_bos_token')}, but there is "
                "no bos_token_id; use another model file."
            )
        return bool(default if wanted is None else wanted) and self.bos_id is not None

    def _token_id(self, metadata, name):
        default = self.DEFAULTS.get(name)
        id = read_key(metadata, name, int, default if default is None or default < self.vocab_size else None)
        if id is not None and not 0 <= id < self.vocab_size:
            raise ModelFileError(
                f"tokenizer.ggml.{name} is {id}{where(metadata, f'tokenizer.ggml.{name}')}, but the vocabulary has "
                f"{self.vocab_size} tokens; use another model file."
            )
        return id


class StreamDecoder:
    """Text from tokens as they come. A character split over tokens appears with the last of them."""

    def __init__(self, token_bytes):
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, id):
        """The text that this token completes, perhaps none."""
        return self._decoder.decode(self._token_bytes(id))

    def finish(self):
        """What is left of a character that never became complete: U+FFFD, or nothing."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text


def read_key(metadata, name, kind, *default):
    """The value of `tokenizer.ggml.NAME`, of the kind asked for."""
    key = f"tokenizer.ggml.{name}"
    if key not in metadata:
        if default:
            return default[0]
        raise ModelFileError(f"{key} is missing; use another model file.")
    value = metadata[key]
    wrong = not isinstance(value, kind) or kind is int and isinstance(value, bool)
    if wrong or kind is list and not all(isinstance(text, str) for text in value):
        kinds = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
        raise ModelFileError(
            f"{key} is {short(value)}{where(metadata, key)}, of type {type(value).__name__}, not {kinds}; use another "
            "model file."
        )
    return value


def merge_ranks(metadata):
    """`tokenizer.ggml.merges`: "left right" -> rank. Of a pair that is there twice, the first counts."""
    merges = read_key(metadata, "merges", list)
    return dict(zip(reversed(merges), range(len(merges) - 1, -1, -1), strict=True))


def _token_types(metadata, vocab_size):
    types = read_key(metadata, "token_type", np.ndarray, np.full(vocab_size, NORMAL))
    if len(types) != vocab_size or types.dtype.kind not in "iu":
        raise ModelFileError(
            f"tokenizer.ggml.token_type{where(metadata, 'tokenizer.ggml.token_type')} has {len(types)} entries of "
            f"{types.dtype}, not {vocab_size} integers, one for each token; use another model file."
        )
    return types.astype(np.int64)
