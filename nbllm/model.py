"""A model that is ready to use: the file, its tokenizer and its engine as one object that takes and gives text.

Knows nothing of conversations, threads or where text is shown.
"""

import operator
from contextlib import closing
from dataclasses import dataclass

from nbllm.errors import NbLLMError, OptionError
from nbllm.runtime.events import Done, StopFlag, Token
from nbllm.runtime.options import Sampling


@dataclass(frozen=True)
class Text:
    """Generated text as it comes, and the tokens that were generated since the last one.

    A character, or what may be the beginning of a stop string, can take several tokens.
    """

    text: str
    ids: tuple[int, ...]


class Model:
    """A loaded model; `nbllm.load` makes one. Usable as a context manager. One thread at a time may use it.

    Attributes
    ----------
    name : str
    path : Path
    metadata : dict
        Of the model file.
    tokenizer : Tokenizer
    engine : Engine
    context : int
        How many tokens fit, prompt and reply together.
    """

    def __init__(self, name, path, metadata, tokenizer, engine):
        self.name = name
        self.path = path
        self.metadata = metadata
        self.tokenizer = tokenizer
        self._engine = engine

    def __repr__(self):
        return f"<Model {self.name}>"

    @property
    def engine(self):
        if self._engine is None:
            raise NbLLMError(f"the model {self.name} was closed; load it again with nbllm.load")
        return self._engine

    @property
    def context(self) -> int:
        return self.engine.context

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text. Special tokens written out in it are parsed, and it begins with the token for the
        beginning of a sequence if the model file says so."""
        ids, bos = self.tokenizer.encode(text), self.tokenizer.bos_id
        return [bos, *ids] if self.tokenizer.add_bos and ids[:1] != [bos] else ids

    def detokenize(self, ids) -> str:
        """The text of token ids; special tokens come as they are written."""
        return self.tokenizer.decode(self._known(ids))

    def logits(self, ids):
        """The model's output after each token: float32 (len(ids), vocabulary).

        Raises
        ------
        OptionError
            An id is not in the vocabulary, or there is none.
        ContextFullError
            There are more ids than the context holds.
        """
        return self.engine.logits(self._known(ids, least=1))

    def generate(self, prompt, stop_flag: StopFlag | None = None, **sampling):
        """Continue a prompt; yields events while it runs.

        Parameters
        ----------
        prompt : str or sequence of int
            Text, which is tokenized as `tokenize` does, or token ids.
        stop_flag : StopFlag, optional
            Set it from another thread to stop; what was generated until then is kept.
        **sampling
            Fields of `Sampling`: temperature, top_k, top_p, min_p, repeat_penalty, repeat_window, seed, max_tokens,
            stop.

        Yields
        ------
        Prefill, Text, Done
            Reading the prompt, text as it comes, and at last the statistics and the reason to end. The texts together
            hold nothing of a stop string.

        Raises
        ------
        OptionError
            An option is unknown or out of range, an id is not in the vocabulary, or the prompt is empty.
        ContextFullError
            The prompt does not fit in the context.
        """
        options = Sampling().updated(**sampling)
        ids = self._known(self.tokenize(prompt) if isinstance(prompt, str) else prompt, least=1)
        return self._generate(ids, options, stop_flag or StopFlag())

    def close(self):
        """Give back the memory. A closed model cannot be used again."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def _generate(self, ids, options, flag):
        decoder, stops = self.tokenizer.stream(), StopStrings(options.stop)
        pending, found = [], False
        with closing(self.engine.generate(ids, options, self.tokenizer.end_ids, flag)) as events:
            for event in events:
                text = ""
                if isinstance(event, Token) and not found:
                    pending.append(event.id)
                    text, found = stops.push(decoder.push(event.id))
                    if found:
                        flag.set()  # the engine ends, and counts what it did
                elif isinstance(event, Done) and not found:
                    text, found = stops.finish(decoder.finish())
                if text:
                    yield Text(text, tuple(pending))
                    pending.clear()
                if isinstance(event, Done):
                    if found:
                        flag.clear()
                        event = Done(event.stats, "stop")
                    yield event
                elif not isinstance(event, Token):
                    yield event

    def _known(self, ids, least=0) -> list[int]:
        ids = [operator.index(id) for id in ids]
        for id in ids:
            if not 0 <= id < self.tokenizer.vocab_size:
                raise OptionError(f"token id {id} is not in the vocabulary; ids go to {self.tokenizer.vocab_size - 1}")
        if len(ids) < least:
            raise OptionError("the prompt is empty; give at least one token")
        return ids


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
