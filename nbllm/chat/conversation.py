"""A conversation with a model: messages, and the reply to each question, with what fits of those before it.

Knows nothing of threads, cells or how a reply is shown.
"""

import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from nbllm.catalogue.progress import ProgressLine
from nbllm.chat import grammar, kept
from nbllm.chat.context import Context
from nbllm.chat.prompt import PromptEncoder
from nbllm.chat.reply import Reply, ReplyStream
from nbllm.chat.saved import load, save
from nbllm.chat.transcript import OVERFLOW, Answer, Transcript
from nbllm.errors import ConversationFileError, NotCopied, OptionError, Stopped, need, quoted
from nbllm.model import Model
from nbllm.runtime.events import STOPPED_FIRST, StopFlag
from nbllm.runtime.generation import common_prefix
from nbllm.runtime.options import Sampling
from nbllm.tokenizers import unwatched

PATIENCE = 0.5  # seconds without a word, before progress is shown


@dataclass(frozen=True)
class Notice:
    """One line that the user should see."""

    text: str


class Chat(NotCopied):
    """A conversation that goes on with every call.

        chat = Chat(model, system="Answer in one sentence.", temperature=0)
        reply = chat("Why is the sky blue?")

    Parameters
    ----------
    model : Model
    system : str, optional
        What the model is told before the conversation. Without it, the template may have something of its own.
    overflow : "drop" or "stop"
        Whether the oldest exchanges are dropped when the context is full, or the message is refused.
    transcript : Transcript, optional
        A conversation to go on with; its system prompt is used.
    **sampling
        Fields of `Sampling`, for all turns.

    Attributes
    ----------
    transcript : Transcript
        The conversation; another may be put in its place. `system` and `messages` are its own: `role` and `content` of
        each message, and `reasoning_content` with what the model thought, of which templates show it what they want to.
    last : Reply or None
        The reply of the last turn, also when it was broken off.
    sent : list of int
        The token ids of the last turn's prompt.
    """

    instead = "load the model in each process, by nbllm.load; chat.save and chat.load take the conversation there"

    def __init__(
        self,
        model: Model,
        system: str | None = None,
        overflow: str = "drop",
        transcript: Transcript | None = None,
        **sampling,
    ):
        need(isinstance(model, Model), "model", model, "a model, as nbllm.load makes it")
        need(isinstance(transcript, Transcript | None), "transcript", transcript, "a Transcript")
        self.model = model
        self.overflow = overflow
        self.transcript = transcript or Transcript(system)
        self.sampling = Sampling().updated(**sampling)
        self._prompts = PromptEncoder(
            model.metadata.get("tokenizer.chat_template"),
            model.tokenizer,
            f"{model.name} {model.metadata.get('general.name', '')}",
        )
        self._context = Context(model, self._prompts)
        self._told = set()  # notices
        self._forget()

    @property
    def system(self) -> str | None:
        return self.transcript.system

    @system.setter
    def system(self, system):
        self.transcript.system = system

    @property
    def messages(self) -> list[dict]:
        return self.transcript.messages

    @messages.setter
    def messages(self, messages):
        need(isinstance(messages, list), "messages", messages, "a list of messages")
        self.transcript.messages = messages

    def new(self):
        """Start a new conversation. The system message stays."""
        self.transcript = Transcript(self.system)
        self._forget()

    def undo(self, count: int = 1):
        """Take back the last exchanges; OptionError when there are not so many."""
        self.messages = self.transcript.without(count).messages

    def retry(self, **sampling) -> Reply:
        """Ask the last question again and wait for the reply; arguments and errors are those of `stream_again`."""
        for _ in self.stream_again(**sampling):
            pass
        return self.last

    def map(self, prompts, template=None, schema=None, progress=True, engine=None, **sampling):
        """As `nbllm.map`, with each prompt as the next message of this conversation, which stays as it is."""
        from nbllm.chat.map import Map  # which knows this file

        return Map(prompts, template=template, chat=self, schema=schema, **sampling).run(progress, engine)

    def save(self, path, cache: bool = False):
        """Write the conversation to a file, as JSON lines; raises ConversationFileError.

        cache : whether what the model has read is kept beside it, so that it need not be read again when it is loaded.
        """
        save(self.transcript, path)
        if cache:
            self._show(self.keep(path, StopFlag()), "saving what was read of {name}, {total}")

    def load(self, path):
        """Go on with a conversation that was saved, with its cache if one was kept; raises ConversationFileError."""
        self.transcript = load(path)
        self._forget()
        self._show(self.recall(path, StopFlag()), "loading what was read of {name}, {total}")

    def keep(self, path, stop: StopFlag):
        """Write the cache of the conversation that is saved at `path`; a generator, which yields Copying.

        Raises
        ------
        ConversationFileError
            There is none, or it cannot be written.
        """
        text, ids = self._context.prompt(self.system, self._asking("x"))  # as a next turn would begin
        if not common_prefix(self.model.engine.tokens, ids):
            raise ConversationFileError(
                "there is no cache to save: the model has read nothing of this conversation; ask first, "
                "or save without it"
            )
        read = self._context.read(text) or ("", ids)
        yield from kept.write(kept.beside(path), self.model, *read, stop)

    def recall(self, path, stop: StopFlag):
        """Read the cache of the conversation that was saved at `path`, if there is one; a generator, which yields
        Copying, and Notice if it cannot be used: the conversation is then read again."""
        if not kept.there(path):
            return
        try:
            read = yield from kept.read(kept.beside(path), self.model, stop)
            self._context.reads = [read] if read[0] else []
        except kept.Unfit as why:
            yield Notice(f"The conversation will be read again; its cache is not used: {why}.")

    def _show(self, steps, line):
        with ProgressLine(self.model.name, line=line) as progress:
            begun = time.monotonic()
            for event in steps:
                if isinstance(event, Notice):
                    print(f"nbllm: {event.text}", file=sys.stderr)
                elif time.monotonic() - begun > PATIENCE:
                    progress(event.done, event.total)

    def _forget(self):
        self.last = None
        self.sent = []
        self._context.reads = []

    def __call__(self, message: str, **sampling) -> Reply:
        """Send a message and wait for the reply; arguments and errors are those of `stream`."""
        for _ in self.stream(message, **sampling):
            pass
        return self.last

    def stream(
        self,
        message: str,
        stop_flag: StopFlag | None = None,
        constraint=None,
        alternatives: int = 0,
        schema=None,
        json: bool = False,
        **sampling,
    ) -> Iterator:
        """Send a message and follow the reply.

        The message and the reply join the conversation, even if the reply was broken off: by the flag, by an error, or
        by closing this iterator. Only a turn that brought no text at all leaves the conversation as it was.

        Parameters
        ----------
        message : str
        stop_flag : StopFlag, optional
            Set it from another thread to stop.
        constraint : optional
            What may be written, as in `runtime.generation.Generation`.
        alternatives : int
            With how many of the likeliest others each token of the reply is told, and all their probabilities.
        schema : optional
            What the reply is: a JSON schema, a class, a list of one; all that `chat.schema.Schema` takes. Whatever is
            not cut then fits it, and `reply.value` is what it says; the message tells the model of it.
            `repeat_penalty`, which would make JSON's own signs less likely, is 1 unless it is given.
        json : bool
            Whether the reply is JSON of any kind, an object or a list.
        **sampling
            Fields of `Sampling` that differ in this turn.

        Yields
        ------
        Notice, Prefill, Thought, Text, Done
            What the user should know, reading, what the model thinks and answers as it comes, and the end.

        Raises
        ------
        OptionError
            An option is unknown or out of range, the schema cannot be used, or the template refuses the conversation.
        ContextFullError
            The message alone does not fit in the context.
        """
        need(isinstance(message, str), "message", message, "text")
        schema = grammar.wanted(schema, json)
        if schema and constraint is not None:
            raise OptionError("constraint and schema are both given; a schema is a constraint already")
        options = self.sampling.updated(**({"repeat_penalty": 1.0} if schema else {}) | sampling)
        if options.seed is None:
            options = options.updated(seed=secrets.randbits(32))
        if schema:
            message = schema.ask(message)
        return self._turn(message, options, stop_flag, constraint, alternatives, schema)

    def stream_again(self, stop_flag: StopFlag | None = None, **options) -> Iterator:
        """As `stream`, with the last question: the reply takes the place of the last one, as soon as it has any text.

        Raises
        ------
        OptionError
            Nothing was asked yet; and all that `stream` raises.
        """
        question, before = self.transcript.question(), self.messages
        self.messages = without = self.transcript.without().messages
        try:
            yield from self.stream(question, stop_flag, **options)
        finally:
            if self.messages is without:
                self.messages = before

    def _turn(self, message, options, stop_flag, constraint, alternatives, schema):
        if self.overflow not in list(OVERFLOW):  # a list, for what has no hash
            raise OptionError(f"overflow={quoted(self.overflow)} is unknown; there are {', '.join(OVERFLOW)}")
        yield from self._notices()
        before, flag = self._asking(message), stop_flag or StopFlag()
        try:
            messages, text, ids = self._context.fitting(self.system, before, options, self.overflow, flag.look)
        except Stopped:
            coming = ReplyStream("", self.model.tokenizer.space_prefix, options.seed, schema)
            yield from coming.push(STOPPED_FIRST)
            self.last = coming.reply()
            return
        if dropped := (len(before) - len(messages)) // 2:
            yield Notice(f"The context of {self.model.context:,} tokens is full: the oldest {dropped} "
                         f"{'exchange was' if dropped == 1 else 'exchanges were'} dropped.")
        self.sent = ids
        if schema:
            constraint = grammar.constraint(schema, self.model.tokenizer, text)
        coming = ReplyStream(text, self.model.tokenizer.space_prefix, options.seed, schema)
        if not schema:  # which ends the reply itself, and may have such a string in what it says
            options = options.updated(stop=options.stop + self._prompts.stop)
        try:
            for event in self.model.generate(ids, flag, constraint, alternatives, **asdict(options)):
                yield from coming.push(event)
        finally:
            self.last = reply = coming.reply()
            self._context.keep(text, ids, coming.written, [token.id for token in coming.tokens])
            if reply.text or reply.think:
                answer = Answer(role="assistant", content=reply.text)
                answer.stats = reply.stats
                if reply.think:
                    answer["reasoning_content"] = reply.think
                self.messages = [*messages, answer]

    def _notices(self):
        """What the user should know of the template, each once."""
        lost = "The chat template has no place for a system message; it stands before the first question."
        for text in (self._prompts.notice, lost if self.system and not self._prompts.takes_system else None):
            if text and text not in self._told:
                self._told.add(text)
                yield Notice(text)

    def prompt(self, message: str, look=unwatched) -> tuple[str, list[int], tuple[str, ...]]:
        """What the model would be given with this message next: the text, fenced, and its ids; and the template's own
        stop strings. `look` as of `Model.tokenize`."""
        return *self._context.prompt(self.system, self._asking(message), look), self._prompts.stop

    def _asking(self, message):
        """The messages, with this one as the next."""
        return [*self.messages, {"role": "user", "content": message}]
