"""`nbllm.map` on a real Dask cluster: the answers of one process, whatever happens to the workers."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from distributed import Client, LocalCluster
from tiny_gguf import write_llama

import nbllm
from nbllm.chat import cluster as module
from nbllm.errors import NbLLMError, OptionError, Stopped

TEXTS = [f"What is {number}, and why?" for number in range(48)]
OPTIONS = {"temperature": 1.0, "seed": 5, "max_tokens": 8, "progress": False}
WAIT = 60  # seconds, at most

# distributed leaves sockets and loops to be collected when processes are killed
pytestmark = [
    pytest.mark.filterwarnings("default::ResourceWarning"),
    pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:distributed"),
]


@contextlib.contextmanager
def local(workers):
    """A client of a cluster on this machine."""
    address = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=workers, threads_per_worker=1, **address) as cluster, Client(cluster) as client:
        yield client


@pytest.fixture(scope="module")
def client():
    with local(2) as client:
        yield client


@pytest.fixture(scope="module")
def expected(tiny_model):
    return nbllm.map(TEXTS, tiny_model, **OPTIONS)


def slow(seconds=0.3):
    """A task that takes a while; it goes to workers as it is, for they have no tests."""

    def answer(work, rows):
        import time

        from nbllm.chat import cluster

        time.sleep(seconds)
        return cluster._answer(work, rows)

    return answer


def test_the_answers_are_those_of_one_process_in_order(client, tiny_model, expected):
    assert nbllm.map(TEXTS, tiny_model, engine=client, **OPTIONS) == expected
    with nbllm.load(tiny_model) as model:
        chat = nbllm.Chat(model, system="Be brief.")
        chat("hello", seed=1, max_tokens=5)
        fits = {"schema": {"enum": ["yes", "no", "perhaps"]}} | OPTIONS | {"max_tokens": 20}
        assert chat.map(TEXTS, engine=client, **fits) == chat.map(TEXTS, **fits)
        assert chat.map(TEXTS, engine=client, **OPTIONS) == chat.map(TEXTS, **OPTIONS)


def test_a_worker_loads_the_model_once(client, tiny_model):
    nbllm.map(TEXTS, tiny_model, engine=client, **OPTIONS)

    def loaded():
        from nbllm.chat import cluster

        return [id(model) for model in cluster._models.values()]

    before = client.run(loaded)
    nbllm.map(TEXTS, tiny_model, engine=client, **OPTIONS)
    assert client.run(loaded) == before and all(len(models) == 1 for models in before.values())


def test_a_worker_that_is_killed_loses_no_row_and_doubles_none(tiny_model, expected, monkeypatch):
    monkeypatch.setattr(module, "_answer", slow())
    with local(2) as client:
        rows = nbllm.Map(TEXTS, tiny_model, **{name: value for name, value in OPTIONS.items() if name != "progress"})
        answered, killed = [], 0
        for number, _ in spied(rows, client, answered):
            if not killed:
                killed = next(iter(client.run(os.getpid).values()))
                os.kill(killed, signal.SIGKILL)
        assert killed and rows.results == expected
        assert sorted(answered) == list(range(len(TEXTS)))


def spied(rows, client, answered):
    """The replies of a map, which also are kept in it, and their numbers."""
    for number, reply in rows._there(client):
        answered.append(number)
        rows.replies[number] = reply
        yield number, reply


@pytest.mark.parametrize("wrong", ["version", "model", "other model"])
def test_a_worker_that_would_not_answer_alike_is_refused_in_one_line(client, tiny_model, wrong, tmp_path, monkeypatch):
    path = shutil.copy(tiny_model, tmp_path / "here.gguf")
    if wrong == "version":
        monkeypatch.setattr("nbllm.chat.map.__version__", "9.9.9")
        words = "client 9.9.9; install the same"
    elif wrong == "model":
        monkeypatch.setattr("nbllm.chat.map.known", lambda name: type("Known", (), {"name": "no-such-model"}))
        words = "there is no model 'no-such-model'"
    else:
        monkeypatch.setattr("nbllm.chat.map.fingerprint", lambda path: "0" * 16)
        words = "not the client's"
    with pytest.raises(NbLLMError, match=words) as caught:
        nbllm.map(TEXTS, path, engine=client, **OPTIONS)
    assert "\n" not in str(caught.value) and "worker tcp://127.0.0.1" in str(caught.value)


def test_a_worker_with_another_file_is_refused_by_itself(client, tiny_model, tmp_path):
    work = module.Work(nbllm.__version__, str(write_llama(tmp_path / "other.gguf", seed=3)), "0" * 16, None, (), None)
    assert "not the client's" in module._why_not(work)


def test_after_an_interrupt_the_rest_is_asked_and_nothing_else_runs(client, tiny_model, expected, monkeypatch):
    options = {name: value for name, value in OPTIONS.items() if name != "progress"}
    rows = nbllm.Map(TEXTS, tiny_model, **options)
    answers = module.answers

    def interrupted(*arguments):
        for count, answer in enumerate(answers(*arguments)):
            if count == 10:
                raise KeyboardInterrupt
            yield answer

    with monkeypatch.context() as patch:
        patch.setattr(module, "answers", interrupted)
        with pytest.raises(Stopped, match="10 of 48 rows"):
            rows.run(progress=False, engine=client)
    assert rows.progress.done == 10
    assert nbllm.map(TEXTS, tiny_model, engine=client, **OPTIONS) == expected


@pytest.mark.parametrize("engine", [5, "tcp://127.0.0.1:1", Client])
def test_what_is_no_client_is_one_line(tiny_model, engine):
    with pytest.raises(OptionError, match="engine=.* cannot be used: give a dask.distributed.Client"):
        nbllm.map(TEXTS, tiny_model, engine=engine, **OPTIONS)


def test_a_client_that_waits_for_nothing_is_refused(client, tiny_model):
    async def asked():
        async with Client(client.scheduler.address, asynchronous=True) as other:
            nbllm.map(TEXTS, tiny_model, engine=other, **OPTIONS)

    with ThreadPoolExecutor(1) as thread:  # this one may have an event loop already: that of the browser's driver
        with pytest.raises(OptionError, match="asynchronous"):
            thread.submit(lambda: asyncio.run(asked())).result()


def test_without_dask_the_line_names_the_extra(tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(NbLLMError, match=r"nbllm\[dask\]"):
        nbllm.map(TEXTS, tiny_model, engine=object(), **OPTIONS)


def test_a_client_that_is_closed_meanwhile_is_one_line_and_another_goes_on(client, tiny_model, expected):
    other = Client(client.scheduler.address)
    rows = nbllm.Map(TEXTS, tiny_model, **{name: value for name, value in OPTIONS.items() if name != "progress"})
    with pytest.raises(NbLLMError, match="the cluster has not answered: .* the same call goes on from there"):
        for _ in rows._keep(rows._there(other)):
            other.close()
    assert rows.progress.done > 0
    with pytest.raises(OptionError, match="not any more"):
        rows.run(progress=False, engine=other)
    assert rows.run(progress=False, engine=client) == expected


def test_a_task_that_ends_with_an_error_is_one_line_and_the_rest_is_asked_again(
    client, tiny_model, expected, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(module, "_answer", lambda work, rows: {}["of a library"])
        with pytest.raises(NbLLMError, match="KeyError: 'of a library'") as caught:
            nbllm.map(TEXTS, tiny_model, engine=client, **OPTIONS)
    assert "\n" not in str(caught.value)
    assert nbllm.map(TEXTS, tiny_model, engine=client, **OPTIONS) == expected


def test_a_cluster_may_grow_and_shrink_meanwhile(tiny_model, expected):
    with local(0) as client:
        client.cluster.adapt(minimum=0, maximum=2)
        assert nbllm.map(TEXTS, tiny_model, engine=client, **OPTIONS) == expected


def test_when_the_client_dies_the_work_stops(client, tiny_model, tmp_path):
    program = textwrap.dedent(f"""
        import os, time, nbllm
        from distributed import Client
        from nbllm.chat import cluster

        client = Client({client.scheduler.address!r})
        tasks = []
        for at, answer in enumerate(nbllm.Map(range(100_000), {str(tiny_model)!r}, max_tokens=8)._there(client)):
            print(at, flush=True)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout.readline() == b"0\n"
        assert waiting(client) > 0
        process.kill()
    until(lambda: waiting(client) == 0)
    until(lambda: not any(client.processing().values()))


def waiting(client):
    """How many tasks the scheduler has."""
    return client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))


def until(condition):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
