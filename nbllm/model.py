"""A model that is ready to use: its file, tokenizer and engine as one object that takes and gives text.

Knows nothing of conversations, threads or where text is shown.
"""

import operator
import os
import sys
from contextlib import closing
from numbers import Integral

from nbllm.catalogue import DEFAULT, find, known, pull
from nbllm.catalogue.progress import ProgressLine
from nbllm.errors import (
    ContextFullError, ModelFileError, ModelNotFoundError, NbLLMError, NotCopied, OptionError, Stopped, need, quoted,
)  # fmt: skip
from nbllm.formats.open import open_model
from nbllm.runtime.batch import Batch
from nbllm.runtime.cache import checked_bits
from nbllm.runtime.crew import limits, startable
from nbllm.runtime.engine import MAX_OUTPUTS, Engine, thread_count
from nbllm.runtime.estimate import fit, shape
from nbllm.runtime.events import STOPPED_FIRST, Done, StopFlag, finish
from nbllm.runtime.memory import memory
from nbllm.runtime.options import Sampling
from nbllm.runtime.weights import packing
from nbllm.text import TextStream
from nbllm.tokenizers import load_tokenizer, unwatched

# The process whose compute threads may be running. A fork has none of them, and OpenMP would wait for them for ever.
_computing = None
BATCH_ROOM = 1 << 16  # most positions in the cache of a batch


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
    mapped at later loads, or read where the system does not say who changes a file (network file systems, macOS).

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
        Called with (bytes done, bytes in all) while the weights are laid out or read; by default it is shown on
        standard error.
        An exception from it ends the loading.
    stop_flag : StopFlag, optional
        Set it from another thread to stop that.
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
    need(isinstance(path_or_name, str | os.PathLike | None), "path_or_name", path_or_name, "a path, or a model's name")
    path = _default_model() if path_or_name is None else find(path_or_name)
    with ProgressLine(path.stem, line="getting the weights of {name} ready, {total}") as line:
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
    """As `load`, but as a generator, for a worker's job: yields Packing or Reading, returns the model. Shows and
    fetches nothing.

    replaces : a model to close in time for this one to have its memory, but not before all that can go wrong has gone
    well; Stopped says so if the flag is set by then.
    """
    checked_bits(cache_bits)
    stop = stop_flag or StopFlag()
    path = find(path_or_name)
    name = known(path.name).name if known(path.name) else path.stem
    with open_model(path) as gguf:
        tokenizer = load_tokenizer(gguf.metadata)
        free = memory().free + (replaces.held if replaces else 0)
        size = sum(tensor.nbytes for tensor in gguf.tensors.values())
        context, notice = fit(name, gguf.metadata, size, free, context, cache_bits)
        weights = yield from packing(gguf, stop)
        if weights.model.vocab != tokenizer.vocab_size:
            raise ModelFileError(
                f"the tokenizer of {path.name} has {tokenizer.vocab_size:,} tokens and the network has "
                f"{weights.model.vocab:,}; use another model file"
            )
        threads, alone = _threads(threads)
        notice = " ".join(filter(None, (notice, alone))) or None
        if replaces is not None:
            stop.look(f"Stopped; the model is still {replaces.name}.")
            replaces.close()
        engine = Engine(gguf, context, threads, weights, cache_bits)
    return Model(name, path, gguf.metadata, tokenizer, engine, notice)


def _threads(threads):
    """How many threads to load a model with, and one line for the user if they are fewer than wanted."""
    global _computing
    _computing = _computing or os.getpid()
    count = thread_count(threads)
    if _computing == os.getpid():
        can = startable(count)
        why = limits()
        otherwise = "end other programs of yours"
    else:
        can, why = 1, "this process is a fork of one that had a model loaded"
        otherwise = "start it by multiprocessing's 'spawn'"
    if can == count:
        return count, None
    if threads is not None:
        raise OptionError(f"threads={threads} cannot be, for {why}: give {can}, or {otherwise}.")
    return can, f"{can} of {count} threads compute, for {why}; for more, {otherwise}."


def _default_model():
    try:
        return find()
    except ModelNotFoundError:
        with ProgressLine(DEFAULT.name) as progress:
            return pull(progress=progress)


