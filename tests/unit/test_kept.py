"""Kept caches: the conversation goes on bit for bit, nothing is read again,
and no file does more than be left unused."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest

import nbllm
from nbllm.chat import kept
from nbllm.chat.conversation import Notice
from nbllm.errors import ConversationFileError, Stopped
from nbllm.runtime.events import StopFlag
from tiny_gguf import write_llama

LONG = "the moon and hello world " * 40


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("models") / "tiny.gguf", context=1024)


def chat(model):
    return nbllm.Chat(model, seed=3, max_tokens=20)


@pytest.fixture(scope="module")
def talk(path, tmp_path_factory):
    """The path of a conversation of two turns with its cache, and what followed when it went on."""
    saved = tmp_path_factory.mktemp("saved") / "talk.jsonl"
    with nbllm.load(path) as model:
        one = chat(model)
        one(LONG)
        one("and then <|im_end|>?")
        one.save(saved, cache=True)
        return saved, one("goodbye", alternatives=3)


def copy(talk, folder, change=lambda data: data):
    new = folder / "talk.jsonl"
    shutil.copy(talk[0], new)
    kept.beside(new).write_bytes(change(kept.beside(talk[0]).read_bytes()))
    return new


@pytest.mark.parametrize("bits", [32, 16, 8])
def test_after_loading_the_reply_is_bit_for_bit_the_same_and_nothing_is_read_again(path, tmp_path, bits):
    with nbllm.load(path, cache_bits=bits) as model:
        one = chat(model)
        one(LONG)
        one("and then?")
        one.save(tmp_path / "talk.jsonl", cache=True)
        cached = list(model.engine.tokens)
        expected = one("goodbye", alternatives=3)
    with nbllm.load(path, cache_bits=bits) as model:
        other = chat(model)
        other("something else")  # which the cache must not keep
        other.load(tmp_path / "talk.jsonl")
        assert model.engine.tokens == cached and len(cached) > 300
        reply = other("goodbye", alternatives=3)
    assert reply.tokens == expected.tokens and reply.text == expected.text  # with their probabilities, to the last bit
    assert reply.stats.reused_tokens == expected.stats.reused_tokens == len(cached)


def test_the_file_holds_nothing_of_other_conversations(path, tmp_path):
    files = []
    for before in (None, "a secret " * 60):
        with nbllm.load(path) as model:
            one = chat(model)
            if before:
                one(before)
                one.new()
            one("x")
            one.save(tmp_path / "talk.jsonl", cache=True)
            files.append(kept.beside(tmp_path / "talk.jsonl").read_bytes())
    assert files[0] == files[1]
    assert sorted(os.listdir(tmp_path)) == ["talk.jsonl", "talk.jsonl.cache"]


def test_a_turn_that_is_taken_back_after_loading_still_finds_its_beginning(path, talk):
    with nbllm.load(path) as model:
        one = chat(model)
        one.load(talk[0])
        one.undo()
        assert one("and then what?").stats.reused_tokens > 250


def header(data, **changes):
    made = json.loads(data[: kept.HEADER]) | changes
    return json.dumps(made).encode().ljust(kept.HEADER - 1) + b"\n" + data[kept.HEADER :]


def rehashed(data, **changes):
    return header(data, sha256=hashlib.sha256(data[kept.HEADER :]).hexdigest(), **changes)


def other(data, **changes):
    return header(data, made=json.loads(data[: kept.HEADER])["made"] | changes)


def with_nan(data):
    return rehashed(data[:-2] + np.array([0x7E00], "<u2").tobytes())


def with_id(data):
    at = kept.HEADER + json.loads(data[: kept.HEADER])["text"]
    return rehashed(data[:at] + np.array([10**9], "<i4").tobytes() + data[at + 4 :])


UNFIT = {  # what is wrong: the change, and what is said
    "empty": (lambda data: b"", "not that of a kept cache"),
    "another file": (lambda data: os.urandom(5000), "not that of a kept cache"),
    "nested": (lambda data: b"[" * 9000, "not that of a kept cache"),
    "a list": (lambda data: b"[1]".ljust(5000), "not that of a kept cache"),
    "a later version": (lambda data: header(data, version=2), "of version 2, not 1"),
    "another model": (lambda data: other(data, fingerprint="0" * 16), "made with another model"),
    "other bits": (lambda data: other(data, bits=8), "made with another cache_bits"),
    "another version of nbllm": (lambda data: other(data, nbllm="0.0.0"), "made with another version of nbllm"),
    "other facts": (lambda data: header(data, made={"a": 1}), "made with another layout"),
    "no facts": (lambda data: header(data, made=[]), "made with another layout"),
    "cut": (lambda data: data[:-1], "contradict each other"),
    "longer": (lambda data: data + b"x", "contradict each other"),
    "cut in its header": (lambda data: data[:100], "not that of a kept cache"),
    "no number": (lambda data: header(data, ids="9"), "lacks a number"),
    "a negative number": (lambda data: header(data, text=-1), "lacks a number"),
    "a huge number": (lambda data: header(data, ids=10**30, bytes=10**31), "contradict each other"),
    "no tokens": (lambda data: header(data, cached=0), "contradict each other"),
    "another byte": (lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "its hash is not"),
    "not a number": (with_nan, "a number in it is none"),
    "an id that is none": (with_id, "a number in it is none"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_a_cache_that_does_not_fit_is_left_unused_and_that_is_said(name, path, talk, tmp_path, capsys):
    change, why = UNFIT[name]
    with nbllm.load(path) as model:
        one = chat(model)
        one.load(copy(talk, tmp_path, change))
        told = capsys.readouterr().err.strip().split("\n")[-1]
        assert told.startswith("nbllm: The conversation will be read again; its cache is not used: ") and why in told
        reply = one("goodbye")
        assert reply.finish_reason in ("length", "end") and reply.stats.reused_tokens == 0


def test_more_ids_than_any_conversation_has_are_not_read(path, talk, tmp_path, capsys, monkeypatch):
    written = json.loads(kept.beside(talk[0]).read_bytes()[: kept.HEADER])
    monkeypatch.setattr(kept, "LARGEST", 4 * written["ids"] - 1)
    assert written["text"] < kept.LARGEST
    with nbllm.load(path) as model:
        chat(model).load(copy(talk, tmp_path))
    assert "contradict each other" in capsys.readouterr().err


def test_no_cut_and_no_changed_byte_is_more_than_a_notice(path, talk, tmp_path):
    whole = kept.beside(talk[0]).read_bytes()
    places = [*range(0, 1200, 40), *range(1200, len(whole), len(whole) // 50)]
    with nbllm.load(path) as model:
        one = chat(model)
        for at in places:
            for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :]):
                new = copy(talk, tmp_path, lambda _, data=data: data)
                last = list(one.recall(new, StopFlag()))[-1]
                assert isinstance(last, Notice) and model.engine.tokens == [] or last.done == last.total
        one.load(talk[0])
        assert one("goodbye", alternatives=3).tokens == talk[1].tokens


def test_without_a_cache_nothing_is_said(path, talk, tmp_path, capsys):
    new = copy(talk, tmp_path)
    kept.beside(new).unlink()
    with nbllm.load(path) as model:
        capsys.readouterr()
        chat(model).load(new)
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(os.name == "nt", reason="on Windows, links need rights")
def test_a_link_that_leads_nowhere_is_not_replaced(path, tmp_path):
    link = kept.beside(tmp_path / "talk.jsonl")
    link.symlink_to("nowhere")
    with nbllm.load(path) as model:
        one = chat(model)
        one("x")
        with pytest.raises(ConversationFileError, match="is there and is no kept cache"):
            one.save(tmp_path / "talk.jsonl", cache=True)
    assert link.is_symlink()


def test_beside_a_name_that_leaves_no_room_for_another_there_is_no_cache(path, tmp_path, talk):
    long = tmp_path / ("x" * 252)
    shutil.copy(talk[0], long)
    with nbllm.load(path) as model:
        one = chat(model)
        one.load(long)
        assert len(one.messages) == 4
        one.save(long)
        one("And now?")
        with pytest.raises(ConversationFileError, match="cannot be written"):
            one.save(long, cache=True)


def test_what_cannot_be_kept_is_one_line_and_leaves_nothing(path, talk, tmp_path, monkeypatch):
    with nbllm.load(path) as model:
        one = chat(model)
        with pytest.raises(ConversationFileError, match="the model has read nothing of this conversation"):
            one.save(tmp_path / "talk.jsonl", cache=True)
        one("x")
        kept.beside(tmp_path / "talk.jsonl").write_bytes(b"mine")
        with pytest.raises(ConversationFileError, match="is there and is no kept cache"):
            one.save(tmp_path / "talk.jsonl", cache=True)
        kept.beside(tmp_path / "talk.jsonl").unlink()
        with monkeypatch.context() as patch:
            patch.setattr(kept.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1))
            with pytest.raises(ConversationFileError, match="it takes 0 MB, and 0 MB are free on the disk"):
                one.save(tmp_path / "talk.jsonl", cache=True)
        flag = StopFlag()
        flag.set()
        with pytest.raises(Stopped, match="its cache is not"):
            list(one.keep(tmp_path / "talk.jsonl", flag))
        with monkeypatch.context() as patch:
            patch.setattr(kept.os, "fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(ConversationFileError, match="cannot be written: No space left on device"):
                one.save(tmp_path / "talk.jsonl", cache=True)
        assert model.engine.cache.free == model.engine.cache.pages - len(model.engine.sequence.pages)
    assert os.listdir(tmp_path) == ["talk.jsonl"]
