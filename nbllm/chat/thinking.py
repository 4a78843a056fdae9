"""What a reasoning model thinks, kept apart from what it answers, while the text comes in pieces of any size.

A thought stands before the answer, between two tags, of which the template may have written the first. Knows nothing of
tokens and templates.
"""

from dataclasses import dataclass

from nbllm.runtime.events import Token

TAGS = {"<think>": "</think>", "<thinking>": "</thinking>", "[THINK]": "[/THINK]"}


@dataclass(frozen=True)
class Thought:
    """Text that the model thinks, as it comes, and the tokens that were generated since the last one."""

    text: str
    tokens: tuple[Token, ...]


class Thoughts:
    """Splits the text of one reply.

    Parameters
    ----------
    prompt : str
        Whose end may have opened a thought.
    space : bool
        Whether a space before the answer belongs to the vocabulary's way of writing words, not to the text.
    """

    def __init__(self, prompt: str, space=False):
        prompt = prompt.rstrip()
        self._closing = next((closing for tag, closing in TAGS.items() if prompt.endswith(tag)), None)
        self._state = "thought" if self._closing else "beginning"
        self._space = space
        self._strip = self._closing is not None  # whether white space that comes next is dropped
        self._held = ""

    @property
    def thinking(self) -> bool:
        """Whether what was pushed last belongs to a thought that goes on."""
        return self._state == "thought"

    @property
    def closing(self) -> str | None:
        """The tag that ends the thought, if as much as its beginning was pushed last."""
        return self._closing if self.thinking and self._held else None

    def push(self, text: str, end=False) -> tuple[str, str]:
        """What is certain now: of the thought, and of the answer. At the end nothing is held back."""
        text, thought, self._held = self._held + text, "", ""
        if self._state == "beginning":
            text = self._begin(text, end)
        if self._state == "thought":
            thought, tag, text = text.partition(self._closing)
            if not tag:
                certain = len(thought) if end else len(thought) - _begun(thought, self._closing)
                thought, self._held = thought[:certain], thought[certain:]
            thought = self._stripped(thought)
            if tag:
                self._state, self._strip = "answer", True
        return thought, self._stripped(text) if self._state == "answer" else ""

    def _begin(self, text, end):
        """Find out what the reply begins with; returns the text after a tag."""
        begun = text.lstrip()
        for tag, closing in TAGS.items():
            if begun.startswith(tag):
                self._state, self._closing, self._strip = "thought", closing, True
                return begun[len(tag) :]
        if not end and any(tag.startswith(begun) for tag in TAGS):
            self._held = text
            return ""
        self._state = "answer"
        return text.removeprefix(" ") if self._space else text

    def _stripped(self, text):
        if self._strip:
            text = text.lstrip()
            self._strip = not text
        return text


def _begun(text, tag):
    """How many characters at the end of the text may be the beginning of the tag."""
    return max((n for n in range(1, len(tag)) if text.endswith(tag[:n])), default=0)


def dimmed(text: str) -> str:
    """For a terminal: paler than the answer. The text has no control characters any more."""
    return f"\x1b[2m{text}\x1b[22m"