class Model(NotCopied):
    """A loaded model; `nbllm.load` makes one. Usable as a context manager. One thread at a time may use it;
    another gets an NbLLMError.

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

    instead = "load the model in each process, by nbllm.load"

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

    def intact(self) -> bool:
        """Whether it can be used: not once another program changes its packed weights; then load it again."""
        return not self.closed and self._engine.weights.intact()

    @property
    def held(self) -> int:
        """Bytes that closing it would give back, at least: memory that was never written to was never taken."""
        if self.closed:
            return 0
        engine, sizes = self._engine, self._engine.memory
        weights = sizes["weights"] if engine.weights.path is None else 0  # else mapped: others may use them, too
        return weights + sizes["cache"] * len(engine.tokens) // engine.context

    def tokenize(self, text: str, special: bool = True, look=unwatched) -> list[int]:
        """Token ids of a text.

        special : whether special tokens written out in it are parsed, or stay plain text. The token for the beginning
        of a sequence comes first if the model file says so, once.
        look : a callable that is called now and then, and may raise to end it.
        """
        need(isinstance(text, str), "text", text, "text")
        ids, bos = self.tokenizer.encode(text, special, look=look), self.tokenizer.bos_id
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
        ModelFileError
            The model computed a value that is not a number.
        """
        return self.engine.logits(self._known(ids, least=1))

    def generate(self, prompt, stop_flag: StopFlag | None = None, constraint=None, alternatives=0, **sampling):
        """Continue a prompt; yields events while it runs.

        Parameters
        ----------
        prompt : str or sequence of int
            Text, which is tokenized as `tokenize` does, or token ids.
        stop_flag : StopFlag, optional
            Set it from another thread to stop; what was generated until then is kept.
        constraint, alternatives
            What may be written, and how many likely tokens are told with each, as in `runtime.generation.Generation`.
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
        need(isinstance(stop_flag, StopFlag | None), "stop_flag", stop_flag, "a StopFlag")
        asks = ("allowed", "likely", "push")
        need(constraint is None or all(hasattr(constraint, name) for name in asks), "constraint", constraint,
             "an object with allowed, likely and push")  # fmt: skip
        need(isinstance(alternatives, Integral) and alternatives >= 0, "alternatives", alternatives,
             "a whole number of 0 or more")  # fmt: skip
        flag = stop_flag or StopFlag()
        if isinstance(prompt, str):
            self.check_length(prompt)
            try:
                prompt = self.tokenize(prompt, look=flag.look)
            except Stopped:
                return (event for event in [STOPPED_FIRST])  # a generator, as ever: it can be closed
        ids = self._known(prompt, least=1)
        events = self.engine.generate(ids, options, self.tokenizer.end_ids, flag, constraint, alternatives)
        return self._as_text(events, options.stop, flag)

    def check_length(self, prompt: str):
        """ContextFullError for a prompt whose length alone says that it does not fit, before time is spent on it."""
        if not self.tokenizer.holds(prompt, self.context):
            raise ContextFullError(
                f"the prompt of {len(prompt):,} characters makes more tokens than the {self.context:,} that the "
                "context holds; shorten the message, or load the model with a larger context"
            )

    def batch(self) -> Batch:
        """Replies that are written together, with a cache of their own: as large as they can use, in half of the memory
        that is free; at least the context of one."""
        engine, model = self.engine, shape(self.metadata)
        most = min(BATCH_ROOM, MAX_OUTPUTS * engine.context)
        fits = model.context(0, memory().free // 2, most, engine.cache.bits) if model else 0
        return Batch(engine.twin(max(fits, engine.context)))

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
        stream = TextStream(self.tokenizer, stop_strings)
        with closing(events):
            for event in events:
                for each in stream.push(event):
                    if stream.found and isinstance(each, Done):
                        flag.clear()
                    yield each
                if stream.found and not isinstance(event, Done):
                    flag.set()  # the engine ends, and counts what it did

    def _known(self, ids, least=0) -> list[int]:
        try:
            ids = [operator.index(id) for id in ids]
        except TypeError as error:
            raise OptionError(f"token ids={quoted(ids)} cannot be used: give whole numbers") from error
        for id in ids:
            if not 0 <= id < self.tokenizer.vocab_size:
                raise OptionError(f"token id {id} is not in the vocabulary; ids go to {self.tokenizer.vocab_size - 1}")
        if len(ids) < least:
            raise OptionError("the prompt is empty; give at least one token")
        return ids
