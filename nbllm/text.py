"""Text of tokens as they come: a character may take several of them, and a stop string may be about to begin.

Knows nothing of models; it is given the engine's events.
"""

from dataclasses import dataclass
from typing import NamedTuple

from nbllm.runtime.events import Done, Token


class Alternative(NamedTuple):
    """A token that was likely, what it is as text, and the probability that the model gave it."""

    id: int
    text: str
    probability: float


@dataclass(frozen=True)
class TextToken(Token):
    """A token whose probability was asked for, with its text; bytes that are no text by themselves are as `\\xe2`."""

    alternatives: tuple[Alternative, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Text:
    """Generated text as it comes, and the tokens that were generated since the last one."""

    text: str
    tokens: tuple[Token, ...]


class TextStream:
    """The events of one reply, with text in place of tokens.

    Attributes
    ----------
    found : bool
        Whether a stop string has come: nothing that is still written is told, and the reply should be ended.
    """

    def __init__(self, tokenizer, stop_strings: tuple[str, ...]):
        self.found = False
        self._bytes = tokenizer.token_bytes
        self._decoder, self._stops = tokenizer.stream(), StopStrings(stop_strings)
        self._pending = []

    def push(self, event):
        """Take an event of the engine's; yields Text, and all events but Token."""
        text = ""
        if isinstance(event, Token) and not self.found:
            self._pending.append(event if event.probability is None else self._told(event))
            text, self.found = self._stops.push(self._decoder.push(event.id))
        elif isinstance(event, Done) and not self.found:
            text, self.found = self._stops.finish(self._decoder.finish())
        if text:
            yield Text(text, tuple(self._pending))
            self._pending.clear()
        if isinstance(event, Done):
            yield Done(event.stats, "stop") if self.found else event
        elif not isinstance(event, Token):
            yield event

    def _told(self, token):
        alternatives = tuple(Alternative(id, self._spelled(id), share) for id, share in token.alternatives)
        return TextToken(token.id, token.probability, alternatives, self._spelled(token.id))

    def _spelled(self, id):
        return self._bytes(id).decode("utf-8", "backslashreplace")


class StopStrings:
    """Looks for stop strings in text that comes in pieces, holding back what may become one."""

    def __init__(self, stops: tuple[str, ...]):
        self._stops = stops
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """The text that is certain now, and whether a stop string follows it."""
        text = self._held + text
        starts = [start for stop in self._stops if (start := text.find(stop)) >= 0]
        if starts:
            return text[: min(starts)], True
        begun = [n for stop in self._stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
        certain = len(text) - max(begun, default=0)
        self._held = text[certain:]
        return text[:certain], False

    def finish(self, text: str) -> tuple[str, bool]:
        """As `push`, for the last piece: nothing is held back."""
        text, found = self.push(text)
        return (text, True) if found else (text + self._held, False)
