"""The worker: order, errors, stopping, interrupts while waiting, and closing."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

from nbllm.chat.worker import Queued, Worker
from nbllm.errors import NbLLMError

LONG = 30  # seconds; bounds a wait that should never be that long


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    assert worker.close(LONG)


def counting(n):
    def job(flag):
        yield from range(n)
    return job


def until_stopped(flag):
    """Yields once a millisecond until the flag is set, then says so."""
    for i in range(LONG * 1000):
        if flag.is_set():
            yield "stopped"
            return
        yield i
        time.sleep(0.001)


def told(events):
    """Those of the job itself."""
    return [event for event in events if not isinstance(event, Queued)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_in_a_fork_a_reply_that_the_worker_writes_is_not_waited_for(worker):
    handle = worker.submit(until_stopped)
    next(event for event in handle if not isinstance(event, Queued))
    reads, writes = os.pipe()
    if (child := os.fork()) == 0:
        try:
            with pytest.raises(NbLLMError) as error:
                handle.wait()
            os.write(writes, str(error.value).encode())
        finally:
            os._exit(0)
    os.close(writes)
    with open(reads, "rb") as pipe:
        assert pipe.read().decode().startswith("the thread that runs models has ended in this process")
    os.waitpid(child, 0)
    handle.stop()
    assert handle.wait()[-1] == "stopped"


def test_what_ended_before_its_worker_did_is_still_told():
    worker = Worker()
    handle = worker.submit(counting(2))
    handle.wait()
    assert worker.close(LONG)
    handle.check()
    assert handle.wait() == [0, 1]


def test_events_come_in_order_and_jobs_one_after_another(worker):
    handles = [worker.submit(counting(n)) for n in (3, 0, 2)]
    assert [told(handle) for handle in handles] == [[0, 1, 2], [], [0, 1]]
    assert [told(handle.events) for handle in handles] == [[0, 1, 2], [], [0, 1]]


def test_who_waits_is_told_how_many_come_before_it_and_a_follower_hears_all(worker):
    heard, begin = [], threading.Event()

    class Follower:
        event = heard.append

        def end(self, error):
            heard.append(type(error))

    def first(flag):
        begin.wait(LONG)
        yield "first"

    def failing(flag):
        yield "last"
        raise ValueError

    assert worker.submit(first).events == []
    middle, last = worker.submit(counting(1)), worker.submit(failing, Follower())
    begin.set()
    with pytest.raises(ValueError):
        last.wait()
    assert middle.events == [Queued(1), 0]
    assert last.events == [Queued(2), Queued(1), "last"] and heard == [*last.events, ValueError]
    assert told(worker.submit(counting(1))) == [0]  # what has ended is not waited for


def test_every_step_of_a_job_runs_on_the_one_worker_thread(worker):
    def job(flag):
        try:
            yield threading.current_thread().name
            yield threading.current_thread().name
        finally:
            threads.append(threading.current_thread().name)
    threads = []
    names = worker.submit(job).wait() + worker.submit(job).wait() + threads
    assert set(names) == {"nbllm worker"} and len(names) == 6


def test_an_event_is_there_before_the_job_goes_on(worker):
    """Streaming is real: the follower holds the first event while the job waits to make the second."""
    go = threading.Event()

    def job(flag):
        yield "first"
        assert go.wait(LONG)
        yield "second"
    handle = worker.submit(job)
    assert next(handle) == "first"
    go.set()
    assert list(handle) == ["second"]


def test_an_error_reaches_the_follower_after_the_events_and_the_worker_goes_on(worker):
    def job(flag):
        yield 1
        raise ValueError("broken")
    handle = worker.submit(job)
    assert next(handle) == 1
    for _ in range(2):  # it is not forgotten either
        with pytest.raises(ValueError, match="broken"):
            next(handle)
    assert worker.submit(counting(1)).wait() == [0]


def test_stop_ends_the_running_job_with_its_own_last_event_and_leaves_the_next_alone(worker):
    first, second = worker.submit(until_stopped), worker.submit(counting(2))
    next(first)
    first.stop()
    assert first.wait()[-1] == "stopped"
    assert told(second.wait()) == [0, 1]


def test_a_queued_job_that_is_stopped_sees_it_when_its_turn_comes(worker):
    first, second = worker.submit(until_stopped), worker.submit(until_stopped)
    second.stop()
    first.stop()
    assert told(second.wait()) == ["stopped"]


def test_a_follower_may_leave_and_the_job_goes_on(worker):
    go, made = threading.Event(), []

    def loading(flag):
        yield "loading"
        assert go.wait(LONG)
        made.append("model")
    assert next(worker.submit(loading)) == "loading"
    go.set()
    worker.submit(counting(0)).wait()
    assert made == ["model"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of this kind are POSIX's")
def test_an_interrupt_ends_the_wait_at_once_and_no_event_is_lost(worker):
    go = threading.Event()

    def job(flag):
        yield 0
        assert go.wait(LONG)
        yield from range(1, 1000)
        while not flag.is_set():
            time.sleep(0.001)
        yield "stopped"
    handle = worker.submit(job)
    seen = [next(handle)]
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(handle)
    assert time.monotonic() - start < LONG  # and not forever; that it is quick is measured on a real Jupyter kernel
    timer.join()
    go.set()
    handle.stop()
    seen += handle
    assert seen == [*range(1000), "stopped"] == handle.events


def test_interrupts_at_any_moment_lose_nothing():
    """SIGINT again and again while events stream; each is seen once, in order, whatever line it hits."""
    program = """
