"""What a reply may be, token by token, so that it fits a JSON schema: llguidance's matcher as the engine's constraint.

Only this file knows llguidance (https://github.com/guidance-ai/llguidance), which need not be installed. What a
reasoning model thinks before its answer is free. Whatever a schema asks for, compiling it and each step are bounded.
"""

import codecs
import json
import re
import weakref

import numpy as np

from nbllm.chat.schema import Schema
from nbllm.chat.thinking import TAGS, Thoughts
from nbllm.errors import ModelFileError, NbLLMError, OptionError
from nbllm.tokenizers.base import remembering

# As `json.dumps` writes: with one way for white space most of it is certain, and none is written without end.
SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
LIMITS = {  # of llguidance's own units; together they let compiling a schema, and a step, take about a second at most
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 1_000_000,
    "step_max_items": 100_000,
    "max_lexer_states": 50_000,
    "max_grammar_size": 20_000,
}

_vocabularies = weakref.WeakKeyDictionary()  # Tokenizer -> Vocabulary


def constraint(schema: Schema, tokenizer, prompt: str) -> "Constraint":
    """What a reply to this prompt may be.

    Parameters
    ----------
    schema : Schema
    tokenizer : Tokenizer
    prompt : str
        Whose end may have opened a thought.

    Raises
    ------
    OptionError
        The schema has something that cannot be done, or is too large.
    ModelFileError
        The model cannot end a reply.
    NbLLMError
        llguidance is not installed.
    """
    return Constraint(_vocabulary(tokenizer), schema, prompt)


def check(schema: Schema):
    """Whether the schema can be done at all; raises OptionError, or NbLLMError where llguidance is not installed."""
    _refuse(_library().LLMatcher.validate_grammar(_grammar(schema.text), None, limits=_limits()))


def wanted(schema, json=False) -> Schema | None:
    """What a reply is to fit, if anything; OptionError if it cannot be used, NbLLMError if llguidance is missing."""
    if json and schema is not None:
        raise OptionError("json and schema are both given; a schema is of JSON already")
    if schema is None and not json:
        return None
    made = schema if isinstance(schema, Schema) else Schema("json" if json else schema)
    check(made)
    return made


def _vocabulary(tokenizer):
    if tokenizer not in _vocabularies:
        _vocabularies[tokenizer] = Vocabulary(tokenizer)
    return _vocabularies[tokenizer]


def _grammar(text, forcing=True):
    """llguidance's grammar of a schema; forcing : whether what can only go on in one way is told as tokens."""
    options = json.dumps({"no_forcing": not forcing})
    return f"%llguidance {options}\nstart: %json {json.dumps(json.loads(text) | {'x-guidance': SPACING})}"


class Vocabulary:
    """A model's tokens, as llguidance wants them, and those that a thought begins with.

    Parameters
    ----------
    tokenizer : Tokenizer
        Not kept: it ends when its model does, and this with it.

    Attributes
    ----------
    size : int
    bytes : list of bytes
        Of each token.
    ends, opening, blank : list of int
        The tokens that end a reply, that open a thought, and that are white space.
    """

    def __init__(self, tokenizer):
        if not tokenizer.end_ids:
            raise ModelFileError("the model file names no token that ends a reply, so none can be held to a schema; "
                                 "use another model file")  # fmt: skip
        library = _library()
        self.size, self.space_prefix = tokenizer.vocab_size, tokenizer.space_prefix
        self.ends = sorted(tokenizer.end_ids)
        self.bytes = [tokenizer.token_bytes(id) for id in range(self.size)]
        opening = {tag.encode() for tag in TAGS}
        self.opening = [id for id, token in enumerate(self.bytes) if token in opening]
        self.blank = [id for id, token in enumerate(self.bytes) if token and token.isspace()]
        pieces = _Pieces(tokenizer, self.bytes, self.ends[0])
        self._forcing = pieces.exact
        self._tokens = library.LLTokenizer(library.TokenizerWrapper(pieces), n_vocab=self.size, eos_token=self.ends)
        self._overshooting = remembering(self._find_overshooting)
        self._matchers = remembering(self._compile, 8)

    def matcher(self, schema: Schema):
        """A new matcher for one reply."""
        return self._matchers(schema.text).deep_copy()

    def overshooting(self, closing: str) -> np.ndarray:
        """The ids (n,) of tokens that may end this tag and begin with what follows it."""
        return self._overshooting(closing)

    def _find_overshooting(self, closing):
        over = re.compile(re.escape(closing[-1].encode()) + rb"\s*[^\s]")
        return np.array([id for id, token in enumerate(self.bytes) if over.search(token)], np.int64)

    def _compile(self, text):
        matcher = _library().LLMatcher(self._tokens, _grammar(text, self._forcing), log_level=0, limits=_limits())
        _refuse(matcher.get_error())
        return matcher


