"""What a model answered, and how it comes about from the events of a generation.

Knows nothing of conversations, threads or how a reply is shown.
"""

import json
from dataclasses import dataclass

from nbllm.chat.code import CodeBlock, code_blocks, python
from nbllm.chat.schema import Schema
from nbllm.chat.thinking import Thought, Thoughts
from nbllm.chat.tokens import Tokens
from nbllm.errors import NbLLMError
from nbllm.runtime.events import Done, Stats
from nbllm.text import Text


CUT = {  # finish reason: what to do about it
    "length": "give it more max_tokens",
    "context": "start a new conversation, or load the model with a larger context",
    "stop": "ask without stop strings",
}


@dataclass(frozen=True)
class Reply:
    """What the model answered. `str(reply)` is the text; `think` is what it thought before, and empty with most models.

    tokens are those of both, as they were generated, with texts and probabilities if these were asked for;
    finish_reason is that of `Done`. A reply that was broken off has "stopped", and stats only if the engine gave them.
    schema is what the text was made to fit, if anything.
    """

    text: str
    stats: Stats | None
    finish_reason: str
    seed: int
    think: str = ""
    tokens: Tokens = Tokens()
    schema: Schema | None = None

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

    @property
    def value(self):
        """What the text says, as the schema has it: objects of Python's, or instances of the class that was asked for.

        Raises
        ------
        NbLLMError
            The reply was not made to fit a schema, or was cut; its text is still there.
        """
        if self.schema is None:
            raise NbLLMError(
                "this reply fits no schema: ask with schema=, or --schema in a cell; reply.text is its text"
            )
        if self.finish_reason != "end":
            hint = CUT.get(self.finish_reason, "ask again")
            raise NbLLMError(
                f"this reply is no whole JSON, since it was cut ({self.finish_reason}): {hint}; "
                "reply.text has what there is"
            )
        return self.schema.value(self.text)

    def frame(self):
        """The objects of the reply as a pandas DataFrame, a row for each; a single one is one row.

        Raises
        ------
        NbLLMError
            As of `value`; or pandas is not installed.
        """
        _ = self.value  # says what is wrong, if anything is
        try:
            import pandas
        except ImportError:
            raise NbLLMError("a frame needs pandas: pip install pandas; reply.value has the objects") from None
        rows = json.loads(self.text)
        rows = rows if isinstance(rows, list) else [rows]
        return pandas.DataFrame([row if isinstance(row, dict) else {"value": row} for row in rows])


class ReplyStream:
    """One reply as it comes, what is thought told from what is answered.

    Parameters
    ----------
    prompt : str
        Whose end may have opened a thought.
    space_prefix : bool
        As of the tokenizer.
    seed : int
    schema : Schema, optional
        Which the text fits.

    Attributes
    ----------
    tokens : list of Token
        All that was generated, and `written` their text.
    """

    def __init__(self, prompt: str, space_prefix: bool, seed: int, schema: Schema | None = None):
        self.tokens = []
        self.written = ""
        self._seed, self._schema = seed, schema
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
        return Reply("".join(self._answer), stats, reason, self._seed, think, Tokens(self.tokens), self._schema)

    def _split(self, text, end=False):
        for kind, parts, piece in zip((Thought, Text), (self._thought, self._answer), self._thoughts.push(text, end)):
            if piece:
                parts.append(piece)
                yield kind(piece, tuple(self._pending))
                self._pending.clear()
