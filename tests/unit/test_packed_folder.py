"""The folder of packed weights: stops, deaths and several processes at once, no room, its bound, and `nbllm cache`."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from packed_folder import folder, in_memory, in_memory_with_one_notice, names, weights  # noqa: F401
from tiny_gguf import write_llama

import nbllm
from nbllm import cli
from nbllm.errors import OptionError, Stopped
from nbllm.formats.open import open_model
from nbllm.runtime import packed_cache, packed_file
from nbllm.runtime.events import Packing, StopFlag, finish
from nbllm.runtime.weights import packing


# ---- stopping, dying, and two at once


def test_it_tells_its_progress_and_a_stop_leaves_nothing(folder, tiny_model, monkeypatch):
    monkeypatch.setattr(packed_cache, "SYNC", 1)
    flag, events = StopFlag(), []
    with open_model(tiny_model) as gguf:
        with pytest.raises(Stopped):
            for event in packing(gguf, flag):
                events.append(event)
                if len(events) == 3:
                    assert [path.suffix for path in folder.iterdir()] == [".part"]
                    flag.set()
        assert len(events) == 3 and names(folder) == []
        flag.clear()
        events = list(packing(gguf, flag))
    done = [event.done for event in events]
    assert all(isinstance(event, Packing) and event.total == done[-1] for event in events)
    assert done == sorted(set(done)) and len(done) > 10


def test_an_exception_from_progress_ends_it_and_leaves_nothing(folder, tiny_model):
    def progress(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nbllm.load(tiny_model, progress=progress)
    assert names(folder) == []


CHILD = """
import sys, time
from nbllm.formats.open import open_model
from nbllm.runtime import packed_cache
from nbllm.runtime.events import finish
from nbllm.runtime.weights import packing
packed_cache.SYNC = 1
with open_model(sys.argv[1]) as gguf:
    steps = packing(gguf)
    next(steps), next(steps)
    print("half way", flush=True)
    sys.stdin.readline()
    weights = finish(steps)
    print("done", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def child(folder, tiny_model):
    """Starts a process that packs, and waits half way for a line on its standard input, and at the end for another."""
    children = []

    def child():
        children.append(subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tiny_model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ))
        assert children[-1].stdout.readline() == "half way\n"
        return children[-1]

    yield child
    for process in children:
        process.kill()
        process.communicate(timeout=30)


def go_on(process):
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline()


def age(path, seconds=2 * packed_file.YOUNG):
    os.utime(path, (time.time() - seconds,) * 2)


def test_what_a_killed_process_left_is_never_used_and_deleted_by_the_next(folder, tiny_model, in_memory, child):
    process = child()
    process.kill()
    assert process.wait(30) == -signal.SIGKILL
    (part,) = folder.glob("*.part")
    age(part)
    got = weights(tiny_model)
    np.testing.assert_array_equal(got.data, in_memory)
    assert names(folder) == [got.path.name]


@pytest.mark.skipif(packed_file.fcntl is None, reason="files are not locked here: the system refuses to delete them")
def test_what_a_living_process_is_writing_stays(folder, tiny_model, in_memory, child):
    process = child()
    (part,) = folder.glob("*.part")
    age(part)
    weights(write_llama(folder.parent / "other.gguf", seed=5))
    assert part.exists()
    assert go_on(process) == "done\n"
    np.testing.assert_array_equal(weights(tiny_model).data, in_memory)


def test_two_processes_at_once_both_get_it_and_one_file_stays(folder, tiny_model, in_memory, child):
    first, second = child(), child()
    assert len(list(folder.glob("*.part"))) == 2
    assert go_on(first) == go_on(second) == "done\n"
    (path,) = folder.iterdir()
    inode = path.stat().st_ino
    np.testing.assert_array_equal(weights(tiny_model).data, in_memory)
    assert path.stat().st_ino == inode


