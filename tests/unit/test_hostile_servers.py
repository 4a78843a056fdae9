"""Fetching from servers that mean no good, and onto disks that fail: one line, and no file lost or wrong."""

import itertools
import os
import sys
import threading
import urllib.request

import pytest
from file_server import saying, serve

from nbllm import catalogue
from nbllm.catalogue import connection, fetch
from nbllm.catalogue.fetch import Remote, fetching
from nbllm.errors import DownloadError, Stopped
from nbllm.runtime.events import StopFlag, finish

CONTENT = b"GGUF" + bytes(range(256)) * 12_000  # 3 MB, more than a piece


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    monkeypatch.setattr(fetch, "PAUSE", 0)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def server():
    with serve(CONTENT) as server:
        yield server


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setenv("NBLLM_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "models"


def head(*lines):
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def get(url, folder):
    return finish(fetching(Remote("m.gguf", f"{url}/m.gguf"), folder, lambda size: None, StopFlag()))


def refused(url, folder):
    """The one line in which fetching ends; nothing is put in place."""
    with pytest.raises(DownloadError) as error:
        get(url, folder)
    assert str(error.value).isprintable() and len(str(error.value)) < 500
    assert not (folder / "m.gguf").exists()
    return str(error.value)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of this kind are POSIX's")
def test_a_disk_that_fails_for_a_while_ends_in_one_line_and_the_next_attempt_goes_on(server, tmp_path):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    answer = server.answer

    def passing(handler):
        if server.requests:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        answer(handler)

    server.answer = passing
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_001, hard))
    try:
        said = refused(server.url, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert said.startswith(f"could not write m.gguf into {tmp_path}: File too large; make room, ")
    assert (tmp_path / ".m.gguf.part").read_bytes() == CONTENT[:1_000_001]
    assert get(server.url, tmp_path).read_bytes() == CONTENT


def test_a_part_that_was_cut_behind_our_back_is_not_put_in_place(server, tmp_path, monkeypatch):
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (fsync(file), os.truncate(tmp_path / ".m.gguf.part", 1000)))
    assert refused(server.url, tmp_path) == "m.gguf arrived damaged, its length is another; fetch it again"


def test_what_no_one_thought_of_is_one_line_and_loses_no_file(server, models, monkeypatch):
    (models / "m.gguf").parent.mkdir()
    (models / "m.gguf").write_bytes(b"mine")
    monkeypatch.setattr(fetch._Transfer, "_attempt", lambda transfer: [].pop())
    with pytest.raises(DownloadError, match="could not fetch m.gguf: pop from empty list; look whether the address"):
        catalogue.pull(f"{server.url}/m.gguf")
    assert (models / "m.gguf").read_bytes() == b"mine"


