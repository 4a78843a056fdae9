"""Fetching a file from an address, whatever the connection and the server do. The server is on loopback."""

import hashlib
import os
import threading
import time

import pytest
from file_server import serve

from nbllm import catalogue
from nbllm.catalogue import fetch
from nbllm.catalogue.fetch import Remote, fetching
from nbllm.errors import DownloadError, ModelNotFoundError, Stopped, TooLargeError
from nbllm.runtime import memory as memory_module
from nbllm.runtime.events import StopFlag, finish

CONTENT = b"GGUF" + bytes(range(256)) * 12_000  # 3 MB, more than a piece
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetch, "PAUSE", 0)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with serve(CONTENT) as server:
        yield server


@pytest.fixture
def remote(server):
    """The file, as the catalogue would know it."""
    return Remote("m.gguf", f"{server.url}/m.gguf", len(CONTENT), SHA256)


@pytest.fixture
def unknown(server):
    """The file, of which nothing is known but where it is."""
    return Remote("m.gguf", f"{server.url}/m.gguf")


def get(remote, folder, check=lambda size: None):
    return finish(fetching(remote, folder, check, StopFlag()))


def refused(remote, folder, *parts):
    """Fetching ends in one line with these parts, and nothing is put in place."""
    with pytest.raises(DownloadError) as error:
        get(remote, folder)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)
    assert not (folder / "m.gguf").exists()


def test_a_file_arrives_whole_and_nothing_else_is_left(remote, unknown, tmp_path):
    for each in (remote, unknown):
        steps = fetching(each, tmp_path / "new", lambda size: None, StopFlag())
        seen = list(steps)
        assert (tmp_path / "new" / "m.gguf").read_bytes() == CONTENT
        assert os.listdir(tmp_path / "new") == ["m.gguf"]
        assert seen[-1] == (len(CONTENT), len(CONTENT)) and seen == sorted(seen)


@pytest.mark.parametrize("cuts", [[0], [1], [1_000_000, 1, 0, 0, 500_000, 0, 3]])
def test_a_connection_that_is_cut_goes_on_where_it_was(server, remote, unknown, tmp_path, cuts):
    for each in (remote, unknown):
        server.cut, server.requests = list(cuts), []
        assert get(each, tmp_path).read_bytes() == CONTENT
        begun, asked = 0, []
        for cut in cuts:
            asked.append(f"bytes={begun}-" if begun else None)
            begun += cut
        asked.append(f"bytes={begun}-" if begun else None)
        assert [headers.get("range") for _, headers in server.requests] == asked
        (tmp_path / "m.gguf").unlink()


def test_a_server_that_sends_no_parts_is_asked_for_the_whole_again(server, remote, unknown, tmp_path):
    server.ranges = False
    for each in (unknown, remote):
        server.cut = [2_000_000, 5]
        assert get(each, tmp_path).read_bytes() == CONTENT


def test_a_part_that_begins_elsewhere_is_not_taken(server, remote, tmp_path):
    server.cut, server.wrong = [2_000_000], 7
    assert get(remote, tmp_path).read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_fetched_anew(server, unknown, tmp_path):
    server.cut = [2_000_000]
    accept = fetch._Transfer._accept

    def change(self, response):
        size = accept(self, response)
        server.etag, server.content = '"2"', b"GGUF" + CONTENT[:3:-1]
        return size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch._Transfer, "_accept", change)
        path = get(unknown, tmp_path)
    assert path.read_bytes() == b"GGUF" + CONTENT[:3:-1]


def test_what_a_stopped_attempt_has_got_is_not_fetched_again(server, remote, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "TIMEOUT", 600)
    server.pause, flag = threading.Event(), StopFlag()
    steps = fetching(remote, tmp_path, lambda size: None, flag)
    while next(steps)[0] < 2_000_000:
        pass
    flag.set()
    with pytest.raises(Stopped, match="what is here is kept"):
        next(steps)
    for thread in threading.enumerate():
        if thread.name == "nbllm download":
            thread.join(20)
            assert not thread.is_alive()  # though the server says nothing more
    server.pause.set()
    assert os.listdir(tmp_path) == [".m.gguf.part"]
    here = (tmp_path / ".m.gguf.part").stat().st_size
    server.pause, server.requests = None, []
    assert get(remote, tmp_path).read_bytes() == CONTENT
    if here < len(CONTENT):
        assert [headers["range"] for _, headers in server.requests] == [f"bytes={here}-"]
    assert os.listdir(tmp_path) == ["m.gguf"]


@pytest.mark.parametrize("here", [1, 1_500_000, len(CONTENT) - 1, len(CONTENT)])
def test_a_part_of_an_earlier_process_is_gone_on_with(server, remote, tmp_path, here):
    (tmp_path / ".m.gguf.part").write_bytes(CONTENT[:here])
    assert get(remote, tmp_path).read_bytes() == CONTENT
    assert [headers.get("range") for _, headers in server.requests] == [f"bytes={here}-"] * (here < len(CONTENT))


