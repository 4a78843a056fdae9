"""What a model takes in memory, what there is, and that no more is taken; that a model is gone when another comes."""

import errno
import os
import subprocess
import sys

import numpy as np
import psutil
import pytest
from tiny_gguf import write_llama

import nbllm
from nbllm import model as model_module
from nbllm.chat.conversation import Notice
from nbllm.errors import NbLLMError, OptionError, TooLargeError
from nbllm.formats.open import open_model
from nbllm.runtime import cgroups
from nbllm.runtime.engine import Engine
from nbllm.runtime.estimate import LEAST_CONTEXT, RESERVE, Shape, fit, shape
from nbllm.runtime.memory import Memory, memory

GB = 10**9
SEVEN = Shape(32, 8, 128, 32, 4096, 14336, 32768)  # Mistral 7B's


# ---- what there is


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A root with files of control groups, on a machine of 16 GB of which 8 are free."""
    def root(files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    machine = type("Machine", (), {"total": 16 * GB, "available": 8 * GB})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    return root


def test_without_control_groups_it_is_the_machines(root):
    assert memory() == Memory(16 * GB, 8 * GB)


def test_a_group_allows_what_it_has_left_and_files_in_memory_do_not_count(root):
    stat = f"anon {GB}\nactive_file {GB // 2}\ninactive_file {GB // 4}\n"
    root({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": f"{4 * GB}\n",
          "sys/fs/cgroup/a/memory.current": f"{3 * GB}\n", "sys/fs/cgroup/a/memory.stat": stat,
          "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/b/memory.current": f"{3 * GB}\n"})  # fmt: skip
    assert memory() == Memory(4 * GB, GB + GB // 2 + GB // 4)


def test_the_first_version_of_control_groups_is_read_too(root):
    stat = "active_file 1\ntotal_active_file 1000\ntotal_inactive_file 500\n"
    group = "sys/fs/cgroup/memory"
    root({"proc/self/cgroup": "4:memory:/elsewhere/x\n2:cpu,cpuacct:/y\n",
          f"{group}/memory.limit_in_bytes": "2000000000\n",
          f"{group}/memory.usage_in_bytes": "1500000000\n", f"{group}/memory.stat": stat})  # fmt: skip
    assert memory() == Memory(2 * GB, GB // 2 + 1500)
    root({f"{group}/memory.limit_in_bytes": "9223372036854771712\n"})  # none
    assert memory() == Memory(16 * GB, 8 * GB)


def test_a_group_that_has_taken_more_than_it_may_has_nothing_left(root):
    root({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1000\n", "sys/fs/cgroup/memory.current": "2000\n",
          "sys/fs/cgroup/memory.stat": "\n"})  # fmt: skip
    assert memory() == Memory(1000, 0)


def test_a_process_without_descriptors_is_told_so(monkeypatch):
    def machine():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/proc/meminfo")

    monkeypatch.setattr(psutil, "virtual_memory", machine)
    with pytest.raises(NbLLMError, match=f"{os.strerror(errno.EMFILE)}.*close some") as error:
        memory()
    assert "\n" not in str(error.value)


LIMITED = """
import resource, sys
import numpy as np, psutil
import nbllm
from nbllm.errors import TooLargeError
from nbllm.runtime.arrays import zeros
from nbllm.runtime.memory import memory

