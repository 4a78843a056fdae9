"""The cache of packed weights: found by content, whole or not at all, bounded, and the same logits with and without it."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_gguf import write_llama

import nbllm
from nbllm import cli
from nbllm.errors import ModelFileError, OptionError, Stopped
from nbllm.formats.open import open_model
from nbllm.runtime import packed, packed_cache
from nbllm.runtime.engine import Engine
from nbllm.runtime.events import Packing, StopFlag, finish
from nbllm.runtime.models import architecture
from nbllm.runtime.packed import Packer
from nbllm.runtime.weights import content_key, load_weights, packing

IDS = [5, 200, 17, 299, 40, 3]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache that this process and its children use."""
    monkeypatch.setenv("NBLLM_CACHE", str(tmp_path / "packed"))
    monkeypatch.delenv("NBLLM_CACHE_GB", raising=False)
    return tmp_path / "packed"


@pytest.fixture
def in_memory(tiny_model):
    """The packed bytes, uint8 (size,), made without any cache."""
    packer = Packer()
    with open_model(tiny_model) as gguf:
        architecture(gguf.metadata)(gguf, packer)
        return np.concatenate([piece.copy() for piece in packer.pack()])


def weights(model):
    with open_model(model) as gguf:
        return load_weights(gguf)


def key(model):
    with open_model(model) as gguf:
        packer = Packer()
        architecture(gguf.metadata)(gguf, packer)
        return content_key(gguf, packer)


def is_mapped(data):
    while isinstance(data, np.ndarray):
        data = data.base
    return data is not None and type(data).__name__ in ("mmap", "memoryview")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- with and without


def test_logits_are_the_same_packed_now_mapped_later_and_without_a_cache(folder, tiny_model, monkeypatch):
    def logits():
        with nbllm.load(tiny_model) as model:
            return model.engine.weights.path, model.logits(IDS)

    made, found = logits(), logits()
    monkeypatch.setenv("NBLLM_CACHE", "off")
    without = logits()
    assert made[0] == found[0] == folder / names(folder)[0] and without[0] is None
    np.testing.assert_array_equal(made[1], found[1])
    np.testing.assert_array_equal(made[1], without[1])


def test_the_second_load_packs_nothing_and_maps_the_same_bytes(folder, tiny_model, in_memory, monkeypatch):
    first = weights(tiny_model)
    monkeypatch.setattr(Packer, "pack", lambda self: pytest.fail("packed again"))
    second = weights(tiny_model)
    for got in (first, second):
        np.testing.assert_array_equal(got.data, in_memory)
        assert is_mapped(got.data) and not got.data.flags.writeable and got.notice is None
    assert len(names(folder)) == 1


def test_off_leaves_no_file_and_says_nothing(folder, tiny_model, in_memory, monkeypatch, tmp_path):
    monkeypatch.setenv("NBLLM_CACHE", "OFF")
    monkeypatch.chdir(tmp_path)
    got = weights(tiny_model)
    np.testing.assert_array_equal(got.data, in_memory)
    assert (got.path, got.notice, list(tmp_path.iterdir())) == (None, None, [])


def test_the_folder_is_the_systems_place_for_caches_unless_it_is_given(monkeypatch):
    monkeypatch.setenv("NBLLM_CACHE", "~/mine")
    assert packed_cache.folder() == Path.home() / "mine"
    monkeypatch.delenv("NBLLM_CACHE")
    assert packed_cache.folder().parts[-2:] == ("nbllm", "packed")


def test_the_engine_needs_the_model_file_no_more(folder, tiny_model, tmp_path):
    path = shutil.copy(tiny_model, tmp_path / "copy.gguf")
    with nbllm.load(path) as model:
        expected = model.logits(IDS)
        os.truncate(path, 10)  # would end the process if the file were still mapped and looked at
        np.testing.assert_array_equal(model.logits(IDS), expected)
        assert "copy.gguf" not in Path("/proc/self/maps").read_text() if sys.platform == "linux" else True


# ---- the key


def test_the_same_content_has_the_same_key_whatever_its_name_and_time(tiny_model, tmp_path):
    copy = Path(shutil.copy(tiny_model, tmp_path / "other.gguf"))
    os.utime(copy, (1, 1))
    assert key(copy) == key(tiny_model)


def test_other_content_has_another_key(tmp_path, monkeypatch):
    path = write_llama(tmp_path / "a.gguf", layers=1)
    keys = {key(path)}
    raw = path.read_bytes()
    with open_model(path) as gguf:
        places = [(tensor.offset, tensor.nbytes) for tensor in gguf.tensors.values()]
    for offset, size in places:
        for at in (offset, offset + size - 1):
            path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
            keys.add(key(path))
    for change in ({"metadata": {"general.name": "other"}}, {"seed": 1}, {"layers": 2}, {"block_type": "Q4_1"}):
        keys.add(key(write_llama(tmp_path / "b.gguf", **{"layers": 1} | change)))
    path.write_bytes(raw)
    monkeypatch.setattr(packed, "LAYOUT", packed.LAYOUT + 1)
    keys.add(key(path))
    assert len(keys) == 1 + 2 * len(places) + 4 + 1


# ---- damage


