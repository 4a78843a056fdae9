"""What was said in a conversation, and its system prompt: plain text, without a model, a cache or a file.

Messages are as chat templates are given them: a question of the user's and an answer of the assistant's in turn.
"""

from dataclasses import dataclass, field
from numbers import Integral

from nbllm.chat.code import fenced
from nbllm.errors import OptionError, quoted

OVERFLOW = {  # what to do when the context is full
    "drop": "drop the oldest exchanges, and say so",
    "stop": "refuse the message",
}


class Answer(dict):
    """A message of the assistant's that also knows how it came. To templates, and to whoever compares it, it is a dict.

    Attributes
    ----------
    stats : runtime.events.Stats or None
    """

    stats = None


@dataclass
class Transcript:
    """One conversation.

    Attributes
    ----------
    system : str or None
    messages : list of dict
        `role` and `content` of each; what the model thought is `reasoning_content` beside its answer. Never changed in
        place: every turn makes a new list, so copies may share it.
    """

    system: str | None = None
    messages: list[dict] = field(default_factory=list)

    @property
    def exchanges(self) -> int:
        return len(self.messages) // 2

    def without(self, count: int = 1) -> "Transcript":
        """A copy without the last exchanges; OptionError when there are not so many."""
        if not isinstance(count, Integral) or not 0 <= count <= self.exchanges:
            has = f"has {self.exchanges} exchange{'s' * (self.exchanges != 1)}" if self.messages else "is empty"
            raise OptionError(f"{quoted(count)} cannot be taken back: the conversation {has}")
        return Transcript(self.system, self.messages[: len(self.messages) - 2 * count])

    def question(self, count: int = 1) -> str:
        """The question that is so many from the end, 1 being the last; OptionError when there is none."""
        return self.messages[len(self.without(max(count, 1)).messages)]["content"]

    def markdown(self) -> str:
        """The conversation to read: questions quoted, answers as they are, thoughts and the system prompt as blocks."""
        parts = [f"System prompt:\n\n{fenced(self.system)}"] if self.system else []
        for message in self.messages:
            if message["role"] == "user":
                parts.append("\n".join(f"> {line}".rstrip() for line in message["content"].split("\n")))
                continue
            if "reasoning_content" in message:
                parts.append(f"Thought:\n\n{fenced(message['reasoning_content'])}")
            parts.append(message["content"])
        return "\n\n".join(parts) + "\n"
