"""The engine: token ids in, events out.

It owns a model's packed weights, its activations and its key/value cache, and runs steps. It knows no text and owns no
thread; one thread at a time has its turn (`turn.py`), and others are refused. Every compiled call leaves the GIL free
and obeys a stop flag.

The cache keeps the tokens of the last run. Whatever prefix a new run shares with it is not computed again, which
changes nothing but the time: a logit's bits do not depend on how the tokens before it were divided into steps, nor on
what other sequences were in these.
"""

import time

import numpy as np

from ..errors import ContextFullError, NbLLMError, OptionError, quoted
from ..formats.blocks import BLOCK_TYPES, dequantize
from . import ops
from .arrays import zeros
from .cache import Cache, Sequence
from .events import StopFlag
from .generation import MAX_OUTPUTS, MAX_TOKENS, Generation
from .packed import rows
from .program import PAGE, PEAK, SPLIT_TOKENS, Program
from .sampling import check
from .spans import attended, together
from .turn import Turn
from .weights import load_weights

DEFAULT_CONTEXT = 8192  # unless the model's own is smaller


class Engine:
    """A model ready to run.

    Parameters
    ----------
    gguf : formats.file.ModelFile
        May be closed afterwards; not needed with `weights`.
    context : int, optional
        Most tokens of a sequence; by default the model's own context, at most 8192.
    threads : int, optional
        By default the physical cores that this process may use.
    weights : weights.Weights, optional
        Those of the file, if they are ready already; getting them ready can take seconds.
    cache_bits : int
        Of the numbers in the cache: 16; 8 for half the memory and a little less precision; or 32.
    room : int, optional
        Positions in the cache for all sequences together; by default `context`.
    among : turn.Turn, optional
        Of another engine with the same weights, which does not compute at the same time.

    Attributes
    ----------
    context, threads, vocab_size : int
    max_tokens : int
        Of a step.
    turn : turn.Turn
    weights : weights.Weights
    cache : cache.Cache
    tokens : list of int
        The ids of the last run that the cache holds.
    guessing : bool
        Whether `generate` may put guesses into its steps (`lookup.py`): the same text, sooner.

    Raises
    ------
    ModelFileError
        The model cannot be run.
    OptionError
        `context`, `threads`, `cache_bits` or `room` is out of range.
    """

    def __init__(self, gguf, context=None, threads=None, weights=None, cache_bits=16, room=None, among=None):
        self.weights = weights or load_weights(gguf)
        model = self.weights.model
        self.context = _within("context", context, 1, model.context, min(model.context, DEFAULT_CONTEXT))
        self.threads = thread_count(threads)
        self.vocab_size = model.vocab
        self.guessing = True
        self._embedding = model.embedding
        self._together = together(model.heads.group())
        self._kernel = ops.load()
        room = _within("room", room, self.context, 2**31, self.context)
        self.cache = Cache(model.layers, model.heads, room, cache_bits)
        self._sequence = Sequence()
        self.turn = Turn(self.threads, among)

        self.max_tokens = min(MAX_TOKENS, self.context)
        program = Program(self.max_tokens, MAX_OUTPUTS, self.cache.pages, self.threads)
        model.write(program)
        program.peaks(program.output, self.vocab_size)
        self._program = program
        self._table = program.table()  # (stages, COLUMNS) int64
        self._consts = program.consts()  # (n,) float32
        self._rope = model.angles(self.context)
        self._angles = self._rope.array.ravel()  # (context * tables * 2 * rotated / 2,) float32
        n = program.activations
        self._f = zeros(n, np.float32)  # activations, see Program
        self._x = zeros(n, np.int8)  # the same in 8 bits
        self._xd = zeros(n // 32, np.float32)  # scale of every 32 of them
        self._xs = zeros(n // 32, np.int32)  # their sum
        self._xm = zeros(n // 32, np.float32)  # scale * sum
        self._xl = zeros(n // 32, np.float32)  # scale * sum of the first 16
        self._xr = zeros(n // 32, np.float32)  # scale * sum of the last 16
        self._peaks = zeros(MAX_OUTPUTS * -(-self.vocab_size // PEAK), np.float32)  # (outputs, blocks)
        self._scratch = zeros(program.scratch, np.float32)
        self._meeting = zeros(5, np.int32)  # the threads' meeting place
        self._work = zeros(self.threads * len(self._table), np.int32)  # how much of each stage has been taken
        self._stop = StopFlag()

    def close(self):
        """Let go of all memory: at once, or as soon as a step that another thread runs has stopped. The engine cannot
        be used afterwards."""
        if lock := self.turn.close():
            with lock:
                self._let_go()

    def _let_go(self):
        kept = "context", "threads", "vocab_size", "turn"
        self.__dict__ = {name: getattr(self, name) for name in kept} | {"_sequence": Sequence()}

    def twin(self, room):
        """Another engine with the same weights and a cache of its own, of so many positions."""
        with self.turn.wanted():
            self.turn.begin()
            return Engine(None, self.context, self.threads, self.weights, self.cache.bits, room, self.turn)

    @property
    def sequence(self) -> Sequence:
        """Of the last run, in the cache."""
        return self._sequence

    @property
    def tokens(self):
        return self._sequence.tokens

    @tokens.setter
    def tokens(self, ids):
        self._sequence.tokens = ids

    @property
    def memory(self) -> dict[str, int]:
        """Bytes of the weights, the cache and the rest."""
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        rest = sum(array.nbytes for array in arrays.values())
        return {"weights": self.weights.data.nbytes, "cache": self.cache.nbytes, "activations": rest}

    def logits(self, ids):
        """The logits after every token.

        Parameters
        ----------
        ids : sequence of int
            At most `context`.

        Returns
        -------
        float32 (len(ids), vocab_size)

        Raises
        ------
        ContextFullError, OptionError
            There are too many ids, or one that is not in the vocabulary.
        ModelFileError
            A logit is not finite.
        """
        ids = self._checked(ids)
        if len(ids) > self.context:
            raise ContextFullError(_too_long(len(ids), self.context))
        sequence = self.begin()
        sequence.tokens = []
        out = np.empty((len(ids), self.vocab_size), np.float32)
        self._stop.clear()
        for start in range(0, len(ids), MAX_OUTPUTS):
            part = ids[start : start + MAX_OUTPUTS]
            computed = self._step(part, len(part), self._stop, sequence)
            if computed is None:
                self.turn.begin()  # which says why: nobody else has the flag
            out[start : start + len(part)], peaks = computed
            check(peaks)
        return out

    def generate(self, ids, sampling, end_ids=frozenset(), stop=None, constraint=None, alternatives=0):
        """Read a prompt and write its continuation.

        Parameters
        ----------
        ids : sequence of int
            The whole prompt; what the cache holds of its beginning is not computed again.
        sampling : Sampling
            Its stop strings are not looked at here.
        end_ids : set of int
            Tokens that end the reply; they are not reported.
        stop : StopFlag, optional
            Ends the reply, also in the middle of a step.
        constraint, alternatives
            As in `Generation`.

        Yields
        ------
        Prefill, Token, Done
            Done is the last.

        Raises
        ------
        ContextFullError, OptionError
            The prompt leaves no room for a reply, is empty, or has ids that are not in the vocabulary.
        """
        ids = self.checked_prompt(ids)
        generation = Generation(
            self.begin(), ids, sampling, self.vocab_size, self.context, end_ids, constraint,
            alternatives, self.guessing,
        )  # fmt: skip
        return self._generate(generation, stop or StopFlag())

    def _generate(self, generation, stop):
        yield generation.progress()
        while generation.done is None:
            begun = time.perf_counter()
            computed = self._step(*generation.part(), stop, generation.sequence)
            if computed is None:
                yield generation.end("stopped")
                return
            yield from generation.take(*computed, time.perf_counter() - begun, stop)

    def checked_prompt(self, ids) -> list[int]:
        """The ids as a list, if a reply can follow them; raises ContextFullError or OptionError."""
        ids = self._checked(ids)
        if not ids:
            raise OptionError("the prompt is empty; give it at least one token.")
        if len(ids) >= self.context:
            raise ContextFullError(_too_long(len(ids), self.context))
        return ids

    def begin(self) -> Sequence:
        """The sequence of a new run, with what the last run's has read; that one is empty then, and cannot go on."""
        with self.turn.wanted():
            self.turn.begin()
            last, self._sequence = self._sequence, Sequence()
            self._sequence.tokens, self._sequence.pages = last.tokens, last.pages
            last.tokens, last.pages, last.ended = [], [], True
            return self._sequence

    def _step(self, ids, outputs, stop, sequence=None):
        """`step` for one sequence, by default that of the last run."""
        return self.step([(sequence or self._sequence, ids, outputs)], stop)

    def step(self, parts, stop):
        """Compute tokens, of one sequence or of several at once; nobody's bits depend on the others.

        Parameters
        ----------
        parts : list of (Sequence, list of int, int)
            A sequence, the ids that follow its tokens, and of how many of these, the last, the logits are wanted. At
            most MAX_TOKENS ids and MAX_OUTPUTS logits altogether.
        stop : StopFlag

        Returns
        -------
        (float32 (outputs, vocab_size), float32 (outputs, vocab_size / PEAK)) or None
            The logits, and the largest of every PEAK of them, or not a number where one is not finite: views that the
            next step overwrites. None if the flag stopped it; the sequences are then as before.

        Raises
        ------
        ContextFullError
            The cache is full.
        ModelFileError
            Another program changes the packed weights.
        NbLLMError, CpuError
            It is not this thread's turn, or this process's; the threads cannot be started; or another run has gone on
            with a sequence's tokens.
        """
        with self.turn.wanted():
            return self.compute(parts, stop)

    def compute(self, parts, stop):
        """`step`, by whoever has the turn."""
        try:
            self.turn.begin(stop)
            if any(sequence.ended for sequence, _, _ in parts):
                raise NbLLMError(
                    "another reply of this model was begun before this one was at its end, and this one cannot go on; "
                    "ask one after the other, or many together by nbllm.map"
                )
            computed = self._compute(parts, stop)
        finally:
            self.turn.end()
            if closed := self.turn.closed:
                self._let_go()
        if closed:
            self.turn.begin()  # which says so
        return computed

    def _compute(self, parts, stop):
        self.weights.check()
        ids, where, picked = [], [], []
        for sequence, more, outputs in parts:
            self.cache.fit(sequence, len(more))
            position = len(sequence.tokens)
            where += [(p, sequence.pages[p // PAGE]) for p in range(position, position + len(more))]
            ids += more
            picked += range(len(ids) - outputs, len(ids))
        spans, pages = attended([(sequence.pages, len(more)) for sequence, more, _ in parts], self._together)
        self._embed(ids)
        self._rope.reach(max((position + 1 for position, _ in where), default=0))
        split = len(pages) if len(parts) == 1 and len(ids) <= SPLIT_TOKENS else 0
        self._meeting.fill(0)
        self._work.fill(0)
        stopped = self._kernel.step(
            self._table, self._consts, self._angles, self.weights.data, self._f, self._x, self._xd, self._xs, self._xm,
            self._xl, self._xr, *self.cache.arrays, self.cache.bits, self._scratch, self._peaks, stop.array,
            self._meeting, self._work, np.array(where).ravel(), np.array(spans), np.array(pages),
            np.array(picked, np.int64), split, self.threads,
        )  # fmt: skip
        if stopped:
            return None
        for sequence, more, _ in parts:
            sequence.tokens.extend(more)
        slot, n = self._program.output, len(picked)
        logits = self._f[slot.base : slot.base + n * slot.width].reshape(n, slot.width)
        blocks = -(-self.vocab_size // PEAK)
        return logits[:, : self.vocab_size], self._peaks[: n * blocks].reshape(n, blocks)

    def _embed(self, ids):
        """Put the tokens' embeddings where the program begins."""
        slot = self._program.input
        blocks = rows(self.weights.data, self._embedding, np.array(ids))  # (n, row_bytes) uint8
        embedded = dequantize(BLOCK_TYPES[self._embedding.kind], blocks)  # (n, width) float32
        self._f[slot.base : slot.base + embedded.size] = embedded.ravel()

    def _checked(self, ids):
        ids = [int(id) for id in ids]
        for id in ids:
            if not 0 <= id < self.vocab_size:
                raise OptionError(f"token id {id} is not in the vocabulary of {self.vocab_size}.")
        return ids


def thread_count(threads: int | None) -> int:
    """How many threads compute, if so many were asked for. OptionError when that is out of range."""
    return _within("threads", threads, 1, ops.MOST_THREADS, ops.threads()[0])


def _within(name, value, low, high, default):
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise OptionError(f"{name}={quoted(value)} is out of range: give a whole number from {low} to {high}.")
    return value


def _too_long(n, context):
    return (
        f"the prompt has {n} tokens, the context room for {context} and a reply: shorten it, or load with a larger "
        "context."
    )
