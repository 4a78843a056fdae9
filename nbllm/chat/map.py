"""Many prompts, an answer for each: a column in, a column out.

`map` asks in this process; rows share each pass over the weights, and what their prompts have in common is read once.
What was done before an interrupt is kept, and the same call goes on from there. Knows nothing of cells.
"""

import hashlib
import json
import os
import secrets
import sys
from contextlib import closing
from dataclasses import asdict, dataclass, replace

from nbllm import __version__
from nbllm.catalogue import find, known
from nbllm.catalogue.places import fingerprint
from nbllm.chat.batch import ChatBatch
from nbllm.chat.columns import Rows
from nbllm.chat.conversation import Chat
from nbllm.chat.grammar import wanted
from nbllm.chat.reply import Reply
from nbllm.errors import NbLLMError, NotCopied, OptionError, Stopped, brief
from nbllm.model import Model, load
from nbllm.runtime.events import StopFlag
from nbllm.runtime.options import Sampling

# What was asked, as a hash -> its replies and seed, and whose they are; of the last call, until all its answers were
# handed out.
_unfinished = {}


@dataclass(frozen=True)
class Mapped:
    """How far it has come, in rows."""

    done: int
    failed: int
    total: int


class Map(NotCopied):
    """Prompts, and the answers that are there.

    Parameters
    ----------
    prompts : iterable, or a column or table of pandas or Polars
    model : Model or str or path, optional
        As `nbllm.load` takes it; one that is not loaded yet is, and is closed at the end.
    template : str, optional
        The prompt, in which `{name}` stands for what a row has in that column, and `{}` for the row itself.
    system : str, optional
        System prompt.
    chat : Chat, optional
        A conversation of which each prompt is the next message, in place of `model` and `system`.
    schema : optional
        What each answer is: a JSON schema, a class, a list of one; all that `chat.schema.Schema` takes. Then the
        answers are objects of Python's, and of a table or a column objects with fields become a table.
    **sampling
        Fields of `Sampling`. Row n is answered with the seed + n.

    Attributes
    ----------
    replies : list of Reply or NbLLMError or None
        One a row: None where there is none yet, an error where a row failed.

    Raises
    ------
    OptionError
        The prompts, the template or an option cannot be used.
    """

    instead = "make one in each process; its replies and results can be copied"

    def __init__(self, prompts, model=None, template=None, system=None, chat=None, schema=None, **sampling):
        if not isinstance(model, Model | str | os.PathLike | None):
            raise OptionError(f"the model is of type {type(model).__name__}: give a name, a path, or what load returns")
        if not isinstance(system, str | None):
            raise OptionError(f"the system prompt is of type {type(system).__name__}, not text")
        self._rows = Rows(prompts, template)
        self._model, self.system, self._chat = model, system, chat
        self._schema = wanted(schema)
        usual = {"repeat_penalty": 1.0} if schema is not None else {}
        self._options = (chat.sampling if chat else Sampling()).updated(**usual | sampling)
        self._key = self._asked()
        seed = self._options.seed if self._options.seed is not None else secrets.randbits(32)
        replies, seed, self._whose = _unfinished.get(self._key, ([None] * len(self._rows.prompts), seed, None))
        self.replies = [self._fitting(reply) for reply in replies]
        self._options = self._options.updated(seed=seed)

    def __len__(self):
        return len(self.replies)

    def __repr__(self):
        return f"<Map: {self.progress.done} of {len(self)} rows answered>"

    @property
    def progress(self) -> Mapped:
        failed = sum(isinstance(reply, NbLLMError) for reply in self.replies)
        return Mapped(sum(reply is not None for reply in self.replies), failed, len(self))

    @property
    def results(self):
        """The answers as the prompts were, as a column, an array or a list: text, or the error,
        or None if there is none yet.

        Objects that a schema gives fields become a table where the prompts were a table or a column of one; a column
        `error` (`error_` if the objects have a field of that name) tells of rows that failed, if any did.

        What the class that was asked for refuses is not lost: its text is in `replies`, and the same call, with the
        class mended, has these answers again and asks nothing.
        """
        values = [_value(reply) for reply in self.replies]
        try:
            made = self._made(values)
        except Exception as error:  # a library's own: no reason to lose the answers
            print(f"nbllm: the answers are a list, for there can be no column of them: {brief(error)}", file=sys.stderr)
            return values
        if all(_settled(reply, value) for reply, value in zip(self.replies, values)):
            _unfinished.pop(self._key, None)
        return made

    def _made(self, values):
        """Values, one a row, as the prompts were."""
        if self._schema is None or self._schema.json.get("type") != "object" or not self._rows.tabular:
            return self._rows.column(values)
        records = [_record(reply, value) for reply, value in zip(self.replies, values)]
        errors = [str(value) if isinstance(value, NbLLMError) else None for value in values]
        if any(errors):
            taken = {*self._schema.json.get("properties", ()), *(name for record in records for name in record)}
            column = "error"
            while column in taken:
                column += "_"
            records = [record | {column: error} for record, error in zip(records, errors)]
        return self._rows.table(records)

    def run(self, progress=True, engine=None):
        """Answer the rows that are not answered yet, and return `results`.

        Parameters
        ----------
        progress : bool
            Whether a progress bar is shown.
        engine : dask.distributed.Client, optional
            The cluster whose workers answer; otherwise this process does.

        Raises
        ------
        Stopped
            An interrupt. What was answered is kept: here, and for the same call again.
        NbLLMError
            A worker of the cluster cannot answer as the others do.
        """
        from tqdm.auto import tqdm  # takes a while, and needs to know where it is shown

        with tqdm(total=len(self), unit="row", disable=not progress) as bar:
            bar.update(self.progress.done)
            try:
                for mapped in self._here() if engine is None else self._keep(self._there(engine)):
                    bar.update(mapped.done - bar.n)
            except KeyboardInterrupt as error:
                done = self.progress.done
                raise Stopped(f"Stopped after {done} of {len(self)} rows; the same call goes on from there.") from error
        return self.results

    def steps(self, chat: Chat, stop: StopFlag):
        """Answer the rows that are not answered yet, with the model of this conversation; yields Mapped now and then.

        Ends when the flag is set, with what is there.
        """
        model = chat.model
        self._forget_others((_file(model.path), model.context, model.engine.cache.bits))
        with closing(ChatBatch(chat, self._options, self._schema)) as batch:
            yield from self._keep(batch.replies(self._waiting(), stop))

    def _here(self):
        """`steps` with the conversation or the model that was given, or one that is loaded for it."""
        if self._chat is not None:
            yield from self.steps(self._chat, StopFlag())
        elif isinstance(self._model, Model):
            yield from self.steps(Chat(self._model, self.system), StopFlag())
        else:
            with load(self._model) as model:
                yield from self.steps(Chat(model, self.system), StopFlag())

    def _there(self, client):
        """Answers of a cluster's workers."""
        from nbllm.chat.cluster import Work, answers  # needs dask

        model = self._chat.model if self._chat else self._model
        path = (model.path if isinstance(model, Model) else find(model)).absolute()
        name = known(path.name).name if known(path.name) else str(path)
        messages = tuple(self._chat.messages) if self._chat else ()
        system = self._chat.system if self._chat else self.system
        fits = self._schema and self._schema.json  # a class of the user's need not be known there
        work = Work(__version__, name, fingerprint(path), system, messages, self._options, fits)
        self._forget_others((work.fingerprint, None, None))
        for number, reply in answers(client, work, list(self._waiting())):
            yield number, self._fitting(reply)

    def _waiting(self):
        return ((n, prompt) for n, prompt in enumerate(self._rows.prompts) if self.replies[n] is None)

    def _keep(self, replies):
        """Keep replies as they come; yields how far it has come."""
        _unfinished.clear()
        _unfinished[self._key] = self.replies, self._options.seed, self._whose
        done, failed = self.progress.done, self.progress.failed  # and counted from here: to look at all takes a while
        for number, reply in replies:
            done += self.replies[number] is None
            failed += isinstance(reply, NbLLMError) - isinstance(self.replies[number], NbLLMError)
            self.replies[number] = reply
            yield Mapped(done, failed, len(self))

    def _fitting(self, reply):
        """The reply as one to this call's schema: the class may have been defined again, or be unknown to a worker."""
        return replace(reply, schema=self._schema) if isinstance(reply, Reply) else reply

    def _forget_others(self, whose):
        """Forget what another model has answered, or the same one with another context.

        whose : (fingerprint, context, bits of the cache), each None where it is not known
        """
        pairs = zip(self._whose or whose, whose)
        if any(None not in pair and pair[0] != pair[1] for pair in pairs):
            self.replies = [None] * len(self)
        self._whose = whose

    def _asked(self):
        """What tells whether the same was asked before: a hash of all that makes the answers."""
        chat, model = self._chat, self._chat.model if self._chat else self._model
        said = (chat.system, chat.messages) if chat else (self.system, [])
        name = model.path if isinstance(model, Model) else model
        fits = self._schema and self._schema.text
        asked = repr((str(name), said, asdict(self._options), fits, [str(prompt) for prompt in self._rows.prompts]))
        return hashlib.sha256(asked.encode(errors="surrogatepass")).hexdigest()


