"""Many replies at once: they share each pass over the weights, and the cache of what their prompts have in common.

A reply joins as soon as there is room and leaves when it is done, in any step. Each gets the same tokens as it would
alone, since a token's logits do not depend on what else is in its step. Knows token ids and no text.
"""

import time
from collections import deque
from dataclasses import dataclass

from ..errors import ContextFullError, NbLLMError
from .cache import Sequence
from .engine import MAX_OUTPUTS
from .generation import FIRST_TOKENS, STEP_SECONDS, Generation, common_prefix
from .program import PAGE


@dataclass(frozen=True)
class Row:
    """A reply that was asked for, and by which name its events go."""

    key: object
    ids: list[int]
    sampling: object
    end_ids: frozenset
    constraint: object = None


class Batch:
    """
    Parameters
    ----------
    engine : Engine
        Its `room` is for all replies together; its own `generate` must not run meanwhile.
    width : int
        Most replies at a time, at most MAX_OUTPUTS.
    """

    def __init__(self, engine, width=MAX_OUTPUTS):
        self._engine, self._width = engine, width
        self._waiting = deque()
        self._running = {}  # Row.key -> Generation
        self._reserved = {}  # Row.key -> pages that it may come to need
        self._room = engine.max_tokens  # tokens of a step, so that it takes about STEP_SECONDS

    def __len__(self):
        """How many replies wait or are being written."""
        return len(self._waiting) + sum(not generation.done for generation in self._running.values())

    def add(self, key, ids, sampling, end_ids=frozenset(), constraint=None):
        """Ask for a reply; its events will come under this key.

        Raises
        ------
        ContextFullError, OptionError
            As `Engine.generate`.
        """
        ids = self._engine.checked_prompt(ids)
        if self._pages(ids, sampling) > self._engine.cache.pages:
            raise ContextFullError(
                f"the prompt has {len(ids)} tokens, and with its reply does not fit in the cache of "
                f"{self._engine.cache.pages * PAGE} positions; shorten it, or give more room"
            )
        self._waiting.append(Row(key, ids, sampling, end_ids, constraint))

    def step(self, stop):
        """Compute one step for all.

        Returns
        -------
        list of (key, event) or None
            Prefill, Token, Done, or the error with which a reply ended. None if the flag stopped the step; it may be
            computed again.

        Raises
        ------
        NbLLMError
            As `Engine.step`.
        """
        with self._engine.turn.wanted():
            return self._step(stop)

    def _step(self, stop):
        self._admit()
        parts = self._parts()
        if not parts:
            return []
        begun = time.perf_counter()
        computed = self._engine.compute([(self._running[key].sequence, *part) for key, part in parts], stop)
        if computed is None:
            return None
        seconds, row, events = time.perf_counter() - begun, 0, []
        tokens = sum(len(ids) for _, (ids, _) in parts)
        self._room = int(min(max(tokens * STEP_SECONDS / seconds, FIRST_TOKENS), self._engine.max_tokens))
        for key, (_, outputs) in parts:
            generation, rows = self._running[key], slice(row, row + outputs)
            row += outputs
            try:
                events += [(key, event) for event in generation.take(*(each[rows] for each in computed), seconds, stop)]
            except NbLLMError as error:
                events.append((key, error))
                generation.end("error")
        return events

    def end(self, key, reason):
        """End a reply now; its last event."""
        return self._running[key].end(reason)

    def close(self):
        """Drop all replies, and the engine's memory with them."""
        self._waiting.clear()
        self._running.clear()
        self._engine.close()

    def _admit(self):
        """Let those in for whom there is room; what has ended goes only now,
        since they may go on from its beginning."""
        ended = [key for key, generation in self._running.items() if generation.done]
        for key in ended:
            del self._reserved[key]
        while self._waiting and len(self._reserved) < self._width:
            row = self._waiting[0]
            pages = self._pages(row.ids, row.sampling)
            if sum(self._reserved.values()) + pages > self._engine.cache.pages:
                break
            alike = max(self._running.values(), key=lambda other: common_prefix(other.ids, row.ids), default=None)
            shared = common_prefix(alike.ids, row.ids) if alike else 0
            if alike and not alike.done and len(alike.sequence.tokens) < min(shared, len(alike.ids) - 1):
                break  # it will have been read soon
            sequence = self._engine.cache.fork(alike.sequence, shared) if alike else Sequence()
            self._waiting.popleft()
            self._running[row.key] = Generation(
                sequence, row.ids, row.sampling, self._engine.vocab_size, self._engine.context, row.end_ids,
                row.constraint, guessing=False,
            )  # fmt: skip
            self._reserved[row.key] = pages
        for key in ended:
            self._engine.cache.release(self._running.pop(key).sequence)

    def _parts(self):
        """Who computes what: those that write one token each, and what room that leaves for reading prompts."""
        parts, room = [], self._room
        for key, generation in sorted(self._running.items(), key=lambda item: item[1].reading):
            if room:
                part = generation.part(room)
                room -= len(part[0])
                parts.append((key, part))
        return parts

    def _pages(self, ids, sampling):
        most = self._engine.context if sampling.max_tokens is None else len(ids) + sampling.max_tokens
        return -(-min(most, self._engine.context) // PAGE)