@pytest.mark.parametrize("damage", [
    lambda raw: raw[:-1],
    lambda raw: raw + b"\0",
    lambda raw: raw[:100],
    lambda raw: b"",
    lambda raw: bytes(len(raw)),
    lambda raw: bytes(4096),
    lambda raw: b"[1]".ljust(4096) + raw[4096:],
    lambda raw: b"\xff" + raw[1:],
    lambda raw: raw.replace(b"nbllm packed", b"somebody's ", 1),
    lambda raw: raw.replace(b'"key": "', b'"key": "0', 1)[: len(raw)],
], ids=["cut", "longer", "no header", "empty", "zeros", "zeros only of a header", "a list", "not UTF-8", "foreign", "another key"])  # fmt: skip
def test_a_damaged_file_is_made_anew(folder, tiny_model, in_memory, damage):
    path = weights(tiny_model).path
    path.chmod(0o600)
    path.write_bytes(damage(path.read_bytes()))
    got = weights(tiny_model)
    np.testing.assert_array_equal(got.data, in_memory)
    assert (got.path, got.notice, names(folder)) == (path, None, [path.name])


def test_another_layout_is_not_taken_for_this_one(folder, tiny_model, monkeypatch):
    first = weights(tiny_model).path
    monkeypatch.setattr(packed, "LAYOUT", packed.LAYOUT + 1)
    assert weights(tiny_model).path != first
    assert len(names(folder)) == 2


def test_a_model_that_is_cut_short_while_it_is_packed_is_one_line_and_leaves_nothing(folder, tiny_model, tmp_path):
    path = shutil.copy(tiny_model, tmp_path / "m.gguf")
    with open_model(path) as gguf:
        packer, last = Packer(), list(gguf.tensors.values())[-1]
        model = architecture(gguf.metadata)(gguf, packer)
        assert model.layers
        os.truncate(path, last.offset + 1)
        with pytest.raises(ModelFileError, match="cut short"):
            finish(packed_cache.store(folder, "k" * 32, packer.size, "m", packer.pack()))
    assert names(folder) == []


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


def age(path, seconds=2 * packed_cache.YOUNG):
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


@pytest.mark.skipif(packed_cache.fcntl is None, reason="files are not locked here: the system refuses to delete them")
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
        data = finish(packed_cache.store(folder, "k" * 32, in_memory.size, "m", [in_memory]))
        np.testing.assert_array_equal(data, in_memory)
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


def in_memory_with_one_notice(model, in_memory, match):
    got = weights(model)
    np.testing.assert_array_equal(got.data, in_memory)
    assert got.path is None
    assert "\n" not in got.notice and match in got.notice and model.stem in got.notice


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
    finish(packed_cache.store(folder, key, piece.size, f"model {key}", [piece]))
    age(folder / f"{key}.packed", used)


def test_the_least_recently_used_goes_first(folder, monkeypatch):
    monkeypatch.setenv("NBLLM_CACHE_GB", "1e-4")  # 100 kB
    for key, used in (("a", 300), ("b", 400), ("c", 100)):
        fill(folder, key, 30_000, used)
    assert packed_cache.find(folder, "b", 30_000 - packed_cache.HEADER) is not None  # so b was used now
    fill(folder, "d", 35_000, 0)
    assert names(folder) == ["b.packed", "c.packed", "d.packed"]
    fill(folder, "e", 60_000, 0)
    assert names(folder) == ["d.packed", "e.packed"]


@pytest.mark.skipif(packed_cache.fcntl is None, reason="files are not locked here: the system refuses to delete them")
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


@pytest.mark.skipif(packed_cache.fcntl is None, reason="files are not locked here: the system refuses to delete them")
def test_the_command_says_what_is_in_use(folder, tiny_model, capsys):
    got = weights(tiny_model)
    assert cli.main(["cache", "clear"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(f"kept {tiny_model.stem}, ")
    assert got.path.exists()


def test_info_tells_where_the_packed_weights_are(folder, tiny_model, monkeypatch):
    from nbllm.chat.info import info

    with nbllm.load(tiny_model) as model:
        assert f"MB, mapped from {folder}" in info(model)
    monkeypatch.setenv("NBLLM_CACHE", "off")
    with nbllm.load(tiny_model) as model:
        assert "MB, in this process's own memory" in info(model)


# ---- memory


@pytest.mark.skipif(sys.platform != "linux", reason="what is private is told by Linux's /proc")
def test_a_loaded_model_has_no_copy_of_its_weights_in_private_memory(folder, tmp_path):
    model = write_llama(tmp_path / "m.gguf", width=256, feed_forward=1024, layers=4)
    for _ in range(2):
        with open_model(model) as gguf:
            engine = Engine(gguf, context=64, threads=1)
        assert np.isfinite(engine.logits(IDS)).all()
        fields = mapping_of(engine.weights.path)
        assert fields["Rss"] > 0 and fields["Private_Dirty"] == fields["Shared_Dirty"] == fields["Anonymous"] == 0
        assert fields["Size"] * 1024 >= engine.weights.data.nbytes > 1_000_000
        engine.close()
        del engine
        assert str(folder) not in Path("/proc/self/maps").read_text()


def mapping_of(path):
    """kB of each kind, of the one mapping of this file."""
    fields, found = {}, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            here = line.endswith(str(path))
            found += here
        elif here and line.endswith("kB"):
            fields[first.rstrip(":")] = int(line.split()[1])
    assert found == 1
    return fields