import os, signal, sys, threading, time
from nbllm.chat.worker import Queued, Worker
def job(flag):
    for i in range(3000):
        yield i
        if i % 10 == 0: time.sleep(0.0002)
handle, interrupts, done = Worker().submit(job), 0, False
def shoot():
    while not done:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.002)
shooter = threading.Thread(target=shoot)
while True:
    try:
        if shooter.ident is None: shooter.start()
        for event in handle: pass
        done = True
        break
    except KeyboardInterrupt:
        interrupts += 1
signal.signal(signal.SIGINT, signal.SIG_IGN)
done = True
shooter.join()
assert handle.events == list(range(3000)), len(handle.events)
print("interrupted", interrupts > 3)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.stdout == "interrupted True\n", result.stderr


def test_close_stops_the_running_job_and_tells_the_followers_of_queued_ones():
    worker = Worker()
    running, queued = worker.submit(until_stopped), worker.submit(counting(3))
    next(running)
    assert worker.close(LONG)
    assert running.wait()[-1] == "stopped"
    with pytest.raises(NbLLMError, match="closed"):
        queued.wait()
    with pytest.raises(NbLLMError, match="restart"):
        worker.submit(counting(1))
    assert worker.close(LONG)


def test_close_gives_up_on_a_job_that_does_not_heed_its_flag():
    go, worker = threading.Event(), Worker()

    def deaf(flag):
        yield 1
        assert go.wait(LONG)
    next(worker.submit(deaf))
    assert not worker.close(0.05)
    go.set()
    assert worker.close(LONG)


def test_a_waiting_worker_keeps_nothing_of_the_last_job_alive(worker):
    class Model:
        pass

    def job_of(model):
        def job(flag):
            yield 1
            assert model
        return job
    model = Model()
    gone = weakref.ref(model)
    worker.submit(job_of(model)).wait()
    worker.submit(counting(1)).wait()
    del model
    gc.collect()
    assert gone() is None


def test_a_job_cannot_wait_for_a_job(worker):
    def job(flag):
        yield worker.submit(counting(1)).wait()
    with pytest.raises(AssertionError, match="forever"):
        worker.submit(job).wait()


def test_what_a_job_had_at_hand_when_it_failed_ends_at_once(worker):
    class Large:
        pass

    def job(stop):
        large = Large()
        held.append(weakref.ref(large))
        yield 1
        raise ValueError("no")

    held = []
    gc.disable()
    try:
        handle = worker.submit(job)
        with pytest.raises(ValueError, match="no"):
            handle.wait()
        assert held[0]() is None
    finally:
        gc.enable()
