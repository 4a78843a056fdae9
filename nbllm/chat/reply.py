"""What a model answered, and how it comes about from the events of a generation.

Knows nothing of conversations, threads or how a reply is shown.
"""

from dataclasses import dataclass

from nbllm.chat.code import CodeBlock, code_blocks, python
from nbllm.chat.thinking import Thought, Thoughts
from nbllm.runtime.events import Done, Stats, Token
from nbllm.text import Text


@dataclass(frozen=True)
class Reply:
    """What the model answered. `str(reply)` is the text; `think` is what it thought before, and empty with most models.

    tokens are those of both, as they were generated; finish_reason is that of `Done`. A reply that was broken off has
    "stopped", and stats only if the engine gave them.
    """

    text: str
    stats: Stats | None
    finish_reason: str
    seed: int
    think: str = ""
    tokens: tuple[Token, ...] = ()

    def __str__(self):
        return self.text

    @property
    def code_blocks(self) -> list[CodeBlock]:
        """The blocks of code in the text, each with its language."""
        return code_blocks(self.text)

    @property
    def code(self) -> str:
        """The Python in the text: the blocks that say so, or name no language, one below the other."""
        return python(self.text)


class ReplyStream:
    """One reply as it comes, what is thought told from what is answered.

    Parameters
    ----------
    prompt : str
        Whose end may have opened a thought.
    space_prefix : bool
        As of the tokenizer.
    seed : int

    Attributes
    ----------
    tokens : list of Token
        All that was generated, and `written` their text.
    """

    def __init__(self, prompt: str, space_prefix: bool, seed: int):
        self.tokens = []
        self.written = ""
        self._seed = seed
        self._thoughts, self._thought, self._answer = Thoughts(prompt, space_prefix), [], []
        self._pending = []
        self._done = None

    def push(self, event):
        """Take an event of the model's; yields it, or Thought and Text in place of Text."""
        if isinstance(event, Text):
            self.written += event.text
            self.tokens += event.tokens
            self._pending += event.tokens
            yield from self._split(event.text)
            return
        if isinstance(event, Done):
            self._done = event
            yield from self._split("", end=True)
        yield event

    def reply(self) -> Reply:
        """The reply as it is now; nothing may be pushed afterwards."""
        for _ in self._split("", end=True):  # what was held back when it was broken off
            pass
        stats, reason = (self._done.stats, self._done.finish_reason) if self._done else (None, "stopped")
        think = "".join(self._thought).strip()
        return Reply("".join(self._answer), stats, reason, self._seed, think, tuple(self.tokens))

    def _split(self, text, end=False):
        for kind, parts, piece in zip((Thought, Text), (self._thought, self._answer), self._thoughts.push(text, end)):
            if piece:
                parts.append(piece)
                yield kind(piece, tuple(self._pending))
                self._pending.clear()
