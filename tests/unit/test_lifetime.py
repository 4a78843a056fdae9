"""What a process has is given back, and other processes and a full disk do no harm.
NBLLM_ROUNDS makes the first test longer."""

import errno
import gc
import multiprocessing
import os
import resource
import sys
import threading
import weakref
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import processes
import psutil
import pytest
from file_server import serve

import nbllm
from nbllm.catalogue import fetch
from nbllm.catalogue.fetch import Remote, fetching
from nbllm.chat import grammar, saved
from nbllm.chat.transcript import Transcript
from nbllm.errors import ConversationFileError, DownloadError, NbLLMError, OptionError
from nbllm.model import loading
from nbllm.runtime.events import StopFlag, finish

# Python 3.12 warns of a fork of a process with threads, which is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
ROUNDS = int(os.environ.get("NBLLM_ROUNDS", "20"))
GROWTH = 8 << 20  # bytes; one model that stayed would have as much in a few rounds
NO_FORK = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def state():
    gc.collect()
    process = psutil.Process()
    return process.memory_info().rss, process.num_fds() if hasattr(process, "num_fds") else 0, threading.active_count()


@pytest.mark.parametrize("which", ["tiny_model", "default_model"])
def test_loading_chatting_and_closing_again_and_again_leaves_nothing(request, which):
    path = request.getfixturevalue(which)

    def once():
        with nbllm.load(path) as model:
            nbllm.Chat(model, max_tokens=4)("hello the moon")

    for _ in range(5):
        once()
    before = state()
    for _ in range(ROUNDS):
        once()
    after = state()
    assert after[1:] == before[1:]
    assert after[0] - before[0] < GROWTH


def test_what_belongs_to_a_closed_model_ends_at_once_and_not_when_python_looks_for_circles(tiny_model):
    gc.collect()
    gc.disable()
    try:
        with nbllm.load(tiny_model, threads=1) as model:
            nbllm.Chat(model)("hello", max_tokens=4, schema={"enum": [1, 2]})
            ended = [weakref.ref(each) for each in (model, model.tokenizer, grammar._vocabulary(model.tokenizer))]
        del model
        assert [each() for each in ended] == [None, None, None]
    finally:
        gc.enable()


def test_a_model_that_another_cannot_replace_is_still_there(tiny_model):
    with nbllm.load(tiny_model, threads=1) as model:
        with pytest.raises(OptionError, match="threads"):
            finish(loading(tiny_model, threads=0, replaces=model))
        assert not model.closed


@pytest.mark.parametrize("method", ["spawn", pytest.param("fork", marks=NO_FORK)])
def test_another_process_loads_and_answers_the_same(tiny_model, method):
    with nbllm.load(tiny_model, threads=2) as model:
        expected = model.logits([1, 2, 3]).tobytes()
        with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
            threads = None if method == "fork" else 2
            assert pool.submit(processes.logits, tiny_model, threads, [1, 2, 3]).result() == expected
        assert model.logits([1, 2, 3]).tobytes() == expected


def in_fork(function):
    """What the function returns, as text, in a fork of this process."""
    reads, writes = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writes, str(function()).encode())
        finally:
            os._exit(0)
    os.close(writes)
    with open(reads, "rb") as pipe:
        told = pipe.read().decode()
    assert os.waitpid(child, 0)[1] == 0
    return told


def told(function):
    try:
        return function()
    except NbLLMError as error:
        return f"{type(error).__name__}: {error}"


@NO_FORK
def test_a_model_of_many_threads_says_in_a_fork_that_they_are_not_there(tiny_model):
    with nbllm.load(tiny_model, threads=2) as model:
        model.logits([1, 2, 3])
        for use in (lambda: model.logits([1]), lambda: list(model.generate([1])), lambda: model.batch()):
            assert "loaded before this process was forked" in in_fork(lambda use=use: told(use))
        again = in_fork(lambda: told(lambda: nbllm.load(tiny_model, threads=2)))
        assert again.startswith(OptionError.__name__) and "spawn" in again


@NO_FORK
def test_what_was_begun_before_a_fork_says_there_that_it_cannot_go_on(tiny_model):
    with nbllm.load(tiny_model, threads=2) as model:
        events, chat, stop = model.generate("hello", max_tokens=3), nbllm.Chat(model, seed=1, max_tokens=3), StopFlag()
        rows = nbllm.Map(["a", "b"], model, seed=1, max_tokens=3)
        steps = rows.steps(chat, stop)
        next(events), next(steps)
        for use in (lambda: list(events), lambda: list(steps)):
            assert "loaded before this process was forked" in in_fork(lambda use=use: told(use))
        assert in_fork(model.close) == "None"
        list(steps)
        assert list(events)[-1].stats.generated_tokens == 3 and None not in rows.replies


@NO_FORK
def test_a_model_of_one_thread_goes_on_in_a_fork(tiny_model):
    with nbllm.load(tiny_model, threads=1) as model:
        expected = model.logits([1, 2, 3]).sum()
        assert in_fork(lambda: model.logits([1, 2, 3]).sum()) == str(expected)


# ---- a full disk


@contextmanager
def full_disk(size):
    """Within, files may have so many bytes; what is beyond is an OSError, as of a disk that is full.

    Only around what is tested: pytest writes its own report, also to a file.
    """
    if sys.platform == "win32":
        pytest.skip("this system has no limit of a file's size")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_saving_to_a_full_disk_is_one_line_and_keeps_what_was_there(tmp_path):
    path = tmp_path / "talk.jsonl"
    saved.save(Transcript(None, []), path)
    before = path.read_bytes()
    with full_disk(4096), pytest.raises(ConversationFileError, match="cannot be written") as error:
        saved.save(Transcript("x" * 100_000, []), path)
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == ["talk.jsonl"] and path.read_bytes() == before


def test_packing_to_a_full_disk_leaves_nothing_there_and_the_model_works(tiny_model, tmp_path, monkeypatch):
    with nbllm.load(tiny_model, threads=1) as model:
        expected = model.logits([1, 2, 3])
    monkeypatch.setenv("NBLLM_CACHE", str(tmp_path / "packed"))
    with full_disk(20_000), nbllm.load(tiny_model, threads=1) as model:
        assert (model.logits([1, 2, 3]) == expected).all() and "laid out in memory" in model.notice
    assert os.listdir(tmp_path / "packed") == []


def test_a_download_to_a_full_disk_is_one_line_and_no_file_has_the_models_name(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "PAUSE", 0)
    content = b"GGUF" + bytes(3_000_000)
    with serve(content) as server:
        with full_disk(1_000_000), pytest.raises(DownloadError, match="m.gguf") as error:
            finish(fetching(Remote("m.gguf", f"{server.url}/m.gguf"), tmp_path, lambda size: None, StopFlag()))
    assert "\n" not in str(error.value) and os.strerror(errno.EFBIG) in str(error.value)
    assert "m.gguf" not in os.listdir(tmp_path)
