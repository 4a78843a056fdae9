"""A cell that waits for a reply: an interrupt at a time when its output is behind what was written."""

import asyncio
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from nbllm.errors import Stopped
from nbllm.jupyter import cell
from nbllm.jupyter.config import NbLLM
from nbllm.jupyter.display import Output
from nbllm.jupyter.session import Session
from nbllm.text import Text


class Behind(Output):
    """Is interrupted while it shows that the prompt is read, when there is text already."""

    def __init__(self, session, interrupt):
        super().__init__()
        self.session, self.interrupt = session, interrupt

    def paint(self):
        if self.doing == "reading the prompt" and self.interrupt:
            while not any(isinstance(event, Text) for event in self.session.awaited.events):
                assert not self.session.awaited.ended
            interrupt, self.interrupt = self.interrupt, None
            interrupt()


@pytest.fixture
def session(tiny_model):
    session = Session(NbLLM(model=str(tiny_model), seed=1))
    yield session
    session.close()


def run(session, job):
    cell.run(session, job, Behind(session, lambda: os.kill(os.getpid(), signal.SIGINT)))


def run_async(session, job):
    async def run():
        await cell.run_async(session, job, Behind(session, asyncio.current_task().cancel))

    with ThreadPoolExecutor(1) as thread:  # this one may have an event loop already: that of the browser's driver
        thread.submit(lambda: asyncio.run(run())).result()


@pytest.mark.parametrize("how", [run, run_async])
def test_what_was_written_is_kept_and_said_though_the_output_is_behind(session, how):
    ask = session.ask("hello", session.sampling(max_tokens=50))

    def job(stop):
        """As `ask`, and does not end before it is stopped."""
        for event in ask(stop):
            yield event
            while isinstance(event, Text) and not stop.is_set():
                time.sleep(0.001)

    with pytest.raises(Stopped, match=r"Stopped after \d+ tokens; the partial reply is kept\."):
        how(session, job)
    assert session.shelf.current.messages[-1]["role"] == "assistant"


class InterruptedAtTheEnd(Output):
    """Is interrupted when it begins to show its last state."""

    shown = None

    def paint(self):
        if self.doing is None:
            os.kill(os.getpid(), signal.SIGINT)
        self.shown = self.text, self.footer()


def test_an_interrupt_while_the_end_is_shown_is_told_when_it_is_shown(session):
    output = InterruptedAtTheEnd()
    with pytest.raises(Stopped, match=r"^Stopped\.$"):
        cell.run(session, session.ask("hello", session.sampling(max_tokens=5)), output)
    assert output.finish_reason == "length"
    assert output.shown == (session.shelf.current.messages[-1]["content"], output.footer())


def test_an_interrupt_while_the_job_is_submitted_stops_that_job_alone(session, monkeypatch):
    submit, submitted = session.submit, [session.submit(never_ending)]

    def interrupted(*given):
        submitted.append(submit(*given))
        os.kill(os.getpid(), signal.SIGINT)
        return submitted[-1]

    monkeypatch.setattr(session, "submit", interrupted)
    with pytest.raises(Stopped, match="Stopped while waiting for the "):
        cell.run(session, session.ask("hello", session.sampling(max_tokens=None)), Behind(session, None))
    assert not submitted[0].ended
    submitted[0].stop()
    with pytest.raises(Stopped):
        submitted[1].wait()
    assert not session.shelf.current.messages


def never_ending(stop):
    """A job that ends when it is stopped."""
    while not stop.is_set():
        time.sleep(0.001)
    yield from ()