before = memory()
limit = psutil.Process().memory_info().vms + (400 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
now = memory()
assert now.total == min(before.total, limit) and 300 << 20 < now.free <= 400 << 20, (before, now)
for size in (500 << 20, 1 << 50):
    try:
        zeros(size, np.uint8)
    except TooLargeError as error:
        print(error)
model = nbllm.load(sys.argv[1], threads=1)
print(model.context, model.notice)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not hold to such limits")
def test_a_limit_of_the_process_counts_and_what_it_does_not_give_is_one_line(tmp_path):
    model = write_llama(tmp_path / "m.gguf", layers=8, kv_heads=4, context=1 << 20)
    ran = subprocess.run([sys.executable, "-c", LIMITED, model], capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    first, second, loaded = ran.stdout.splitlines()
    assert "has not the 0.5 GB of memory that are needed now" in first and "GB of memory" in second
    assert int(loaded.split()[0]) < 1 << 20 and "instead of the model's" in loaded


# ---- what is needed


@pytest.mark.parametrize("bits", [32, 16, 8])
@pytest.mark.parametrize("context", [100, 128, 1000])
@pytest.mark.parametrize("options", [
    {}, {"width": 256, "heads": 8, "kv_heads": 8, "layers": 3}, {"head_dim": 32, "tied": False},
])  # fmt: skip
def test_the_estimate_is_what_the_engine_takes(tmp_path, monkeypatch, options, context, bits):
    monkeypatch.setenv("NBLLM_CACHE", "off")
    with open_model(write_llama(tmp_path / "m.gguf", context=1000, **options)) as gguf:
        model, engine = shape(gguf.metadata), Engine(gguf, context, 1, cache_bits=bits)
        weights = sum(tensor.nbytes for tensor in gguf.tensors.values())
    assert model.cache(context, bits) == engine.memory["cache"]
    taken = engine.memory["activations"]
    assert taken * 0.95 < model.activations(context) < taken * 1.15
    assert weights <= engine.memory["weights"] * 1.03


def test_the_estimate_is_what_the_default_model_takes(default_model):
    with nbllm.load(default_model, threads=1) as model:
        expected = shape(model.metadata)
        assert expected.cache(model.context) == model.engine.memory["cache"]
        assert 1 < expected.activations(model.context) / model.engine.memory["activations"] < 1.05


@pytest.mark.parametrize("metadata", [
    {},
    {"general.architecture": "llama"},
    {"general.architecture": "llama", "llama.block_count": "two", "llama.embedding_length": -1},
    {"general.architecture": ["x"], "llama.block_count": float("nan")},
    {"general.architecture": "m", "m.block_count": np.array([]), "m.embedding_length": 64, "m.attention.head_count": 4},
    {"general.architecture": "m", "m.block_count": 2, "m.embedding_length": 1 << 40, "m.attention.head_count": 4},
])  # fmt: skip
def test_a_file_that_does_not_say_enough_has_no_shape(metadata):
    assert shape(metadata) is None
    assert fit("m", metadata, 1000, GB) == (None, None)
    with pytest.raises(TooLargeError, match="m needs 1.3 GB of memory and 1.0 GB are free"):
        fit("m", metadata, GB, GB)


def test_the_longest_context_is_the_longest_that_fits():
    for free in range(5 * GB, 9 * GB, GB // 3):
        found = SEVEN.context(4 * GB, free, 32768)
        assert SEVEN.needs(4 * GB, found) <= free
        assert found == 32768 or SEVEN.needs(4 * GB, found + 128) > free
    assert SEVEN.context(4 * GB, 4 * GB + RESERVE, 32768) == 0


def metadata(context=32768):
    keys = {"block_count": 32, "embedding_length": 4096, "feed_forward_length": 14336, "context_length": context,
            "attention.head_count": 32, "attention.head_count_kv": 8}  # fmt: skip
    return {"general.architecture": "llama", **{f"llama.{key}": value for key, value in keys.items()}}


def test_the_context_is_the_models_own_where_memory_allows_it():
    assert fit("m", metadata(), 4 * GB, 64 * GB) == (32768, None)


def test_a_context_that_is_cut_is_told_and_leaves_half_of_what_the_weights_leave():
    context, notice = fit("m", metadata(), 4 * GB, 8 * GB)
    assert context % 128 == 0 and LEAST_CONTEXT < context < 32768
    cache = shape(metadata()).cache(context)
    assert 0.3 * 4 * GB < cache < 0.5 * 4 * GB
    assert f"{context:,} tokens instead of the model's 32,768, which would take 4.3 GB of the 8.0 GB" in notice
    assert "--context" in notice and "\n" not in notice


def test_a_context_that_was_asked_for_may_take_all_but_a_reserve_and_no_more():
    model, weights = shape(metadata()), int(4 * GB * 1.03)
    needed = model.needs(weights, 20_000)
    assert fit("m", metadata(), 4 * GB, needed, 20_000) == (20_000, None)
    with pytest.raises(TooLargeError) as error:
        fit("m", metadata(), 4 * GB, needed - 1, 20_000)
    assert str(error.value) == (
        "m with a context of 20,000 tokens needs 7.2 GB of memory and 7.2 GB are free: 19,968 tokens would fit"
    )


def test_a_model_that_does_not_fit_with_any_context_is_refused_with_figures_and_advice():
    for wanted in (None, 4096):
        with pytest.raises(TooLargeError, match=r"m with .* needs [45]\.\d GB .* and 4.0 GB are free: .*nbllm models"):
            fit("m", metadata(), 4 * GB, 4 * GB, wanted)


def test_a_model_that_was_made_for_few_tokens_has_these():
    assert fit("m", metadata(512), 4 * GB, 64 * GB) == (512, None)


@pytest.fixture
def free(monkeypatch):
    """Sets how much memory is said to be free."""
    def free(size):
        monkeypatch.setattr(model_module, "memory", lambda: Memory(64 * GB, size))
    return free


def test_load_refuses_before_anything_is_laid_out_or_allocated(tmp_path, free, monkeypatch):
    path = write_llama(tmp_path / "m.gguf", context=100_000)
    monkeypatch.setattr(model_module, "packing", lambda *a: pytest.fail("laid out"))
    free(RESERVE)
    with pytest.raises(TooLargeError, match="m with a context of 1,024 tokens needs 0.3 GB .* and 0.3 GB are free"):
        nbllm.load(path)
    free(RESERVE + 20_000_000)
    with pytest.raises(TooLargeError, match="m with a context of 99,999 tokens"):
        nbllm.load(path, context=99_999)


def test_load_cuts_the_context_and_says_so_once(tmp_path, free, capsys):
    path = write_llama(tmp_path / "m.gguf", context=100_000)
    free(RESERVE + 40_000_000)
    with nbllm.load(path) as model:
        assert 1024 < model.context < 100_000
        assert capsys.readouterr().err.count(f"The context is {model.context:,} tokens") == 1
        assert list(model.generate("hello", max_tokens=2))
    with nbllm.load(path, context=2000) as model:
        assert model.context == 2000
    assert capsys.readouterr().err == ""
    with pytest.raises(OptionError, match="context=100001"):
        nbllm.load(path, context=100_001)


# ---- one model after the other, in a session


SWITCHING = """
import gc, sys
from pathlib import Path
from nbllm.jupyter.config import NbLLM
from nbllm.jupyter.session import Session

def own():
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))

session = Session(NbLLM(model=sys.argv[1], temperature=0, max_tokens=2))
for path in sys.argv[1:]:
    session.submit(session.switch(path)).wait()
    session.submit(session.ask("hello", session.sampling())).wait()
    print(own(), sum(session.model.engine.memory.values()))
print(len(session.chat.messages))
"""


OWN = """
from pathlib import Path
from nbllm.runtime.arrays import zeros

def own():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))

before, later = own(), []
for _ in range(3):
    array = zeros(1 << 24, "uint8")
    later.append(bytes(1 << 18))  # behind it, so that a heap could not shrink
    assert not array.any() and array.ctypes.data % 64 == 0
    array[:] = 1
    del array
print(own() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="only Linux tells what a process has")
def test_large_arrays_give_their_memory_back_at_once():
    ran = subprocess.run([sys.executable, "-c", OWN], capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < 1 << 21


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with two models: big.gguf takes some 100 MB, small.gguf one."""
    folder = tmp_path_factory.mktemp("models")
    write_llama(folder / "small.gguf")
    write_llama(
        folder / "big.gguf", width=1024, heads=8, kv_heads=8, feed_forward=6144, context=2048, block_type="Q8_0"
    )
    return folder


@pytest.fixture
def session(files, monkeypatch):
    """A session with the big model; its weights, too, are this process's own memory."""
    from nbllm.jupyter.config import NbLLM
    from nbllm.jupyter.session import Session

    monkeypatch.setenv("NBLLM_CACHE", "off")
    session = Session(NbLLM(model=str(files / "big.gguf"), temperature=0, max_tokens=2))
    yield session
    session.close()


def run(session, job):
    handle = session.submit(job)
    handle.wait()
    return handle.events


def ask(session, text):
    return run(session, session.ask(text, session.sampling()))


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="only Linux tells what a process has")
def test_a_model_that_another_replaces_gives_its_memory_back(session, files):
    paths = [session.config.model, str(files / "small.gguf")] * 2
    ran = subprocess.run([sys.executable, "-c", SWITCHING, *paths], capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    *measured, messages = ran.stdout.splitlines()
    (big, taken), (small, _), (big_again, _), (small_again, _) = (map(int, line.split()) for line in measured)
    assert small < big - taken * 0.5  # some of what the engine has was never written to, so is not there
    assert abs(small_again - small) < taken * 0.05
    assert big_again < big + taken * 0.3  # so never both at once
    assert messages == "8"  # and the conversation went on


def test_the_conversation_goes_on_with_another_model(session, files):
    ask(session, "hello")
    messages = list(session.chat.messages)
    events = run(session, session.switch(str(files / "small.gguf")))
    assert any(isinstance(event, Notice) and "of 2 messages goes on" in event.text for event in events)
    ask(session, "and then?")
    assert session.chat.messages[:2] == messages and len(session.chat.messages) == 4


def test_the_first_models_memory_counts_as_free_for_the_second(session, files, free, monkeypatch):
    ask(session, "hello")
    held = session.model.held
    assert held > 25_000_000  # its weights, and a little of its cache
    asked = []
    monkeypatch.setattr(model_module, "fit", lambda *arguments: asked.append(arguments[3]) or (64, None))
    free(GB)
    run(session, session.switch(str(files / "small.gguf")))
    assert asked == [GB + held]


def test_after_an_error_the_first_model_is_still_there(session, files, free):
    ask(session, "hello")
    first = session.model
    free(0)
    with pytest.raises(TooLargeError):
        run(session, session.switch(str(files / "small.gguf")))
    assert session.model is first and not first.closed and session.config.model == str(files / "big.gguf")
    assert len(session.chat.messages) == 2
    ask(session, "and then?")
    assert session.model is first


def test_an_error_at_the_very_last_leaves_the_conversation_and_the_next_question_loads(session, files, monkeypatch):
    ask(session, "hello")

    def engine(*arguments):
        raise NbLLMError("broken")
    with monkeypatch.context() as patch:
        patch.setattr(model_module, "Engine", engine)
        with pytest.raises(NbLLMError, match="broken"):
            run(session, session.switch(str(files / "small.gguf")))
    assert session.model is None
    ask(session, "and then?")
    assert session.model.path == files / "big.gguf" and len(session.chat.messages) == 4


def test_a_cut_context_is_told_in_the_cell(session, tmp_path, free):
    path = write_llama(tmp_path / "long.gguf", context=100_000)
    free(RESERVE + 40_000_000)
    events = run(session, session.switch(str(path)))
    told = [event.text for event in events if isinstance(event, Notice)]
    assert told[0].startswith("The context is ") and len([text for text in told if "instead of" in text]) == 1
    assert ask(session, "hello")[-1].finish_reason in ("length", "end")
