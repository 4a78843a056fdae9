"""The cache of packed weights: found by content, whole or not at all, and the same logits with and without it."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from packed_folder import folder, in_memory, names, weights  # noqa: F401
from tiny_gguf import write_llama

import nbllm
from nbllm.errors import ModelFileError, Stopped
from nbllm.formats.open import open_model
from nbllm.runtime import mapping, packed, packed_cache
from nbllm.runtime.engine import Engine
from nbllm.runtime.events import Reading, StopFlag, finish
from nbllm.runtime.models import architecture
from nbllm.runtime.packed import Packer
from nbllm.runtime.weights import content_key, packing

IDS = [5, 200, 17, 299, 40, 3]


def key(model):
    with open_model(model) as gguf:
        packer = Packer()
        architecture(gguf.metadata)(gguf, packer)
        return content_key(gguf, packer)


def is_mapped(data):
    while isinstance(data, np.ndarray):
        data = data.base
    return data is not None and type(data).__name__ in ("mmap", "memoryview")


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


@pytest.fixture
def no_lease(monkeypatch):
    """The system says nothing when another program changes a file."""
    if sys.platform == "win32":
        pytest.skip("a mapped file cannot be cut there, so it needs no lease")
    monkeypatch.setattr(mapping, "fcntl", None)


def test_where_nobody_says_who_changes_a_file_it_is_read(folder, tiny_model, in_memory, no_lease, monkeypatch):
    made = weights(tiny_model)
    monkeypatch.setattr(Packer, "pack", lambda self: pytest.fail("packed again"))
    monkeypatch.setattr(packed_cache, "SYNC", 10_000)
    with open_model(tiny_model) as gguf:
        steps = list(packing(gguf))
    assert steps[-1] == Reading(in_memory.size, in_memory.size) and {type(step) for step in steps} == {Reading}
    for got in (made, weights(tiny_model)):
        np.testing.assert_array_equal(got.data, in_memory)
        assert (got.path, got.notice, got.intact()) == (None, None, True)
    assert len(names(folder)) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="there are leases on Linux only")
def test_one_that_another_program_may_write_to_is_read(folder, tiny_model, in_memory):
    path = weights(tiny_model).path
    path.chmod(0o600)
    with path.open("r+b"):
        got = weights(tiny_model)
    np.testing.assert_array_equal(got.data, in_memory)
    assert (got.path, weights(tiny_model).path) == (None, path)


def test_reading_it_can_be_stopped(folder, tiny_model, no_lease, monkeypatch):
    weights(tiny_model)
    reads, pieces, stop = [], packed_cache.pieces, StopFlag()

    def slow(file, size):
        for piece in pieces(file, size):
            reads.append(piece.size)
            stop.set()
            yield piece

    monkeypatch.setattr(packed_cache, "SYNC", 10_000)
    monkeypatch.setattr(packed_cache, "pieces", slow)
    with open_model(tiny_model) as gguf, pytest.raises(Stopped):
        list(packing(gguf, stop))
    assert reads == [10_000] and len(names(folder)) == 1


def test_one_that_is_cut_while_it_is_read_is_laid_out_in_memory(folder, tiny_model, in_memory, no_lease, monkeypatch):
    weights(tiny_model)
    path, pieces = folder / names(folder)[0], packed_cache.pieces

    def cut(file, size):
        path.chmod(0o600)
        os.truncate(path, packed_cache.HEADER + 10)
        return pieces(file, size)

    monkeypatch.setattr(packed_cache, "pieces", cut)
    got = weights(tiny_model)
    np.testing.assert_array_equal(got.data, in_memory)
    assert got.path is None and "it was cut short" in got.notice


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


def test_info_tells_where_the_packed_weights_are(folder, tiny_model, monkeypatch):
    from nbllm.chat.info import info

    with nbllm.load(tiny_model) as model:
        assert f"MB, mapped from {folder}" in info(model)
    monkeypatch.setenv("NBLLM_CACHE", "off")
    with nbllm.load(tiny_model) as model:
        assert "MB, in this process's own memory" in info(model)


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
    lambda raw: b"[" * 4096 + raw[4096:],
    lambda raw: raw[:4096].replace(b'"model": "', b'"model": [ "').replace(b'"}', b'"]}')[:4096] + raw[4096:],
    lambda raw: b"\xff" + raw[1:],
    lambda raw: raw.replace(b"nbllm packed", b"somebody's ", 1),
    lambda raw: raw.replace(b'"key": "', b'"key": "0', 1)[: len(raw)],
], ids=["cut", "longer", "no header", "empty", "zeros", "zeros only of a header", "a list", "lists in lists",
"a model that is no name", "not UTF-8", "foreign", "another key"])  # fmt: skip
def test_a_damaged_file_is_made_anew(folder, tiny_model, in_memory, damage):
    path = weights(tiny_model).path
    path.chmod(0o600)
    path.write_bytes(damage(path.read_bytes()))
    assert {entry.model for entry in packed_cache.entries(folder)} <= {None, tiny_model.stem}
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
