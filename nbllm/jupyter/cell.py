"""A cell that waits for a job: its events go to the cell's output, and an interrupt stops it.

`run` blocks, for magics; `run_async` awaits, for the Local LLM kernel. All output is made on the cell's own thread, so
none arrives after the cell has ended or in another cell.
"""

import asyncio
import signal
import threading
from contextlib import contextmanager

from nbllm.chat.map import Mapped
from nbllm.errors import Stopped
from nbllm.runtime.events import Prefill


def run(session, job, output):
    """Run `job` and show its events until the last.

    Raises
    ------
    Stopped
        The user interrupted. What was written stays in the output and in the conversation.
    """
    with _interrupts(session, output) as interrupts, _ending(output):
        with _awaiting(session, job) as handle, interrupts.stop(handle):
            if not handle.events:  # else what it waits for is known
                output.paint()
            for event in handle:
                output.event(event)


async def run_async(session, job, output):
    """As `run`, with the event loop free meanwhile; here an interrupt arrives as the cell's cancellation."""
    events = _Events(asyncio.get_running_loop())

    async def show():
        while (event := await events.queue.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            output.event(event)

    with _ending(output), _awaiting(session, job, events) as handle:
        if not handle.events:
            output.paint()
        try:
            await show()
        except asyncio.CancelledError:
            handle.stop()
            if not _began(output, handle):
                raise
            await show()


class _Events:
    """Brings a job's events from the worker's thread to an event loop's, and its error, or None, at the end."""

    def __init__(self, loop):
        self.queue = asyncio.Queue()
        self._loop = loop

    def event(self, event):
        if not self._loop.is_closed():  # it is, when the Jupyter kernel ends
            self._loop.call_soon_threadsafe(self.queue.put_nowait, event)

    end = event


@contextmanager
def _awaiting(session, job, follower=None):
    """Submits the job, which an interrupt concerns until the cell has ended, and not what others run meanwhile."""
    handle = session.awaited = session.submit(job, follower)
    try:
        yield handle
    except BaseException:
        handle.stop()  # nobody follows it any more
        raise
    finally:
        session.awaited = None


def _began(output, handle):
    """Whether there is something to lose; asked after the job was told to stop. The output may be behind the job."""
    return output.began or any(isinstance(event, (Prefill, Mapped)) for event in handle.events)


@contextmanager
def _ending(output):
    """Finishes the output, however the cell ends."""
    try:
        yield
        stopped = output.finish_reason == "stopped"
    except (KeyboardInterrupt, asyncio.CancelledError):
        stopped = True
    except BaseException:
        output.finish()
        raise
    message = output.stopped()
    output.finish()
    if stopped:
        raise Stopped(message)


class _Interrupts:
    """What an interrupt does to a cell that waits: it sets the stop flag and the last events follow, for raised at any
    place, it could lose one of them.

    It is raised where nothing can be lost, while the model is found and loaded, and when it comes a second time. Before
    the job is submitted, and while its end is shown, it is only noted.
    """

    def __init__(self, session, output):
        self.noted = self._told = False
        self._session, self._output, self._handle = session, output, None

    def __call__(self, signum, frame):
        if self._handle is None:
            self.noted = True
            return
        again, self._told = self._told, True
        self._session.interrupt()
        if again or not _began(self._output, self._handle):
            raise KeyboardInterrupt

    @contextmanager
    def stop(self, handle):
        """From here on an interrupt stops this job; one that came before does so now."""
        try:
            self._handle = handle
            if self.noted:
                self.noted = False
                handle.stop()
                raise KeyboardInterrupt
            yield
        finally:
            self._handle = None


@contextmanager
def _interrupts(session, output):
    """The interrupts of a cell, from before its job is submitted until its end is shown."""
    interrupts, main = _Interrupts(session, output), threading.current_thread() is threading.main_thread()
    if main:  # signals come nowhere else
        before = signal.signal(signal.SIGINT, interrupts)
    try:
        yield interrupts
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
    if interrupts.noted:  # too late for the reply, but not for the cells that would follow
        raise Stopped("Stopped.")
