"""A model that is ready to use: its file, tokenizer and engine as one object that takes and gives text.

Knows nothing of conversations, threads or where text is shown.
"""

import operator
import sys
from contextlib import closing
from dataclasses import dataclass

from nbllm.catalogue import DEFAULT, find, known, pull
from nbllm.catalogue.progress import ProgressLine
from nbllm.errors import ModelFileError, ModelNotFoundError, NbLLMError, OptionError, Stopped
from nbllm.formats.open import open_model
from nbllm.runtime.engine import Engine
from nbllm.runtime.estimate import fit
from nbllm.runtime.events import Done, StopFlag, Token, finish
from nbllm.runtime.memory import memory
from nbllm.runtime.options import Sampling
from nbllm.runtime.weights import packing
from nbllm.tokenizers import load_tokenizer


def load(
    path_or_name=None,
    context: int | None = None,
    threads: int | None = None,
    progress=None,
    stop_flag: StopFlag | None = None,
    cache_bits: int = 16,
) -> "Model":
    """Load a model.

    The first time, its weights are laid out for the kernels and kept in a cache (`nbllm cache`), from which they are
    mapped at later loads.

    Parameters
    ----------
    path_or_name : str or path, optional
        A model file, the name of one in the models folder, or a known model's name. None is the default model, which is
        fetched on first use, with its progress on standard error; nothing else ever is without being asked for.
    context : int, optional
        Tokens that fit, prompt and reply together; by default what the model was made for, or as many as memory allows.
    threads : int, optional
        By default one for each physical core that this process may use.
    progress : callable, optional
        Called with (bytes done, bytes in all) while the weights are laid out; by default it is shown on standard error.
        An exception from it ends the loading.
    stop_flag : StopFlag, optional
        Set it from another thread to stop laying them out.
    cache_bits : int
        Of the numbers in the key/value cache: 16; 8 for about half its memory and a little less precision; or 32.

    Raises
    ------
    ModelNotFoundError
        There is no such model on this machine.
    ModelFileError
        The file is damaged, or of a kind that nbllm cannot run.
    TooLargeError
        The model, or this context, does not fit in memory.
    OptionError
        `context`, `threads` or `cache_bits` is out of range.
    DownloadError
        The default model could not be fetched.
    """
    path = _default_model() if path_or_name is None else find(path_or_name)
    with ProgressLine(path.stem, line="laying out the weights of {name}, {total}") as line:
        show = progress or line
        steps = loading(path, context, threads, stop_flag, cache_bits=cache_bits)
        model = finish(steps, lambda event: show(event.done, event.total))
    if model.notice:
        print(f"nbllm: {model.notice}", file=sys.stderr)
    return model


def loading(
    path_or_name,
    context: int | None = None,
    threads: int | None = None,
    stop_flag: StopFlag | None = None,
    replaces: "Model | None" = None,
    cache_bits: int = 16,
):
    """As `load`, but as a generator, for a worker's job: yields Packing, returns the model. Shows and fetches nothing.

    replaces : a model to close in time for this one to have its memory, but not before all that can go wrong has gone
    well; Stopped says so if the flag is set by then.
    """
    path = find(path_or_name)
    name = known(path.name).name if known(path.name) else path.stem
    with open_model(path) as gguf:
        tokenizer = load_tokenizer(gguf.metadata)
        free = memory().free + (replaces.held if replaces else 0)
        size = sum(tensor.nbytes for tensor in gguf.tensors.values())
        context, notice = fit(name, gguf.metadata, size, free, context, cache_bits)
        weights = yield from packing(gguf, stop_flag)
        if weights.model.vocab != tokenizer.vocab_size:
            raise ModelFileError(
                f"the tokenizer of {path.name} has {tokenizer.vocab_size:,} tokens and the network has "
                f"{weights.model.vocab:,}; use another model file"
            )
        if replaces is not None:
            if stop_flag is not None and stop_flag.is_set():
                raise Stopped(f"Stopped; the model is still {replaces.name}.")
            replaces.close()
        engine = Engine(gguf, context, threads, weights, cache_bits)
    return Model(name, path, gguf.metadata, tokenizer, engine, notice)


def _default_model():
    try:
        return find()
    except ModelNotFoundError:
        with ProgressLine(DEFAULT.name) as progress:
            return pull(progress=progress)


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
        Of the model file, which is not open any more.
    tokenizer : Tokenizer
    engine : Engine
    context : int
        How many tokens fit, prompt and reply together.
    """

    def __init__(self, name, path, metadata, tokenizer, engine, notice=None):
        self._notice = notice
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

    @property
    def notice(self) -> str | None:
        """One line that the user should see, if there is something to tell of the loading."""
        return " ".join(filter(None, (self.engine.weights.notice, self._notice))) or None

    @property
    def closed(self) -> bool:
        return self._engine is None

    @property
    def held(self) -> int:
        """Bytes that closing it would give back, at least: memory that was never written to was never taken."""
        if self.closed:
            return 0
        engine, sizes = self._engine, self._engine.memory
        weights = sizes["weights"] if engine.weights.path is None else 0  # else mapped: others may use them, too
        return weights + sizes["cache"] * len(engine.tokens) // engine.context

    def tokenize(self, text: str, special: bool = True) -> list[int]:
        """Token ids of a text.

        special : whether special tokens written out in it are parsed, or stay plain text. The token for the beginning
        of a sequence comes first if the model file says so, once.
        """
        ids, bos = self.tokenizer.encode(text, special), self.tokenizer.bos_id
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
        flag = stop_flag or StopFlag()
        return self._as_text(self.engine.generate(ids, options, self.tokenizer.end_ids, flag), options.stop, flag)

    def close(self):
        """Give back the memory. A closed model cannot be used again."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def _as_text(self, events, stop_strings, flag):
        """The engine's events, with text in place of tokens."""
        decoder, stops = self.tokenizer.stream(), StopStrings(stop_strings)
        pending, found = [], False
        with closing(events):
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
