"""The one session of a Jupyter kernel: its worker, its model, loaded on first use, and its conversation.

Cells, panel and the Local LLM kernel ask through it and get the same events. Knows nothing of outputs.
"""

import atexit
import secrets
import threading
import time
from contextvars import copy_context
from dataclasses import asdict, dataclass

from nbllm.catalogue import find, known, pullable, pulling
from nbllm.catalogue.places import fingerprint
from nbllm.chat.conversation import Chat, Notice
from nbllm.chat.kept import there
from nbllm.chat.map import Map
from nbllm.chat.schema import Schema
from nbllm.chat.shelf import Shelf
from nbllm.chat.worker import Worker
from nbllm.errors import ConversationFileError, ModelNotFoundError, NotCopied
from nbllm.jupyter.config import NbLLM
from nbllm.model import loading
from nbllm.runtime.options import Sampling


@dataclass(frozen=True)
class Loading:
    """The model is being loaded."""

    name: str


@dataclass(frozen=True)
class Answering:
    """The model is ready and starts on this question, with these options; the seed in them is the one in use."""

    model: str
    fingerprint: str
    context: int
    sampling: Sampling
    schema: Schema | None = None  # that the reply fits


class Session(NotCopied):
    """One model and a shelf of conversations, of which `chat` goes on with one.

    Threads: `model`, `chat` and `shelf` are written by jobs on the worker's thread only. Other threads submit jobs,
    set stop flags and read.
    """

    instead = "it belongs to this Jupyter kernel"

    def __init__(self, config: NbLLM):
        self.config = config
        self.model = None
        self.chat = None
        self.shelf = Shelf()
        self._loaded = None  # (model, context, threads, cache_bits) as the settings were when the model was loaded
        self._fingerprint = None
        self.awaited = None  # the handle that the running cell waits for
        self._running = []  # handles that had not ended when the newest of them was submitted
        self.listeners = []  # called on the worker's thread when a job has ended
        self._lock = threading.Lock()  # around `_running`: cells and panel submit on threads of their own
        self._worker = Worker()
        atexit.register(self.close)

    def sampling(self, **options) -> Sampling:
        """The settings with these options over them, and a seed drawn if there is none: replies always carry theirs."""
        sampling = self.config.sampling().updated(**options)
        return sampling if sampling.seed is not None else sampling.updated(seed=secrets.randbits(32))

    def submit(self, job, follower=None):
        """Run a job on the worker: a callable that takes a stop flag and yields events. Returns its handle.

        follower : as of `Worker.submit`.
        """
        context = copy_context()  # in which ipykernel finds the cell that what listeners send belongs to

        def told(stop):
            try:
                yield from job(stop)
            finally:
                for listener in self.listeners:
                    context.run(listener)

        with self._lock:
            handle = self._worker.submit(told, follower)
            self._running = [*(each for each in self._running if not each.ended), handle]
        return handle

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits."""
        return not all(handle.ended for handle in self._running)

    def stop(self) -> int:
        """Stop what is running and what waits for its turn, from any thread, cell or no cell;
        returns how many there were."""
        running = [handle for handle in self._running if not handle.ended]
        for handle in running:
            handle.stop()
        return len(running)

    def interrupt(self):
        """Stop what the running cell waits for; when none waits, everything, since that is what runs then."""
        if self.awaited is not None:
            self.awaited.stop()
        else:
            self.stop()

    def ask(
        self, prompt: str, sampling: Sampling, system: str | None = None, new=False, schema=None, alternatives=0,
        cell: str | None = None,
    ):  # fmt: skip
        """The job that asks: loads the model if need be, then yields what the conversation yields.

        system : replaces the conversation's system prompt; new : starts a new conversation first;
        schema, alternatives : as of `Chat.stream`; cell : which cell of a notebook this is the question of, so that
        asking it again takes the conversation back to there.
        """

        def job(stop):
            yield from self._ready(stop)
            yield self._answering(sampling, stop, system, new, schema)
            how = {"schema": schema, "alternatives": alternatives} | asdict(sampling)
            with self.shelf.asking(cell) as later:
                if later:
                    yield Notice(f"The conversation goes on from this cell: {later} later "
                                 f"{'exchanges were' if later > 1 else 'exchange was'} taken back.")  # fmt: skip
                yield from self.chat.stream(prompt, stop_flag=stop, **how)

        return job

    def ask_again(self, sampling: Sampling, schema=None, alternatives=0):
        """The job that asks the last question again; the reply takes the place of the last one."""

        def job(stop):
            self.shelf.current.question()  # a mistake is told before the model is loaded
            yield from self._ready(stop)
            yield self._answering(sampling, stop, schema=schema)
            with self.shelf.asking_again():
                yield from self.chat.stream_again(stop, schema=schema, alternatives=alternatives, **asdict(sampling))

        return job

    def map(self, rows: Map):
        """The job that answers prompts, apart from the conversation."""

        def job(stop):
            yield from self._ready(stop)
            begun = time.monotonic()
            yield rows.progress
            yield from rows.steps(Chat(self.model, rows.system), stop)
            progress = rows.progress
            failed = f", {progress.failed} of them failed" if progress.failed else ""
            yield Notice(f"{progress.done} of {progress.total} rows answered{failed} "
                         f"· {self.model.name} · {time.monotonic() - begun:.1f} s")  # fmt: skip

        return job

    def switch(self, name: str):
        """The job that changes the model, fetching it if need be; the conversation goes on.

        After an error the old model is still there.
        """

        def job(stop):
            try:
                path = find(name)
            except ModelNotFoundError:
                if not pullable(name):
                    raise
                path = yield from pulling(name, stop)
            before, self.config.model = self.config.model, name if known(name) else str(path.absolute())
            try:
                yield from self._ready(stop)
            except BaseException:
                self.config.model = before
                raise
            kept = f"; the conversation of {len(self.chat.messages)} messages goes on" if self.chat.messages else ""
            yield Notice(f"The model is {self.model.name}, with a context of {self.model.context} tokens{kept}.")

        return job

    def change(self, how):
        """The job that changes the shelf: `how` is given it, and returns a line for the user."""

        def job(stop):
            told = how(self.shelf)
            if self.chat is not None:
                self.chat.transcript = self.shelf.current
            yield Notice(told)

        return job

    def save(self, path: str, cache: bool):
        """The job that saves the conversation, and what the model has read of it if `cache` says so."""

        def job(stop):
            told = self.shelf.save(path)
            if cache:
                if self.chat is None:
                    raise ConversationFileError("there is no cache to save, for no model is loaded; the rest is saved")
                self.chat.transcript = self.shelf.current
                yield from self.chat.keep(path, stop)
            yield Notice(f"{told[:-1]}, with its cache." if cache else told)

        return job

    def load(self, path: str):
        """The job that goes on with a saved conversation; if its cache was kept, the model is loaded, to take it."""

        def job(stop):
            told = self.shelf.load(path)
            if there(path):
                yield from self._ready(stop)
            if self.chat is not None:
                self.chat.transcript = self.shelf.current
                yield from self.chat.recall(path, stop)
            yield Notice(told)

        return job

    def close(self):
        """Stop what is running, end the worker and free the model."""
        atexit.unregister(self.close)
        self.stop()
        if self._worker.close() and self.model is not None:
            self.model.close()
        self.model = self.chat = None

    def _answering(self, sampling, stop, system=None, new=False, schema=None):
        """Make the conversation ready for a question; the model is loaded."""
        stop.look("Stopped before the question was asked; the model is loaded.")
        if new:
            self.shelf.new()
        transcript = self.shelf.current
        if system is not None:
            transcript.system = system
        elif transcript.system is None and not transcript.messages:
            transcript.system = self.config.system
        self.chat.transcript, self.chat.overflow = transcript, self.config.overflow
        return Answering(self.model.name, self._fingerprint, self.model.context, sampling, schema)

    def _ready(self, stop):
        wanted = (self.config.model, self.config.context, self.config.threads, self.config.cache_bits)
        if self._loaded == wanted and self.model.intact():
            return
        path = yield from self._find(self.config.model, stop)
        yield Loading(path.stem)
        try:
            _, context, threads, bits = wanted
            self.model = yield from loading(path, context, threads, stop, replaces=self.model, cache_bits=bits)
        finally:
            if self.model is not None and self.model.closed:  # failed at the very last: the next question loads
                self.model = self._loaded = None
        self.chat = Chat(self.model, transcript=self.shelf.current)
        self._loaded, self._fingerprint = wanted, fingerprint(path)
        if self.model.notice:
            yield Notice(self.model.notice)

    def _find(self, name, stop):
        try:
            return find(name)
        except ModelNotFoundError:
            if name is not None:  # only the default model is fetched without being asked for by name
                raise
        return (yield from pulling(stop_flag=stop))


_session = None


def session(config: NbLLM) -> Session:
    """The session of this Jupyter kernel; the first call starts it, with these settings."""
    global _session
    if _session is None:
        _session = Session(config)
    return _session


def close():
    """End the session, if there is one."""
    global _session
    if _session is not None:
        _session.close()
        _session = None


def running() -> Session | None:
    """The session if it was started; does not start it."""
    return _session
