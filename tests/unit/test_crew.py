"""Compute threads that the system does not give: fewer, or one line, and never the end of the process."""

import os
import subprocess
import sys

import pytest

import nbllm
from nbllm.errors import CpuError, OptionError
from nbllm.runtime import crew


@pytest.fixture
def few(monkeypatch):
    """The system lets this process start three more threads at a time."""
    start, all_started = crew.start, []

    def limited(target, name):
        if name == "nbllm trial" and sum(thread.is_alive() for thread in all_started) >= 3:
            raise CpuError("no more")
        all_started.append(start(target, name))
        return all_started[-1]

    monkeypatch.setattr(crew, "start", limited)
    yield
    assert not any(thread.is_alive() for thread in all_started)


def test_as_many_can_be_started_as_are_asked_for():
    assert [crew.startable(count) for count in (1, 2, 5)] == [1, 2, 5]


def test_half_of_what_can_be_started_is_counted_on(few):
    assert [crew.startable(count) for count in (1, 2, 5)] == [1, 2, 2]


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
    environment = os.environ | {"NBLLM_CACHE": "off"}
    command = [sys.executable, "-c", PROGRAM, str(tiny_model)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    told, again, alone, after = ran.stdout.splitlines()
    assert told == again and "of 256 threads here" in told and "threads=" in told
    assert alone == after == "3 302"
