"""A conversation with a model: messages, their prompt, the reply, and what to drop when the context is full.

A follow-up turn continues what the engine has in its cache, token for token. For that, a `Chat` keeps the ids of all
that was read and generated, since text that is tokenized again may come out as other ids. When the template only
appends (the new prompt's text starts with the old prompt and the reply, as is usual), only the text after that is
encoded and put behind those ids. When it does not, all is encoded anew, and whatever prefix still agrees is reused.

Knows nothing of threads, cells or how a reply is shown.
"""

import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from nbllm.chat.prompt import PromptEncoder
from nbllm.errors import ContextFullError
from nbllm.model import Model, Text
from nbllm.runtime.events import Done, Stats, StopFlag
from nbllm.runtime.options import Sampling


@dataclass(frozen=True)
class Notice:
    """One line that the user should see."""

    text: str


@dataclass(frozen=True)
class Reply:
    """What the model answered. `str(reply)` is the text.

    finish_reason is that of `Done`; a reply that was broken off has "stopped", and stats only if the engine gave them.
    """

    text: str
    stats: Stats | None
    finish_reason: str
    seed: int

    def __str__(self):
        return self.text


class Chat:
    """A conversation that goes on with every call.

        chat = Chat(model, system="Answer in one sentence.", temperature=0)
        reply = chat("Why is the sky blue?")

    Parameters
    ----------
    model : Model
    system : str, optional
        What the model is told before the conversation. Without it, the template may have something of its own.
    **sampling
        Fields of `Sampling`, for all turns.

    Attributes
    ----------
    messages : list of dict
        The conversation as the model is given it: `role` and `content` of each message, without the system's.
    last : Reply or None
        The reply of the last turn, also when it was broken off.
    """

    def __init__(self, model: Model, system: str | None = None, **sampling):
        self.model = model
        self.system = system
        self.sampling = Sampling().updated(**sampling)
        self._prompts = PromptEncoder(model.metadata.get("tokenizer.chat_template"), model.tokenizer)
        self._told = False  # the template's notice
        self.new()

    def new(self):
        """Forget the conversation. The system message stays."""
        self.messages = []
        self.last = None
        self._read = ("", [])  # the text, fenced, and the ids of all turns up to the last reply

    def __call__(self, message: str, **sampling) -> Reply:
        """Send a message and wait for the reply; arguments and errors are those of `stream`."""
        for _ in self.stream(message, **sampling):
            pass
        return self.last

    def stream(self, message: str, stop_flag: StopFlag | None = None, **sampling) -> Iterator:
        """Send a message and follow the reply.

        The message and the reply join the conversation, even if the reply was broken off: by the flag, by an error, or
        by closing this iterator. Only a turn that brought no text at all leaves the conversation as it was.

        Parameters
        ----------
        message : str
        stop_flag : StopFlag, optional
            Set it from another thread to stop.
        **sampling
            Fields of `Sampling` that differ in this turn.

        Yields
        ------
        Notice, Prefill, Text, Done
            What the user should know, reading, the text as it comes, and the end.

        Raises
        ------
        OptionError
            An option is unknown or out of range, or the template refuses the conversation.
        ContextFullError
            The message alone does not fit in the context.
        """
        options = self.sampling.updated(**sampling)
        if options.seed is None:
            options = options.updated(seed=secrets.randbits(32))
        return self._turn(message, options, stop_flag)

    def _turn(self, message, options, stop_flag):
        if self._prompts.notice and not self._told:
            self._told = True
            yield Notice(self._prompts.notice)
        messages = [*self.messages, {"role": "user", "content": message}]
        text, ids = self._prompt(messages)
        if len(ids) + self._room(options) > self.model.context:
            kept, text, ids = self._shortened(messages)
            if len(kept) < len(messages):
                dropped = (len(messages) - len(kept)) // 2
                yield Notice(f"The context of {self.model.context:,} tokens is full: the oldest {dropped} "
                             f"{'exchange was' if dropped == 1 else 'exchanges were'} dropped.")
            messages = kept
        parts, generated, done = [], [], None
        try:
            for event in self.model.generate(ids, stop_flag, **asdict(options)):
                if isinstance(event, Text):
                    parts.append(event.text)
                    generated += event.ids
                elif isinstance(event, Done):
                    done = event
                yield event
        finally:
            reply = "".join(parts)
            self.last = Reply(reply, done and done.stats, done.finish_reason if done else "stopped", options.seed)
            if reply:
                self.messages = [*messages, {"role": "assistant", "content": reply}]
                if self.model.detokenize(generated) != reply:  # cut before a stop string, or in a character
                    generated = self._prompts.encode(self._prompts.fence(reply), start=False)
                self._read = (text + self._prompts.fence(reply), ids + generated)

    def _prompt(self, messages):
        """The text, fenced, and the ids of the prompt for these messages."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        text = self._prompts.render(system + messages)
        read, ids = self._read
        if read and text.startswith(read):
            return text, ids + self._prompts.encode(text[len(read):], start=False)
        return text, self._prompts.encode(text)

    def _room(self, options):
        """How many tokens to keep free for the reply: what was asked for, but at most a quarter of the context."""
        quarter = self.model.context // 4
        return quarter if options.max_tokens is None else min(options.max_tokens, quarter)

    def _shortened(self, messages):
        """Without its oldest exchanges, so that half of the context is free: the messages, the text and the ids.

        Half, since all that stays must be read again: dropping as little as possible would cost that every turn.
        """
        while True:
            text, ids = self._prompt(messages)
            if len(ids) <= self.model.context // 2 or len(messages) < 3:
                break
            messages = messages[2:]
        if len(ids) >= self.model.context:
            raise ContextFullError(
                f"the message makes a prompt of {len(ids):,} tokens, and the context holds {self.model.context:,}; "
                "shorten it, or load the model with a larger context"
            )
        return messages, text, ids
