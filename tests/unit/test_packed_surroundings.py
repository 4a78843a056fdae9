"""The folder of packed weights in odd surroundings: forks, locks, no threads, no home, and what is no file of its."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
from packed_folder import folder, in_memory, in_memory_with_one_notice, names, weights  # noqa: F401

from nbllm import cli
from nbllm.errors import CpuError
from nbllm.runtime import packed_cache, packed_file

FORKING = """
import os, sys
import numpy as np
from nbllm.formats.open import open_model
from nbllm.runtime import packed_cache
from nbllm.runtime.events import finish
from nbllm.runtime.weights import load_weights, packing
packed_cache.SYNC = 1
with open_model(sys.argv[1]) as gguf:
    steps = packing(gguf)
    next(steps)
    reading, writing = os.pipe()
    if not os.fork():
        os.close(writing)
        os.read(reading, 1)  # until the other process ends
        os._exit(0)
    packed, again = finish(steps), load_weights(gguf)
print(np.array_equal(packed.data, again.data), packed.notice, again.notice)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_fork_that_lives_on_does_not_hold_up_the_one_that_packs(folder, tiny_model):
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, str(tiny_model)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "True None None\n"), ran.stderr
    assert len(names(folder)) == 1


@pytest.mark.skipif(packed_file.fcntl is None, reason="files are not locked here")
def test_one_that_another_program_has_locked_is_used(folder, tiny_model, in_memory):
    path = weights(tiny_model).path
    with path.open("rb") as file:
        packed_file.fcntl.flock(file, packed_file.fcntl.LOCK_EX)
        got = weights(tiny_model)
    np.testing.assert_array_equal(got.data, in_memory)
    assert got.notice is None


def test_it_packs_where_no_thread_can_be_started(folder, tiny_model, in_memory, monkeypatch):
    def start(target, name):
        raise CpuError("no more")

    monkeypatch.setattr(packed_cache, "start", start)
    monkeypatch.setattr(packed_cache, "SYNC", 1)
    got = weights(tiny_model)
    np.testing.assert_array_equal(got.data, in_memory)
    assert got.notice is None and names(folder) == [got.path.name]


LATE = """
import sys, threading
import nbllm

def late():
    main.join()
    with nbllm.load(sys.argv[1], threads=1) as model:
        print(*model.logits([1, 2, 3]).shape, model.notice)

main = threading.main_thread()
threading.Thread(target=late).start()
"""


def test_a_thread_may_pack_when_the_main_thread_has_ended(folder, tiny_model):
    ran = subprocess.run(
        [sys.executable, "-c", LATE, str(tiny_model)], capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stdout) == (0, "3 302 None\n"), ran.stderr
    assert len(names(folder)) == 1


@pytest.mark.parametrize("given", ["~no-such-user/x", None])
def test_without_a_home_there_is_no_cache_and_a_notice(folder, tiny_model, in_memory, monkeypatch, tmp_path, given):
    def expanduser(path):
        return path  # as where neither HOME nor the system's list of users says it

    monkeypatch.chdir(tmp_path)
    if given:
        monkeypatch.setenv("NBLLM_CACHE", given)
    else:
        monkeypatch.delenv("NBLLM_CACHE")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(os.path, "expanduser", expanduser)
    in_memory_with_one_notice(tiny_model, in_memory, "no such home folder; set NBLLM_CACHE")
    assert [path for path in tmp_path.iterdir() if path.name.startswith("~")] == []
    assert cli.main(["cache"]) == 1


def test_a_folder_of_an_impossible_name(folder, tiny_model, in_memory, monkeypatch, capsys):
    monkeypatch.setenv("NBLLM_CACHE", str(folder / ("x" * 300)))
    in_memory_with_one_notice(tiny_model, in_memory, os.strerror(errno.ENAMETOOLONG))
    assert cli.main(["cache"]) == cli.main(["cache", "clear"]) == 1
    assert capsys.readouterr().err.count("\n") == 2


def test_what_is_no_file_is_none_of_the_caches(folder, tiny_model, in_memory, capsys):
    (folder / "a.packed").mkdir(parents=True)
    (folder / "b.part").mkdir()
    (folder / "c.packed").symlink_to(folder / "c.packed")
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "d.packed")
    others = names(folder)
    got = weights(tiny_model)
    np.testing.assert_array_equal(got.data, in_memory)
    assert got.notice is None and [entry.path for entry in packed_cache.entries(folder)] == [got.path]
    assert cli.main(["cache"]) == 0
    del got
    assert cli.main(["cache", "clear"]) == 0
    assert names(folder) == others


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_in_the_place_of_packed_weights_is_replaced(folder, tiny_model, in_memory):
    path = weights(tiny_model).path
    path.unlink()
    os.mkfifo(path)
    np.testing.assert_array_equal(weights(tiny_model).data, in_memory)
    assert path.is_file()
