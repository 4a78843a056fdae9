"""One reply being written: what the next step must compute for it, and what its logits come to.

Computes nothing itself, so that one reply, or many at once, can be written by the same steps. Knows token ids and no
text.
"""

import time

import numpy as np

from .events import Done, Prefill, Stats, Token
from .lookup import Lookup
from .sampling import Sampler, likeliest

MAX_TOKENS = 512  # in a step
MAX_OUTPUTS = 32  # tokens of a step whose logits are kept
STEP_SECONDS = 0.4  # a prompt is read in steps of about so long, so that progress is seen
FIRST_TOKENS = 64  # of a prompt's first step, before its speed is known


class Generation:
    """
    Parameters
    ----------
    sequence : Sequence
        Its tokens are cut to what they share with the prompt.
    ids : list of int
        The whole prompt, shorter than the context.
    sampling : Sampling
    vocab_size, context : int
    end_ids : set of int
        Tokens that end the reply; they are not reported.
    constraint : optional
        What may be written: `allowed()` gives bool (vocab_size,), whether each token may come next; `likely()` some ids
        that probably come next, in order, none if it cannot tell; `push(id)` tells it what did.
    alternatives : int
        How many of the likeliest tokens are told with each token, and their probabilities.
    guessing : bool
        Whether guesses may be put into steps (`lookup.py`): the same text, sooner.

    Attributes
    ----------
    done : Done or None
        The last event, once there is one.
    """

    def __init__(
        self, sequence, ids, sampling, vocab_size, context, end_ids=frozenset(), constraint=None, alternatives=0,
        guessing=True,
    ):  # fmt: skip
        self.sequence = sequence
        self.ids = ids
        self.done = None
        self._sampler = Sampler(sampling, vocab_size)
        self._most = sampling.max_tokens or context + 1  # never reached
        self._context, self._end_ids, self._constraint, self._alternatives = context, end_ids, constraint, alternatives
        self._guessing = guessing
        # At least one token must be computed: its logits are what the reply begins with.
        self._reused = min(common_prefix(sequence.tokens, ids), len(ids) - 1)
        del sequence.tokens[self._reused :]
        self._lookup = Lookup(ids)
        self._size = FIRST_TOKENS
        self._guesses = []
        self._generated = self._guessed = 0
        self._begun, self._read = time.perf_counter(), None  # when the prompt had been read

    @property
    def reading(self) -> bool:
        """Whether the prompt has not been read yet."""
        return self._read is None

    def progress(self) -> Prefill:
        return Prefill(len(self.sequence.tokens), len(self.ids), self._reused)

    def part(self, most=MAX_TOKENS) -> tuple[list[int], int]:
        """At most so many ids that are to be computed next, and of how many of them, the last,
        the logits are wanted."""
        at = len(self.sequence.tokens)
        if self.reading:
            ids = self.ids[at : at + min(self._size, most)]
            self._size = len(ids)
            return ids, int(at + len(ids) == len(self.ids))
        room = min(self._context - at, self._most - self._generated, most) - 1
        self._guesses = self._guess(room)
        return [self._lookup.history[-1], *self._guesses], 1 + len(self._guesses)

    def take(self, logits, peaks, seconds, stop):
        """Take what the step gave for the part, and how long it took; yields Prefill, Token, Done.

        logits : float32 (outputs, vocab_size), peaks : float32 (outputs, vocab_size / PEAK), as `Engine.step` gives
        them
        """
        if self.reading:
            yield self.progress()
            if len(self.sequence.tokens) < len(self.ids):
                # Within 64 to 512 tokens, which is where more tokens in a step still make it faster.
                self._size = int(min(max(self._size * STEP_SECONDS / seconds, FIRST_TOKENS), MAX_TOKENS))
                return
            self._read, seconds = time.perf_counter(), None
        row = 0
        while True:
            if stop.is_set():
                yield self.end("stopped")
                return
            id = self._pick(logits[row], peaks[row])
            if id in self._end_ids:
                yield self.end("end")
                return
            self._generated += 1
            self._guessed += row > 0
            self._lookup.push(id)
            yield Token(id, *(likeliest(logits[row], peaks[row], id, self._alternatives) if self._alternatives else ()))
            if self._generated == self._most:
                yield self.end("length")
                return
            if row < len(self._guesses) and id == self._guesses[row]:
                row += 1
                continue
            break
        if seconds is not None:
            self._lookup.learn(len(self._guesses), row, seconds)
        del self.sequence.tokens[len(self._lookup.history) - 1 :]  # guesses that were wrong
        if len(self.sequence.tokens) == self._context:
            yield self.end("context")

    def end(self, reason) -> Done:
        """The last event."""
        now = time.perf_counter()
        prefill, decode = (now - self._begun, 0.0) if self.reading else (self._read - self._begun, now - self._read)
        stats = Stats(len(self.ids), self._reused, self._generated, prefill, decode, self._guessed)
        self.done = Done(stats, reason)
        return self.done

    def _guess(self, room):
        if not self._guessing:
            return []
        likely = self._constraint.likely()[: min(room, MAX_OUTPUTS - 1)] if self._constraint else []
        return likely or self._lookup.guess(room)

    def _pick(self, logits, peaks):
        if self._constraint is None:
            return self._sampler.pick(logits, peaks, self._lookup.history)
        id = self._sampler.pick(logits, peaks, self._lookup.history, self._constraint.allowed())
        if id not in self._end_ids:
            self._constraint.push(id)
        return id


def common_prefix(a, b) -> int:
    """How many ids two lists have in common from their beginning on."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    return int(np.argmin(np.equal(a[:n], b[:n])))