def test_a_part_is_not_trusted_where_nothing_would_tell_what_it_is_of(server, remote, unknown, tmp_path):
    for each, here in ((unknown, b"other"), (remote, CONTENT + b"more")):
        (tmp_path / ".m.gguf.part").write_bytes(here)
        assert get(each, tmp_path).read_bytes() == CONTENT
        assert [headers.get("range") for _, headers in server.requests] == [None]
        server.requests.clear()


@pytest.mark.parametrize("length", [len(CONTENT) - 1, len(CONTENT) + 1, 10**15])
def test_a_length_that_is_not_the_files_is_refused_before_the_first_byte(server, remote, tmp_path, length):
    server.length = length
    refused(remote, tmp_path, f"offers {length:,} bytes", f"has {len(CONTENT):,}", "another file")
    assert (tmp_path / ".m.gguf.part").stat().st_size == 0


def test_of_a_server_that_sends_more_than_the_file_no_more_is_taken(server, remote, unknown, tmp_path):
    server.content = CONTENT + b"more"
    assert get(unknown, tmp_path).read_bytes() == CONTENT
    server.length = None
    (tmp_path / "m.gguf").unlink()
    assert get(remote, tmp_path).read_bytes() == CONTENT


def test_a_file_that_stays_shorter_than_it_was_said_is_given_up(server, unknown, tmp_path):
    server.length = len(CONTENT) + 5
    refused(unknown, tmp_path, "could not fetch m.gguf", f"{len(CONTENT):,} of {len(CONTENT) + 5:,} bytes came")


def test_without_a_length_there_is_no_telling_whether_it_fits(server, unknown, remote, tmp_path):
    server.length = None
    refused(unknown, tmp_path, "does not say how long")
    assert get(remote, tmp_path).read_bytes() == CONTENT  # here it is known from elsewhere


@pytest.mark.parametrize("place", [0, 1_500_000, len(CONTENT) - 1])
def test_a_byte_that_is_wrong_is_found_and_all_is_fetched_again_the_next_time(server, remote, tmp_path, place):
    server.content = CONTENT[:place] + bytes([CONTENT[place] ^ 1]) + CONTENT[place + 1 :]
    with pytest.raises(DownloadError, match="no model file" if place == 0 else "damaged, its checksum is another"):
        get(remote, tmp_path)
    assert not (tmp_path / "m.gguf").exists()
    server.content = CONTENT
    assert get(remote, tmp_path).read_bytes() == CONTENT


def test_a_page_is_told_from_a_model_by_its_first_bytes(server, unknown, tmp_path):
    server.content = b"\n<!DOCTYPE html><title>Please log in</title>" + bytes(10**6)
    server.length = len(server.content)
    refused(unknown, tmp_path, "a web page", ".gguf file itself")
    assert (tmp_path / ".m.gguf.part").stat().st_size == 0


def test_what_the_server_says_no_to_is_told_at_once_and_trouble_of_its_own_is_waited_for(server, remote, tmp_path):
    for status, said in ((404, "404 Not Found"), (401, "401 Unauthorized"), (403, "403 Forbidden")):
        server.status, server.requests = [status], []
        refused(remote, tmp_path, said)
        assert len(server.requests) == 1
    server.status = [503, 0, 500, 429]
    assert get(remote, tmp_path).read_bytes() == CONTENT
    (tmp_path / "m.gguf").unlink()
    server.status = [503] * fetch.ATTEMPTS
    refused(remote, tmp_path, "503")


def test_offline_is_told_at_once(tmp_path):
    begun = time.monotonic()
    refused(Remote("m.gguf", "http://127.0.0.1:9/m.gguf"), tmp_path, "could not fetch m.gguf", "refused", "when online")
    assert time.monotonic() - begun < 5


def test_the_check_comes_before_the_first_byte_and_may_refuse(server, remote, tmp_path):
    def check(size):
        asked.append((size, (tmp_path / ".m.gguf.part").stat().st_size))
        raise TooLargeError("no")
    asked = []
    with pytest.raises(TooLargeError):
        get(remote, tmp_path, check)
    assert asked == [(len(CONTENT), 0)]


def test_two_at_once_do_not_write_into_one_file(server, remote, tmp_path):
    server.pause = threading.Event()
    steps = fetching(remote, tmp_path, lambda size: None, StopFlag())
    next(steps)
    refused(remote, tmp_path, "is being fetched already")
    server.pause.set()
    assert finish(steps).read_bytes() == CONTENT


def test_a_token_is_for_the_host_that_it_was_given_for(server, remote, tmp_path):
    with serve(CONTENT) as other:
        server.location = f"{other.url}/elsewhere"
        get(Remote("m.gguf", f"{server.url}/m.gguf", headers={"Authorization": "Bearer x"}), tmp_path)
        assert [headers.get("authorization") for _, headers in server.requests + other.requests] == ["Bearer x", None]


