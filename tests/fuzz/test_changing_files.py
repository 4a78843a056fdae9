"""A model file, or its packed form, that changes while it is loaded or used: one line, or no effect, never a signal."""

import os
import signal
import subprocess
import sys

import pytest
import tiny_gguf

import nbllm
from nbllm.errors import ModelFileError
from nbllm.jupyter.config import NbLLM
from nbllm.jupyter.session import Session
from nbllm.text import Text

PROGRAM = """
import os, subprocess, sys
import nbllm
from nbllm.errors import NbLLMError
from nbllm.formats import file
from nbllm.runtime import mapping, packed_cache

path, what, moment = sys.argv[1:]
if "no lease" in what:
    mapping.fcntl = None

def change():
    target = packed_cache.path(packed_cache.folder(), key[0]) if what.startswith("packed") else path
    if what.endswith("cut"):
        os.chmod(target, 0o600)
        os.truncate(target, 0)
    elif what.endswith("deleted"):
        os.unlink(target)
    elif what.endswith("replaced"):
        with open(target + ".new" if isinstance(target, str) else target.with_suffix(".new"), "wb") as new:
            new.write(b"GGUF" + bytes(5000))
        os.replace(new.name, target)

key = []
find = packed_cache.find
def noted(folder, name, size):
    key[:] = [name]
    return find(folder, name, size)
packed_cache.find = noted

if moment != "used":  # change it at the n-th reading of bytes
    reads, read = [], file.File.read
    def counted(self, start, stop):
        reads.append(start)
        if len(reads) == int(moment):
            change()
        return read(self, start, stop)
    file.File.read = counted
try:
    model = nbllm.load(path, threads=1)
    first = model.logits([1, 2, 3])
    if moment == "used":
        change()
    assert (model.logits([1, 2, 3]) == first).all()
    list(model.generate([1, 2, 3], max_tokens=3))
    print("the same")
except NbLLMError as error:
    print("told:", error)
"""


def outcome(tmp_path, what, moment):
    path = tiny_gguf.write_llama(tmp_path / "m.gguf", layers=1)
    environment = os.environ | {"NBLLM_CACHE": str(tmp_path / "packed"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(path), what, str(moment)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr + signal.strsignal(abs(ran.returncode))
    assert len(ran.stdout.splitlines()) == 1
    return ran.stdout.strip()


@pytest.mark.parametrize("moment", [1, 3, 9, "used"])
@pytest.mark.parametrize("what", ["cut", "deleted", "replaced"])
def test_a_model_file_that_changes_is_told_or_has_no_effect(tmp_path, what, moment):
    told = outcome(tmp_path, what, moment)
    if what == "cut" and moment != "used":
        assert "cut short" in told
    else:
        assert told == "the same"


@pytest.mark.parametrize("what", ["packed deleted", "packed replaced", "packed, no lease, cut"])
def test_packed_weights_that_are_deleted_or_replaced_or_not_mapped_and_cut_have_no_effect(tmp_path, what):
    if "cut" in what and sys.platform == "win32":
        pytest.skip("a mapped file cannot be cut there")
    assert outcome(tmp_path, what, "used") == "the same"


CHANGES = {
    "cut": "os.truncate(path, 0)",
    "written to": "open(path, 'r+b').write(bytes(10**5))",
    "written anew": "open(path, 'wb').write(bytes(10**5))",
}


@pytest.mark.skipif(sys.platform != "linux", reason="there are leases on Linux only")
@pytest.mark.parametrize("change", CHANGES)
def test_packed_weights_are_let_go_of_before_another_program_changes_them_within_a_reply(tmp_path, monkeypatch, change):
    monkeypatch.setenv("NBLLM_CACHE", str(tmp_path / "packed"))
    path = tiny_gguf.write_llama(tmp_path / "m.gguf", layers=1)
    with nbllm.load(path, threads=1) as model:
        packed = model.engine.weights.path
        program = f"import os; path = {str(packed)!r}; os.chmod(path, 0o600); {CHANGES[change]}"
        other = None
        with pytest.raises(ModelFileError, match="changed or cut short"):  # and no signal
            while True:  # until the other one has got so far
                for n, _ in enumerate(model.generate([1, 2, 3], seed=1, max_tokens=None)):
                    if n == 3 and other is None:
                        other = subprocess.Popen([sys.executable, "-c", program])
        assert not model.intact() and not packed.exists()
        with pytest.raises(ModelFileError, match="load the model again"):
            model.logits([1])
        with nbllm.load(path, threads=1) as again:  # while the other one still waits
            assert other.poll() is None
            expected = again.logits([1, 2, 3])
    assert other.wait() == 0  # as soon as the model is closed
    monkeypatch.setenv("NBLLM_CACHE", "off")
    with nbllm.load(path, threads=1) as model:
        assert (model.logits([1, 2, 3]) == expected).all()


@pytest.mark.skipif(sys.platform != "linux", reason="there are leases on Linux only")
def test_a_session_loads_again_what_another_program_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("NBLLM_CACHE", str(tmp_path / "packed"))
    session = Session(NbLLM(model=str(tiny_gguf.write_llama(tmp_path / "m.gguf", layers=1)), temperature=0))
    try:
        first = texts(session)
        packed = session.model.engine.weights.path
        program = f"import os; os.chmod({str(packed)!r}, 0o600); os.truncate({str(packed)!r}, 0)"
        other = subprocess.Popen([sys.executable, "-c", program])
        while session.model.intact():  # until the other one has got so far
            assert other.poll() is None
        assert texts(session) == first
        assert other.wait() == 0 and session.model.intact()
    finally:
        session.close()


def texts(session):
    events = session.submit(session.ask("hello", session.sampling(max_tokens=5), new=True)).wait()
    return [event for event in events if isinstance(event, Text)]


@pytest.mark.skipif(sys.platform == "win32", reason="a mapped file cannot be cut there")
def test_packed_weights_may_only_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("NBLLM_CACHE", str(tmp_path / "packed"))
    with nbllm.load(tiny_gguf.write_llama(tmp_path / "m.gguf", layers=1), threads=1) as model:
        assert model.engine.weights.path.stat().st_mode & 0o222 == 0


def test_a_model_file_that_is_cut_before_it_is_loaded_is_one_line(tmp_path):
    path = tiny_gguf.write_llama(tmp_path / "m.gguf", layers=1)
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(ModelFileError, match="m.gguf.*ends at byte"):
        nbllm.load(path)
