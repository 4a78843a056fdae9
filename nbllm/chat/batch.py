"""Many messages, each asked as the next one of the same conversation, and answered together.

Each gets the reply that it would get alone. Knows nothing of tables, threads or how replies are shown.
"""

from nbllm.chat import grammar
from nbllm.chat.reply import ReplyStream
from nbllm.chat.schema import Schema
from nbllm.errors import NbLLMError, Stopped
from nbllm.runtime.events import Done, StopFlag
from nbllm.runtime.options import SEED_MAX, Sampling
from nbllm.text import TextStream

AHEAD = 64  # messages that are made ready before there is room for them


class ChatBatch:
    """
    Parameters
    ----------
    chat : Chat
        Whose model, conversation and template are used; it stays as it is.
    options : Sampling
        With a seed: message number n is answered with the seed + n.
    schema : Schema, optional
        Which each reply fits.
    """

    def __init__(self, chat, options: Sampling, schema: Schema | None = None):
        self._chat, self._options, self._schema = chat, options, schema
        self._batch = chat.model.batch()
        self._streams = {}  # number -> (TextStream, ReplyStream)

    def replies(self, messages, stop: StopFlag):
        """Answer messages; yields (number, Reply or NbLLMError) as they come to their end.

        messages : iterable of (int, str or NbLLMError)
            An error comes back as it is. Taken as there is room, so it may be long. When the flag is set, it ends.
        """
        messages = iter(messages)
        more = True
        while True:
            while more and len(self._batch) < AHEAD:
                number, message = next(messages, (None, None))
                more = number is not None
                if isinstance(message, NbLLMError):
                    yield number, message
                elif more:
                    try:
                        error = self._add(number, message, stop.look)
                    except Stopped:
                        return
                    if error:
                        yield number, error
            if not len(self._batch):
                return
            events = self._batch.step(stop)
            if events is None or stop.is_set():
                return
            for number, event in events:
                reply = self._take(number, event)
                if reply is not None:
                    yield number, reply

    def close(self):
        self._batch.close()

    def _add(self, number, message, look):
        _ = self._chat.model.engine  # a model that was closed is no error of this message's
        options = self._options.updated(seed=(self._options.seed + number) % (SEED_MAX + 1))
        tokenizer, schema = self._chat.model.tokenizer, self._schema
        try:
            text, ids, stops = self._chat.prompt(schema.ask(message) if schema else message, look)
            constraint = grammar.constraint(schema, tokenizer, text) if schema else None
            self._batch.add(number, ids, options, tokenizer.end_ids, constraint)
        except NbLLMError as error:
            return error
        self._streams[number] = (
            TextStream(tokenizer, options.stop + (() if schema else stops)),
            ReplyStream(text, tokenizer.space_prefix, options.seed, schema),
        )

    def _take(self, number, event):
        """The reply or the error, if this event ends it."""
        if number not in self._streams:
            return None
        if isinstance(event, NbLLMError):
            del self._streams[number]
            return event
        text, coming = self._streams[number]
        _push(text, coming, event)
        if text.found and not isinstance(event, Done):
            event = self._batch.end(number, "stop")
            _push(text, coming, event)
        if not isinstance(event, Done):
            return None
        del self._streams[number]
        return coming.reply()


def _push(text, coming, event):
    for each in text.push(event):
        for _ in coming.push(each):
            pass