def test_a_part_that_nobody_waits_for_any_more_is_removed(server, unknown, tmp_path):
    for name, age in ((".old.gguf.part", 8), (".new.gguf.part", 6), (".thesis.part", 8)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age * 24 * 3600,) * 2)
    get(unknown, tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".new.gguf.part", ".thesis.part", "m.gguf"]  # that is not ours


# ---- by way of `pull`


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setenv("NBLLM_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "models"


def test_an_address_is_pulled_under_its_files_name(server, models):
    seen = []
    path = catalogue.pull(f"{server.url}/a/My%20model.gguf?download=true", lambda *step: seen.append(step))
    assert path == models / "My model.gguf" and path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert catalogue.find("My model") == path


def test_the_hubs_page_about_a_file_leads_to_the_file(server, models):
    catalogue.pull(f"{server.url}/owner/repo/blob/main/x.gguf")
    assert server.requests[0][0] == "/owner/repo/resolve/main/x.gguf"


def test_no_name_of_an_address_leaves_the_models_folder(server, models):
    for path in ("/..%2f..%2fevil.gguf", "/a/%2e%2e/evil.gguf", "/..evil.gguf"):
        assert catalogue.pull(server.url + path) == models / "evil.gguf"


@pytest.mark.parametrize(("address", "said"), [
    ("/folder/", "does not end in a file's name"),
    ("/a b\n.gguf", "control characters"),
    ("/a b.gguf?token=sekret", "control characters"),
    ("/a%00b.gguf?token=sekret", "control characters"),
    ("/a%0Ab%1b[31m.gguf", "control characters"),
    ("/\ud800.gguf", "control characters"),
    ("/\ud800/a.gguf?token=sekret", "could not fetch a.gguf"),
    ("[::1/x.gguf", "is no address"),
    ("me:sekret@127.0.0.1/x.gguf", "http://127.0.0.1/x.gguf has a password in it"),
])  # fmt: skip
def test_what_is_no_address_of_a_file_is_one_line(server, models, address, said):
    with pytest.raises(DownloadError, match=said) as error:
        catalogue.pull(server.url + address if address.startswith("/") else f"http://{address}")
    assert str(error.value).isprintable() and server.requests == [] and "sekret" not in str(error.value)


def test_too_little_memory_or_disk_is_told_before_the_first_byte(server, models, monkeypatch):
    usage = type("Usage", (), {"free": 2_000_000})
    monkeypatch.setattr(catalogue.pull.__globals__["shutil"], "disk_usage", lambda path: usage)
    with pytest.raises(DownloadError, match=r"3 MB are needed to fetch .* and 2 MB are free in .*NBLLM_MODELS"):
        catalogue.pull(f"{server.url}/m.gguf")
    small = memory_module.Memory(257 * 10**6, 10**6)
    monkeypatch.setitem(catalogue.pull.__globals__, "memory", lambda: small)
    with pytest.raises(TooLargeError, match=r"needs 0.3 GB of memory and this machine has 0.3 GB: `nbllm models`"):
        catalogue.pull(f"{server.url}/m.gguf")
    assert (models / ".m.gguf.part").stat().st_size == 0
    server.requests.clear()
    with pytest.raises(TooLargeError, match=r"llama3.2-3b needs 2.6 GB of memory and this machine has 0.3 GB"):
        catalogue.pull("llama3.2-3b")
    assert server.requests == []


def test_a_file_that_is_here_is_pulled_without_the_network(models, tmp_path):
    (tmp_path / "mine.gguf").write_bytes(CONTENT)
    assert catalogue.pull(str(tmp_path / "mine.gguf")) == tmp_path / "mine.gguf"
    with pytest.raises(ModelNotFoundError, match="no model './no.gguf' is known"):
        catalogue.pull("./no.gguf")


def test_a_session_fetches_the_model_that_it_is_asked_to_change_to(server, models, tiny_model):
    from nbllm.jupyter.config import NbLLM
    from nbllm.jupyter.session import Session

    server.content = tiny_model.read_bytes()
    server.length = len(server.content)
    session = Session(NbLLM(max_tokens=1))
    try:
        handle = session.submit(session.switch(f"{server.url}/new.gguf"))
        handle.wait()
        assert [(event.done, event.total) for event in handle.events if isinstance(event, catalogue.Pulling)][-1] == (
            len(server.content), len(server.content),
        )  # fmt: skip
        assert session.model.path == models / "new.gguf" and session.config.model == str(models / "new.gguf")
        server.status = [404]
        with pytest.raises(DownloadError):
            session.submit(session.switch(f"{server.url}/other.gguf")).wait()
        assert session.config.model == str(models / "new.gguf") and not session.model.closed
    finally:
        session.close()


def test_a_model_that_nbllm_does_not_run_is_not_fetched(models, monkeypatch):
    monkeypatch.setattr(catalogue.KnownModel, "runs", property(lambda model: model.architecture == "llama"))
    name = next(model.name for model in catalogue.KNOWN if not model.runs)
    with pytest.raises(DownloadError, match=f"does not run {name} yet"):
        catalogue.pull(name)