def test_a_system_without_a_thread_left_is_one_line(server, models, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(fetch._Transfer, "start", start)
    with pytest.raises(DownloadError, match="could not fetch .*: can't start new thread; "):
        catalogue.pull(f"{server.url}/m.gguf")


def test_nothing_leads_out_of_http(server, tmp_path):
    server.location = "ftp://127.0.0.1:9/m.gguf"
    assert refused(server.url, tmp_path) == f"{server.url}/m.gguf leads to ftp, not http: fetch it with a browser"
    for server.location in ("file:///etc/passwd", "data:,GGUF"):
        assert "is not allowed" in refused(server.url, tmp_path)


def test_a_redirect_without_end_is_one_line(server, tmp_path):
    server.location = f"{server.url}/m.gguf"
    assert "the server answered 302" in refused(server.url, tmp_path)


def test_a_part_of_another_file_is_not_joined_to_the_first(tmp_path):
    one, other = b"GGUF" + b"1" * 2000, b"GGUF" + b"2" * 2000
    begun = [head("HTTP/1.1 200 OK", "Content-Length: 2004", 'ETag: "1"'), one[:1000]]
    part = [head("HTTP/1.1 206 OK", "Content-Range: bytes 1000-2003/2004", 'ETag: "2"'), other[1000:]]
    with saying(begun, part, [head("HTTP/1.1 200 OK", "Content-Length: 2004", 'ETag: "2"'), other]) as url:
        assert get(url, tmp_path).read_bytes() == other


def test_no_more_is_written_than_the_server_said(tmp_path):
    answer = [head("HTTP/1.1 200 OK", "Content-Length: 1004", "Transfer-Encoding: chunked") + b"-1\r\n" + CONTENT]
    with saying(answer) as url:
        assert refused(url, tmp_path) == f"{url}/m.gguf sends more than it said; fetch it elsewhere"
    assert (tmp_path / ".m.gguf.part").stat().st_size == 0


@pytest.mark.parametrize("length", ["0", str(2**50 + 1), "9" * 400, "9" * 5000])
def test_a_length_that_no_file_has_is_refused(tmp_path, length):
    with saying([head("HTTP/1.1 200 OK", f"Content-Length: {length}")]) as url:
        assert "gives a length that no model has" in refused(url, tmp_path)


def test_what_a_server_says_cannot_steer_the_terminal_nor_fill_it(tmp_path):
    with saying([head("HTTP/1.1 404 \x1b[31mred" + "x" * 30_000)]) as url:
        assert r"404 \x1b[31mredxxx" in refused(url, tmp_path)


def test_a_server_that_never_comes_to_the_answer_is_left_when_stopped(tmp_path):
    flag, begun = StopFlag(), threading.Event()

    def answer():
        begun.set()
        yield from itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)

    with saying(answer()) as url:
        stopper = threading.Thread(target=lambda: begun.wait(60) and flag.set())
        stopper.start()
        with pytest.raises(Stopped):
            list(fetching(Remote("m.gguf", f"{url}/m.gguf"), tmp_path, lambda size: None, flag))
        stopper.join()
        for thread in threading.enumerate():
            if thread.name == "nbllm download":
                thread.join(60)
                assert not thread.is_alive()


def test_what_was_stopped_does_not_change_the_part_that_the_next_one_writes(server, tmp_path):
    part = tmp_path / ".m.gguf.part"
    stopped = fetch._Transfer(Remote("m.gguf", f"{server.url}/m.gguf"), part)
    stopped.cancel()
    part.write_bytes(b"GGUF of the next")
    with part.open("r+b") as file, pytest.raises(DownloadError):
        stopped._write(file, b"late")
    with pytest.raises(DownloadError):
        stopped._restart()
    assert part.read_bytes() == b"GGUF of the next"


def test_an_address_replaces_no_file_that_is_here(server, models):
    mine = models / catalogue.DEFAULT.file
    models.mkdir()
    mine.write_bytes(b"mine")
    with pytest.raises(DownloadError, match=f"is here already, with 4 bytes, .* has {len(CONTENT):,}: .*delete it"):
        catalogue.pull(f"{server.url}/{mine.name}")
    assert mine.read_bytes() == b"mine"


def test_an_address_that_was_pulled_is_not_fetched_again(server, models):
    path = catalogue.pull(f"{server.url}/m.gguf")
    seen, os_status = [], os.stat(path)
    assert catalogue.pull(f"{server.url}/m.gguf", lambda *step: seen.append(step)) == path
    assert seen == [(len(CONTENT), len(CONTENT))] and os.stat(path) == os_status
    assert os.listdir(models) == ["m.gguf"]


def test_what_of_an_address_lets_somebody_in_is_not_shown(server, models):
    steps = list(catalogue.pulling(f"{server.url}/m.gguf?token=sekret#sekret"))
    assert {step.name for step in steps} == {f"{server.url}/m.gguf"}
    assert server.requests[0][0] == "/m.gguf?token=sekret"
    server.content = b"<html>".ljust(len(CONTENT))
    with pytest.raises(DownloadError, match="is a web page") as error:
        catalogue.pull(f"{server.url}/n.gguf?token=sekret")
    assert "sekret" not in str(error.value)
    assert connection.shown("https://me:a@b@host/x@y.gguf?a=b") == "https://host/x@y.gguf"


@pytest.mark.parametrize(("to", "kept"), [
    ("https://host/b", True), ("http://host/b", False), ("https://other/b", False), ("https://host:8443/b", False),
])  # fmt: skip
def test_what_lets_somebody_in_is_sent_to_no_other_host_and_never_in_the_open(to, kept):
    asked = urllib.request.Request("https://host/a", headers={"Authorization": "Bearer x"})
    new = connection.Redirects().redirect_request(asked, None, 302, "Found", {}, to)
    assert (new.full_url, new.has_header("Authorization")) == (to, kept)