class _Pieces:
    """What llguidance asks of a tokenizer: the tokens, and how text is written in them.

    exact : whether all text can be: WordPiece, for instance, has no token for a space.
    """

    bos_token_id = None

    def __init__(self, tokenizer, tokens, end):
        self.tokens, self.eos_token_id = tokens, end
        self.special_token_ids = sorted(tokenizer.special_ids | tokenizer.end_ids)
        self._tokenizer = weakref.ref(tokenizer)
        special = set(self.special_token_ids)
        self._ids = {token: id for id, token in enumerate(tokens) if token and id not in special}
        self.exact = all(bytes([byte]) in self._ids for byte in range(32, 127))

    def __call__(self, data: bytes):
        """The tokenizer's own ids of these bytes, or, if those are of others, an id for each;
        none if that cannot be."""
        tokenizer = self._tokenizer()
        ids = tokenizer.encode(data.decode(errors="replace"), False, False) if self.exact and tokenizer else []
        if b"".join(self.tokens[id] for id in ids) == data:
            return ids
        ids = [self._ids.get(bytes([byte])) for byte in data]
        return [] if None in ids else ids


class Constraint:
    """Which tokens may come next in one reply: the protocol of `runtime.generation.Generation`.

    A thought that the prompt opened, or that the reply begins with, is free; but only an answer ends the reply.
    """

    def __init__(self, vocabulary: Vocabulary, schema: Schema, prompt: str):
        self._vocabulary, self._name = vocabulary, schema.name
        self._matcher = vocabulary.matcher(schema)
        self._thoughts = Thoughts(prompt, vocabulary.space_prefix)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._extra = vocabulary.opening  # what may come beside what the schema allows, once

    def allowed(self) -> np.ndarray:
        """bool (vocab_size,): whether each token may come next."""
        if self._thoughts.thinking:
            allowed = np.ones(self._vocabulary.size, bool)  # (vocab_size,)
            allowed[self._vocabulary.ends] = False
            if self._thoughts.closing:
                allowed[self._vocabulary.overshooting(self._thoughts.closing)] = False
            return allowed
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)  # (vocab_size / 8, or more,)
        allowed = np.unpackbits(bits, count=self._vocabulary.size, bitorder="little").view(bool)  # (vocab_size,)
        if self._matcher.is_error() or not allowed.any():
            raise NbLLMError(f"the reply cannot go on: {self._why()}")
        allowed[self._extra] = True
        return allowed

    def likely(self) -> list[int]:
        """Ids that will come next, where the schema leaves no choice."""
        if self._thoughts.thinking or self._extra:
            return []
        return self._matcher.compute_ff_tokens()

    def push(self, id: int):
        """Take the token that came."""
        thinking = self._thoughts.thinking
        if thinking or id in self._extra and id in self._vocabulary.opening:
            self._thoughts.push(self._decoder.decode(self._vocabulary.bytes[id]))
            self._extra = [] if self._thoughts.thinking else self._vocabulary.blank
            return
        blank = id in self._extra
        self._extra = []
        if not blank and not self._matcher.consume_token(id):
            raise NbLLMError(f"the reply cannot go on: {self._why()}")

    def _why(self):
        """What llguidance says, as it stops: a limit was reached, or no token of the vocabulary fits."""
        error = _line(_interrupted(self._matcher.get_error())) or "no token of this model's vocabulary fits"
        return f"{self._name} cannot be followed any further ({error}); make the schema simpler, or use another model"


def _limits():
    return _library().LLParserLimits(**LIMITS, verbose_errors=False)


def _refuse(error):
    """Raise what llguidance says of a grammar, if that is an error and no warning."""
    if error and not _interrupted(error).startswith("WARNING"):
        raise OptionError(f"the schema cannot be used: {_line(error)}; make it simpler")


def _interrupted(error):
    """What llguidance says, unless it was interrupted while it asked for ids, of which it makes a text."""
    if "<class 'KeyboardInterrupt'>" in error:
        raise KeyboardInterrupt
    return error


def _line(error):
    """The first sentence of what llguidance says, without the place in a grammar that nobody wrote."""
    first, _, more = str(error).removesuffix("<non-verbose/>").partition("\n")
    first = " ".join(f"{first} {more}".split()) if first.endswith(":") else first
    return re.sub(r"^at \d+\(\d+\): |failed to compile JSON schema: ", "", first).strip()[:200]


def _library():
    try:
        import llguidance
    except ImportError:
        raise NbLLMError('replies that fit a schema need llguidance: pip install "nbllm[grammar]"') from None
    return llguidance