def test_the_one_who_is_later_uses_the_file_of_the_one_who_was_faster(folder, in_memory):
    inodes = []
    for _ in range(2):
        with finish(packed_cache.store(folder, "k" * 32, in_memory.size, "m", [in_memory])) as file:
            np.testing.assert_array_equal(np.fromfile(file, np.uint8), in_memory)
        inodes.append((folder / ("k" * 32 + ".packed")).stat().st_ino)
    assert inodes[0] == inodes[1] and len(names(folder)) == 1


def test_threads_that_load_at_once_all_get_it(folder, tiny_model, in_memory):
    got = []
    threads = [threading.Thread(target=lambda: got.append(weights(tiny_model).data)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4 and all(np.array_equal(data, in_memory) for data in got)


# ---- no room


def test_a_disk_that_fills_up_half_way(folder, tiny_model, in_memory, monkeypatch):
    monkeypatch.setattr(packed_cache, "SYNC", 1)
    resource = pytest.importorskip("resource", reason="a limit on the size of files stands for the disk")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (packed_cache.HEADER + in_memory.size // 2, limits[1]))
    try:
        in_memory_with_one_notice(tiny_model, in_memory, os.strerror(errno.EFBIG))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(folder) == []


def test_a_disk_that_says_so_only_when_it_must_write(folder, tiny_model, in_memory, monkeypatch):
    def fsync(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    in_memory_with_one_notice(tiny_model, in_memory, os.strerror(errno.ENOSPC))
    assert names(folder) == []


def test_a_disk_that_is_nearly_full_is_not_filled(folder, tiny_model, in_memory, monkeypatch):
    usage = shutil.disk_usage(folder.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=packed_cache.RESERVE + 1000))
    in_memory_with_one_notice(tiny_model, in_memory, "1.0 GB are free")
    assert names(folder) == []


def test_a_folder_that_cannot_be(folder, tiny_model, in_memory):
    folder.write_text("a file")
    in_memory_with_one_notice(tiny_model, in_memory, str(folder))


def test_a_folder_that_may_only_be_read_serves_what_it_has(folder, tiny_model, in_memory):
    path = weights(tiny_model).path
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write everywhere")
    try:
        assert weights(tiny_model).path == path
        other = write_llama(folder.parent / "other.gguf", seed=5)
        got = weights(other)
        assert got.path is None and os.strerror(errno.EACCES) in got.notice
        assert [entry.path for entry in packed_cache.clear(folder)[1]] == [path]
    finally:
        folder.chmod(0o700)


def test_the_notice_comes_once_on_standard_error(folder, tiny_model, capsys, monkeypatch):
    monkeypatch.setenv("NBLLM_CACHE_GB", "0")
    with nbllm.load(tiny_model, progress=lambda done, total: None) as model:
        assert model.notice and capsys.readouterr().err == f"nbllm: {model.notice}\n"


def test_a_session_tells_of_the_packing_and_of_its_trouble_once(folder, tiny_model, monkeypatch):
    from nbllm.chat.conversation import Notice
    from nbllm.jupyter.config import NbLLM
    from nbllm.jupyter.session import Answering, Loading, Session

    monkeypatch.setenv("NBLLM_CACHE_GB", "0")
    session = Session(NbLLM(model=str(tiny_model)))
    try:
        turns = [session.submit(session.ask("hello", session.sampling(max_tokens=1))).wait() for _ in range(2)]
        notice = Notice(session.model.notice)
    finally:
        session.close()
    kinds = [type(event) for event in turns[0]]
    assert kinds[0] is Loading and set(kinds[1 : kinds.index(Notice)]) == {Packing}
    assert kinds[kinds.index(Notice) + 1] is Answering
    assert turns[0].count(notice) == 1 and notice not in turns[1]


# ---- the bound


def fill(folder, key, size, used):
    """A file of the cache that was used last `used` seconds ago."""
    piece = np.zeros(size - packed_cache.HEADER, np.uint8)
    finish(packed_cache.store(folder, key, piece.size, f"model {key}", [piece])).close()
    age(folder / f"{key}.packed", used)


def test_the_least_recently_used_goes_first(folder, monkeypatch):
    monkeypatch.setenv("NBLLM_CACHE_GB", "1e-4")  # 100 kB
    for key, used in (("a", 300), ("b", 400), ("c", 100)):
        fill(folder, key, 30_000, used)
    packed_cache.find(folder, "b", 30_000 - packed_cache.HEADER).close()  # so b was used now
    fill(folder, "d", 35_000, 0)
    assert names(folder) == ["b.packed", "c.packed", "d.packed"]
    fill(folder, "e", 60_000, 0)
    assert names(folder) == ["d.packed", "e.packed"]


@pytest.mark.skipif(packed_file.fcntl is None, reason="files are not locked here: the system refuses to delete them")
def test_one_in_use_stays_also_when_its_the_oldest_and_in_another_process(folder, tiny_model, child, monkeypatch):
    process = child()
    assert go_on(process) == "done\n"
    (used,) = folder.iterdir()
    size = used.stat().st_size
    age(used, 1000)
    monkeypatch.setenv("NBLLM_CACHE_GB", str((size + 30_000) / 1e9))
    fill(folder, "a", 20_000, 500)
    fill(folder, "b", 20_000, 0)
    assert names(folder) == sorted([used.name, "b.packed"])
    with pytest.raises(OSError, match="it may hold"):
        fill(folder, "c", size, 0)
    assert used.exists()
    assert [entry.path for entry in packed_cache.clear(folder)[1]] == [used]
    process.kill()
    process.wait(30)
    assert [entry.path for entry in packed_cache.clear(folder)[0]] == [used]


def test_what_can_never_fit_deletes_nothing(folder, monkeypatch):
    monkeypatch.setenv("NBLLM_CACHE_GB", "1e-4")
    fill(folder, "a", 30_000, 0)
    with pytest.raises(OSError, match="NBLLM_CACHE_GB"):
        fill(folder, "b", 200_000, 0)
    assert names(folder) == ["a.packed"]


def test_the_bound_is_a_tenth_of_the_disk_20_gb_or_what_is_given(folder, monkeypatch):
    usage = shutil.disk_usage(folder.parent)
    for total, expected in ((10**11, 10**10), (10**12, 20 * 10**9)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, total=total: usage._replace(total=total))
        assert packed_cache.limit(folder) == expected
    monkeypatch.setenv("NBLLM_CACHE_GB", "1.5")
    assert packed_cache.limit(folder) == 1_500_000_000
    for wrong in ("much", "inf", "nan", "-1"):
        monkeypatch.setenv("NBLLM_CACHE_GB", wrong)
        with pytest.raises(OptionError, match="NBLLM_CACHE_GB"):
            packed_cache.limit(folder)


# ---- the command


def test_the_command_lists_and_clears(folder, capsys):
    def run(*arguments):
        return cli.main(["cache", *arguments]), *capsys.readouterr()

    assert run()[1].split()[:3] == ["total", "0", "MB"]
    for key, used in (("a", 200), ("b", 100)):
        fill(folder, key, 2_000_000, used)
    (folder / "x.packed").write_bytes(b"?")
    (folder / "other").write_bytes(b"not ours")
    lines = run()[1].splitlines()
    assert [line.split("  ")[0] for line in lines] == ["unfinished", "model b", "model a", "total"]
    assert "2 MB" in lines[1] and "4 MB  of" in lines[3] and str(folder) in lines[3]
    assert run("clear", "no such")[0] == 1
    assert run("clear", "model a.gguf") == (0, "deleted 1 file, 2 MB\n", "")
    assert names(folder) == ["b.packed", "other", "x.packed"]
    fill(folder, "c", 1_000_000, 300)
    assert run("clear", "model c.bin") == (0, "deleted 1 file, 1 MB\n", "")
    assert run("clear") == (0, "deleted 2 files, 2 MB\n", "")
    assert names(folder) == ["other"]


@pytest.mark.skipif(packed_file.fcntl is None, reason="files are not locked here: the system refuses to delete them")
def test_the_command_says_what_is_in_use(folder, tiny_model, capsys):
    got = weights(tiny_model)
    assert cli.main(["cache", "clear"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(f"kept {tiny_model.stem}, ")
    assert got.path.exists()
