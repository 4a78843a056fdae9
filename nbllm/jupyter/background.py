"""`%%chat --bg`: a reply that no cell waits for, and the handle by which later cells follow it.

Shown, the handle is the reply's output, which grows while other cells run. It is painted on the worker's thread, as
events come. Knows nothing of how a reply is asked for, and of its output only what any has.
"""

import asyncio
import secrets
import threading
import time
from contextlib import contextmanager

from IPython.display import display

from nbllm.chat.conversation import Notice
from nbllm.chat.reply import Reply
from nbllm.chat.worker import WAIT
from nbllm.errors import NbLLMError, Stopped
from nbllm.jupyter.display import NotebookOutput, Output


class _Live(NotebookOutput):
    """Goes on after its cell has ended, wherever it was shown."""

    def __init__(self, shell, filled):
        super().__init__(filled)
        # This publisher, whatever is in its place later on: a cell may capture its own output then.
        self._publish, self._id = shell.display_pub.publish, f"nbllm-{secrets.token_hex(8)}"
        self._shown = False

    def show(self):
        data, plain = self._bundle()
        display(data, raw=True, metadata=self.metadata(), display_id=self._id)
        self._shown = True
        if self.text or self.think:
            self._plain = plain  # what is new after it begins here

    def send(self, data, metadata):
        if self._shown:
            self._publish(data, metadata, transient={"display_id": self._id}, update=True)


class _Quiet(Output):
    """For a terminal, where what comes later would stand in the middle of what is typed then."""

    def __init__(self, shell, filled):
        super().__init__(filled)

    def paint(self):
        pass


@contextmanager
def _no_longer():
    """An interrupt while waiting is told in a line."""
    told = "No longer waiting; the reply goes on, until %chat stop or its stop() ends it."
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(told) from None
    except asyncio.CancelledError as error:
        # Stays what it is: a KeyboardInterrupt in a task would end the event loop, and the Jupyter kernel with it.
        error._render_traceback_ = lambda: [told]
        raise


class Background:
    """A reply on its way. Shown in a notebook, it is the reply as it grows.

    Waiting for it, `wait()` or `await`, may be interrupted: the reply goes on. `stop()` ends the reply.
    """

    def __init__(self, shell, session, job, filled=None):
        self._output = (_Live if hasattr(shell, "kernel") else _Quiet)(shell, filled)
        self._lock = threading.RLock()  # around what is painted, and the end: a cell may show what the worker changes
        self._ended = threading.Event()
        self._error = None
        self._handle = session.submit(job, follower=self)

    @property
    def text(self) -> str:
        """The reply as far as it is there."""
        return self._output.text

    @property
    def think(self) -> str:
        """What the model thought before it, as far as it is there."""
        return self._output.think

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._ended.is_set()

    @property
    def reply(self) -> Reply | None:
        """The whole reply, also when it was stopped; None before the end, and when there is none."""
        return self._output.reply() if self.done else None

    def stop(self):
        """Stop it; what is there is kept."""
        self._handle.stop()

    def wait(self, timeout: float | None = None) -> Reply:
        """Wait for the end, at most so many seconds.

        Raises
        ------
        NbLLMError
            It failed, or was stopped before there was a reply, or the time is over.
        """
        end = float("inf") if timeout is None else time.monotonic() + timeout
        with _no_longer():
            while not self._ended.wait(min(WAIT, max(0, end - time.monotonic()))):
                self._handle.check()
                if time.monotonic() >= end:
                    raise NbLLMError("the reply is not there yet: wait() waits for its end, and text has what there is")
        return self._result()

    def __await__(self):
        return self._wait().__await__()

    async def _wait(self):
        with _no_longer():
            while not self.done:
                self._handle.check()
                await asyncio.sleep(WAIT)  # an event loop that sleeps for longer does not see ipykernel's interrupts
        return self._result()

    def _result(self):
        if self._error is not None:
            raise self._error
        return self.reply

    def __repr__(self):
        state = "done" if self.done else "writing" if self.text or self.think else self._output.status()
        return f"<a reply in the background: {state}, {len(self.text):,} characters>"

    def _ipython_display_(self):
        with self._lock:
            if isinstance(self._output, _Live):
                self._output.show()
            else:
                print(repr(self))

    # The worker tells these.

    def event(self, event):
        with self._lock:
            self._output.event(event)

    def end(self, error):
        with self._lock:
            output = self._output
            if error is None and output.reply() is None:
                error = Stopped(output.stopped())
            if error is not None:
                output.event(Notice(str(error)))
                # Not as a KeyboardInterrupt, which would end whatever waits and not only the waiting.
                self._error = NbLLMError(str(error)) if isinstance(error, Stopped) else error
            output.finish()
            self._ended.set()