def _file(path):
    """The fingerprint of a model's file, None if it is not there any more."""
    try:
        return fingerprint(path)
    except OSError:  # the model is in memory
        return None


def _value(reply):
    """What a row's reply comes to: its text, or the object that it is; an error as it is."""
    try:
        return reply if not isinstance(reply, Reply) else reply.value if reply.schema else reply.text
    except NbLLMError as error:  # it was cut, and so is no whole object
        return error


def _settled(reply, value):
    """Whether a row has come to its end: answered, and its whole answer was taken by what it was to become."""
    refused = isinstance(value, NbLLMError) and isinstance(reply, Reply) and reply.finish_reason == "end"
    return reply is not None and not refused


def _record(reply, value):
    """The row of a table."""
    return json.loads(reply.text) if isinstance(reply, Reply) and not isinstance(value, NbLLMError) else {}


def map(prompts, model=None, template=None, system=None, schema=None, progress=True, engine=None, **sampling):
    """An answer for each prompt, as the prompts are: a column of pandas or Polars, an array of NumPy, or a list.

        df["label"] = nbllm.map(df, template="Is this praise or complaint? {text}", max_tokens=5)

    Takes what `Map` and `Map.run` take, and shows a progress bar. A row that fails has its error in its place. After an
    interrupt the same call goes on where it was; a `Map` has the answers at hand at any moment.
    """
    return Map(prompts, model, template, system, schema=schema, **sampling).run(progress, engine)
