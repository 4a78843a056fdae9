"""Compute threads that the system does not give: fewer, or one line, and never the end of the process."""

import _thread
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

import nbllm
from nbllm.errors import CpuError, OptionError
from nbllm.runtime import crew


@pytest.fixture
def few(monkeypatch):
    """The system lets this process start three more threads at a time."""
    start, running = _thread.start_new_thread, []

    def limited(stay, given):
        if len(running) >= 3:
            raise RuntimeError("can't start new thread")
        running.append(stay)
        came, go, end = given
        return start(stay, (came, go, SimpleNamespace(release=lambda: (running.pop(), end.release()))))

    monkeypatch.setattr(_thread, "start_new_thread", limited)
    yield
    assert not running


def test_as_many_can_be_started_as_are_asked_for():
    assert [crew.startable(count) for count in (1, 2, 5)] == [1, 2, 5]


def test_half_of_what_can_be_started_is_counted_on(few):
    assert [crew.startable(count) for count in (1, 2, 5)] == [1, 2, 2]


def test_a_thread_that_never_begins_is_none(monkeypatch):
    monkeypatch.setattr(crew, "PATIENCE", 0)
    monkeypatch.setattr(_thread, "start_new_thread", lambda stay, given: 1)  # as where it has no memory to begin
    assert crew.startable(4) == 1


def size_now():
    size = threading.stack_size()  # which sets it to 0
    threading.stack_size(size)
    return size


@pytest.fixture
def no_stacks(monkeypatch):
    for name in crew.STACKS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("said", "size"), [
    ("4096", 4096 << 10), ("64K", 64 << 10), (" 5 m ", 5 << 20), ("3G", 3 << 30), ("100000b", 100_000),
    ("+2M", 2 << 20), ("", 0), ("-1", 0), ("4T", 0), ("M", 0), ("1.5G", 0), ("0x10", 0), ("9" * 30, 0),
])  # fmt: skip
def test_the_size_of_stacks_is_read_as_openmp_reads_it(no_stacks, monkeypatch, said, size):
    monkeypatch.setenv("OMP_STACKSIZE", said)
    assert crew.stack_size() == size and (f"OMP_STACKSIZE={said.strip()}" in crew.limits()) == (size > 0)
    monkeypatch.setenv("GOMP_STACKSIZE", "1M")
    assert crew.stack_size() == max(size, 1 << 20)  # whichever counts


@pytest.mark.parametrize(("said", "own", "tried"), [("7M", 0, 7 << 20), ("", 65536, 0), ("1B", 65536, 0)])
def test_threads_are_tried_with_stacks_of_openmps_size_and_a_users_own_stay(no_stacks, monkeypatch, said, own, tried):
    start, sizes = _thread.start_new_thread, []
    monkeypatch.setenv("OMP_STACKSIZE", said)
    monkeypatch.setattr(_thread, "start_new_thread", lambda *given: sizes.append(size_now()) or start(*given))
    before = threading.stack_size(own)
    try:
        assert crew.startable(2) == 2 and sizes == [tried] * 2 and size_now() == own
    finally:
        threading.stack_size(before)


@pytest.mark.parametrize(("own", "size"), [(0, 0), (32768, crew.LEAST_STACK), (64 << 20, 64 << 20)])
def test_a_thread_of_ours_has_a_stack_that_is_large_enough_whatever_a_users_have(monkeypatch, own, size):
    begin, sizes = threading.Thread.start, []
    monkeypatch.setattr(threading.Thread, "start", lambda self: sizes.append(size_now()) or begin(self))
    before = threading.stack_size(own)
    try:
        crew.start(lambda: None, "nbllm test").join()
        assert sizes == [size] and size_now() == own
    finally:
        threading.stack_size(before)


def test_a_model_has_fewer_threads_and_says_so(few, tiny_model, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with nbllm.load(tiny_model) as model:
        assert model.engine.threads == 2 and "2 of 4 threads compute" in model.notice
        assert f"nbllm: {model.notice}\n" in capsys.readouterr().err
    with pytest.raises(OptionError, match="threads=4 cannot be, .*: give 2, or"):
        nbllm.load(tiny_model, threads=4)


PROGRAM = """
import resource, sys, threading
import psutil
import nbllm
from nbllm.errors import CpuError

many, one = nbllm.load(sys.argv[1], threads=256), nbllm.load(sys.argv[1], threads=1)
limits = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (64 << 20), limits[1]))
for _ in range(2):
    try:
        many.logits([1, 2, 3])
    except CpuError as error:
        print(error)
thread = threading.Thread(target=lambda: print(*one.logits([1, 2, 3]).shape))
thread.start()
thread.join()
resource.setrlimit(resource.RLIMIT_AS, limits)
print(*many.logits([1, 2, 3]).shape)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of memory stops threads there")
def test_a_process_that_may_start_no_more_threads_lives_on(tiny_model):
    told, again, alone, after = lines(PROGRAM, tiny_model)
    assert told == again and "of 256 threads here" in told and "threads=" in told
    assert alone == after == "3 302"


LARGE_STACKS = """
import sys
import nbllm

with nbllm.load(sys.argv[1]) as model:
    print(model.engine.threads, model.notice)
    print(*model.logits([1, 2, 3]).shape)
"""


def test_stacks_for_which_there_is_no_memory_are_one_line_too(tiny_model):
    told, shape = lines(LARGE_STACKS, tiny_model, OMP_NUM_THREADS="2", OMP_STACKSIZE="100000G")
    assert told.startswith("1 1 of 2 threads compute") and "OMP_STACKSIZE=100000G" in told
    assert shape == "3 302"


def lines(program, *given, **environment):
    """What a process of its own prints, which must end well."""
    environment = os.environ | {"NBLLM_CACHE": "off"} | environment
    command = [sys.executable, "-c", program, *map(str, given)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()
