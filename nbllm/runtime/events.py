"""What a generation, and the loading before it, report while they run, and the one flag that stops it.

Cells, panel, kernel and batch all consume these same events; none of them carries text.
"""

from contextlib import closing
from dataclasses import dataclass

import numpy as np

from ..errors import Stopped


@dataclass(frozen=True)
class Packing:
    """Progress of laying out a model's weights for the kernels, in bytes."""

    done: int
    total: int


@dataclass(frozen=True)
class Reading:
    """Progress of reading weights that are laid out already, in bytes."""

    done: int
    total: int


@dataclass(frozen=True)
class Prefill:
    """Progress of reading the prompt, in tokens; `reused` of `total` were in the cache already."""

    done: int
    total: int
    reused: int


@dataclass(frozen=True)
class Token:
    """One generated token; if asked for, the probability that the model gave it before any sampling option, and the
    likeliest tokens in its place, each with its own."""

    id: int
    probability: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Stats:
    """Counts in tokens, times in seconds. `guessed_tokens` of the generated ones took no step of their own: they had
    been guessed, and came true."""

    prompt_tokens: int
    reused_tokens: int
    generated_tokens: int
    prefill_seconds: float
    decode_seconds: float
    guessed_tokens: int = 0

    @property
    def prefill_per_second(self) -> float:
        return (self.prompt_tokens - self.reused_tokens) / self.prefill_seconds if self.prefill_seconds else 0.0

    @property
    def decode_per_second(self) -> float:
        return self.generated_tokens / self.decode_seconds if self.decode_seconds else 0.0


@dataclass(frozen=True)
class Done:
    """The last event. finish_reason: "end" (an end-of-generation token), "length" (max_tokens reached),
    "context" (no room left), "stop" (a stop string), "stopped" (the flag was set)."""

    stats: Stats
    finish_reason: str


STOPPED_FIRST = Done(Stats(0, 0, 0, 0.0, 0.0), "stopped")  # before there was a prompt to read


def finish(steps, each=lambda event: None):
    """Run a generator of events to its end, and `each` on every one of them; returns what the generator returns."""
    with closing(steps):
        while True:
            try:
                event = next(steps)
            except StopIteration as end:
                return end.value
            each(event)


class StopFlag:
    """Set from any thread to stop a running step; the compiled kernels read the same memory."""

    def __init__(self):
        self.array = np.zeros(1, np.int32)  # (1,) int32: 0 run, 1 stop

    def set(self):
        self.array[0] = 1

    def clear(self):
        self.array[0] = 0

    def is_set(self) -> bool:
        return bool(self.array[0])

    def look(self, told="Stopped before the prompt was read."):
        """For work that is no step of the engine: raises Stopped if it is set, with what to tell the user."""
        if self.is_set():
            raise Stopped(told)
