"""What every tokenizer shares: its vocabulary, special tokens, and decoding ids to text as they come.

Follows the GGUF specification's `tokenizer.ggml.*` keys, with llama.cpp's meaning. Refuses to know how plain text
becomes tokens (a subclass does) and what a conversation is.
"""

import codecs

import numpy as np

from ..errors import ModelFileError, OptionError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # of tokenizer.ggml.token_type

# Files often name only one end-of-generation token, so the known ones are ends by their text.
END_TEXTS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>",
    "<EOT>", "_<EOT>", "<|end_of_text|>", "<end_of_utterance>", "<｜end▁of▁sentence｜>",
)  # fmt: skip
END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")


class Tokenizer:
    """Text to token ids and back, for one model's vocabulary.

    Attributes
    ----------
    vocab_size : int
    bos_id, eos_id : int or None
    add_bos : bool
        Whether a sequence given to the model begins with `bos_id`; `encode` never adds it.
    end_ids : frozenset of int
        Tokens that end a reply.
    special_ids : frozenset of int
        Tokens that are no text: control tokens, and the one for unknown text.
    """

    def __init__(self, metadata):
        self.tokens = read_key(metadata, "tokens", list)  # id -> text, in the file's spelling
        self.vocab_size = len(self.tokens)
        if not self.vocab_size:
            raise ModelFileError("tokenizer.ggml.tokens is empty; use another model file.")
        self.ids = dict(zip(self.tokens, range(self.vocab_size), strict=True))  # text -> id
        types = _token_types(metadata, self.vocab_size)  # (vocab_size,) int64
        ends = [self.ids[text] for text in END_TEXTS if text in self.ids]
        types[ends] = CONTROL  # as llama.cpp does: some files call them normal or user-defined
        self.special_ids = frozenset(np.flatnonzero((types == CONTROL) | (types == UNKNOWN)).tolist())
        self.user_ids = frozenset(np.flatnonzero(types == USER_DEFINED).tolist())
        self.bos_id = _token_id(metadata, "bos_token_id", self.vocab_size)
        self.eos_id = _token_id(metadata, "eos_token_id", self.vocab_size)
        self.add_bos = bool(read_key(metadata, "add_bos_token", (bool, int), False))
        if self.add_bos and self.bos_id is None:
            raise ModelFileError(
                "tokenizer.ggml.add_bos_token is true, but there is no bos_token_id; use another model file."
            )
        keyed = (_token_id(metadata, key, self.vocab_size) for key in END_KEYS)
        self.end_ids = frozenset(ends) | {id for id in keyed if id is not None}
        literals = sorted(self.special_ids | self.user_ids, key=lambda id: len(self.tokens[id]), reverse=True)
        self._literals = [(self.tokens[id], id) for id in literals if self.tokens[id]]  # longest first

    def encode(self, text, special=True):
        """Token ids of a text, without a token for the beginning of the sequence.

        Parameters
        ----------
        text : str
        special : bool
            Whether special tokens written out in the text become those tokens, or stay plain text.

        Returns
        -------
        list of int
        """
        pieces = [text]  # of text, and ids
        for literal, id in self._literals:
            if literal in text and (special or id in self.user_ids):
                pieces = [part for piece in pieces for part in _cut(piece, literal, id)]
        ids = []
        for piece in pieces:
            ids.extend([piece] if isinstance(piece, int) else self.encode_plain(piece))
        return ids

    def decode(self, ids):
        """The text of token ids: special tokens as they are written, bytes that are not UTF-8 as U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def stream(self):
        """A new `StreamDecoder`: the same text as `decode`, one token at a time."""
        return StreamDecoder(self.token_bytes)

    def token_bytes(self, id):
        """The bytes of one token; OptionError when there is no token of that id."""
        if not 0 <= id < self.vocab_size:
            raise OptionError(f"Token id {id} is not in the vocabulary; ids go from 0 to {self.vocab_size - 1}.")
        if id in self.special_ids or id in self.user_ids:
            return self.tokens[id].encode("utf-8", "surrogateescape")
        return self.plain_bytes(self.tokens[id])

    def encode_plain(self, text):
        """Token ids of text without special tokens: list of int."""
        raise NotImplementedError

    def plain_bytes(self, token):
        """The bytes that a token of plain text, in the vocabulary's spelling, stands for."""
        raise NotImplementedError


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


def _cut(piece, literal, id):
    """A piece of text, with every occurrence of `literal` in it replaced by `id`."""
    if isinstance(piece, int):
        return [piece]
    first, *rest = piece.split(literal)
    return [part for part in [first] + [part for text in rest for part in (id, text)] if part != ""]


def read_key(metadata, name, kind, *default):
    """The value of `tokenizer.ggml.NAME`, of the kind asked for."""
    key = f"tokenizer.ggml.{name}"
    if key not in metadata:
        if default:
            return default[0]
        raise ModelFileError(f"{key} is missing; use another model file.")
    value = metadata[key]
    if not isinstance(value, kind) or kind is list and not all(isinstance(text, str) for text in value):
        raise ModelFileError(f"{key} is of type {type(value).__name__}, which it cannot be; use another model file.")
    return value


def _token_id(metadata, name, vocab_size):
    id = read_key(metadata, name, int, None)
    if id is not None and not 0 <= id < vocab_size:
        raise ModelFileError(
            f"tokenizer.ggml.{name} is {id}, but the vocabulary has {vocab_size} tokens; use another model file."
        )
    return id


def _token_types(metadata, vocab_size):
    types = read_key(metadata, "token_type", np.ndarray, np.full(vocab_size, NORMAL))
    if len(types) != vocab_size or types.dtype.kind not in "iu":
        raise ModelFileError(
            f"tokenizer.ggml.token_type has {len(types)} entries of {types.dtype}, not {vocab_size} integers, one for "
            "each token; use another model file."
        )
    return types.astype(np.int64)
