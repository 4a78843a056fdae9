"""The conversations of a session, by name, of which one goes on. Knows nothing of models, threads and cells.

What changes something returns a line for the user. No conversation that has begun is lost but by `undo`, which says so.
"""

from contextlib import contextmanager
from pathlib import Path

from nbllm.chat.saved import export, load, save
from nbllm.chat.transcript import Transcript
from nbllm.errors import OptionError


class Shelf:
    """
    Attributes
    ----------
    conversations : dict of Transcript
        By name. Those that were given none are numbered.
    name : str
        Of the one that goes on.
    """

    def __init__(self):
        self.conversations = {"1": Transcript()}
        self.name = "1"
        self._questions = {}  # a notebook's cell -> the message that it asked last

    @property
    def current(self) -> Transcript:
        return self.conversations[self.name]

    @contextmanager
    def asking(self, cell: str | None):
        """What is asked meanwhile is the question of this cell of a notebook.

        What it asked before in this conversation is taken back first, with all that came after; unless nothing comes of
        the new question. Gives how many exchanges after its own that were.
        """
        transcript, before = self.current, self.current.messages
        asked = self._questions.get(cell)
        place = next((n for n, message in enumerate(before) if message is asked), len(before))
        kept = transcript.messages = before[:place]
        try:
            yield max(0, (len(before) - place) // 2 - 1)
        finally:
            if transcript.messages is kept:
                transcript.messages = before
            elif cell is not None:
                self._questions[cell] = transcript.messages[-2]

    @contextmanager
    def asking_again(self):
        """The last question is asked again meanwhile; it stays that of its cell."""
        transcript = self.current
        asked = transcript.messages[-2] if transcript.messages else None
        try:
            yield
        finally:
            for cell, message in self._questions.items():
                if message is asked and transcript.messages:
                    self._questions[cell] = transcript.messages[-2]

    def new(self, name: str | None = None) -> str:
        """Start a conversation."""
        self._begin(name, Transcript(), lambda: self._unused("", 1))
        return f"A new conversation, {name}." if name else "A new conversation."

    def switch(self, name: str) -> str:
        """Go on with another."""
        if name not in self.conversations:
            raise OptionError(f"there is no conversation {name!r}; %chat list shows them, %chat new begins one")
        if name != self.name:
            self._leave()
        self.name = name
        return f"Conversation {name} goes on after {_count(self.current)}."

    def branch(self, name: str | None = None, undo: int = 0) -> str:
        """Go on in a copy, without the last exchanges."""
        before, copy = self.name, self.current.without(undo)
        self._begin(name, copy, lambda: self._unused(f"{before}-", 2), leave=False)
        return f"Conversation {self.name} goes on after {_count(copy)}; {before} stays as it is."

    def undo(self, count: int = 1) -> str:
        """Take back the last exchanges."""
        self.current.messages = self.current.without(count).messages
        return f"Taken back: {count}. The conversation goes on after {_count(self.current)}."

    def instruct(self, system: str | None) -> str:
        """Set the system prompt, from here on in this conversation; none if it is empty."""
        self.current.system = system or None
        return "The system prompt is set." if system else "There is no system prompt any more."

    def save(self, path) -> str:
        save(self.current, path)
        return f"Saved {_count(self.current)} in {path}."

    def load(self, path) -> str:
        """Read a conversation and go on with it, under the name of its file."""
        read, name = load(path), Path(path).stem
        free = name if name not in self.conversations else self._unused(f"{name}-", 2)
        self._begin(free, read)
        return f"Conversation {self.name} goes on after {_count(read)}."

    def export(self, path) -> str:
        export(self.current, path)
        return f"Wrote {_count(self.current)} to {path}."

    def _begin(self, name, transcript, unnamed=None, leave=True):
        if name in self.conversations:
            raise OptionError(f"there is a conversation {name!r} already; %chat switch {name} goes on with it")
        if leave:
            self._leave()
        self.name = name or unnamed()
        self.conversations[self.name] = transcript

    def _leave(self):
        """One that never began, and that was given no name, is not kept."""
        if not self.current.messages and self.name.isdecimal():
            del self.conversations[self.name]

    def _unused(self, prefix, number):
        while f"{prefix}{number}" in self.conversations:
            number += 1
        return f"{prefix}{number}"


def _count(transcript):
    return f"{transcript.exchanges} exchange{'s' * (transcript.exchanges != 1)}"
