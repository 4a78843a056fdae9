"""Workers on hosts of their own: two network namespaces, which reach the scheduler over a bridge and nothing else."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from distributed import Client

import nbllm
from nbllm.errors import NbLLMError

NET = "10.213.77"  # of the bridge: .1 is the scheduler's side, .11 and .12 the workers'
BRIDGE, HOSTS = "nbllmtest", ("nbllmtest1", "nbllmtest2")


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def can_make_hosts():
    """Whether this user may make network namespaces: why not, or None."""
    if not shutil.which("ip"):
        return "the program `ip` is missing (Debian: iproute2)"
    try:
        ip("netns", "add", "nbllmtest0")
        ip("netns", "del", "nbllmtest0")
    except subprocess.CalledProcessError as error:
        return f"network namespaces need root: {error.stderr.strip()}"
    return None


@pytest.fixture(scope="module")
def scheduler(tiny_model, tmp_path_factory):
    """The address of a scheduler; its workers have the model by name. Afterwards nothing of all this is left."""
    if why := can_make_hosts():
        pytest.skip(why)
    started = []
    try:
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("addr", "add", f"{NET}.1/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for n, host in enumerate(HOSTS):
            ip("netns", "add", host)
            ip("link", "add", f"{host}o", "type", "veth", "peer", "name", f"{host}i")
            ip("link", "set", f"{host}o", "master", BRIDGE, "up")
            ip("link", "set", f"{host}i", "netns", host)
            ip("-n", host, "addr", "add", f"{NET}.{11 + n}/24", "dev", f"{host}i")
            ip("-n", host, "link", "set", f"{host}i", "up")
            ip("-n", host, "link", "set", "lo", "up")
        file = tmp_path_factory.mktemp("scheduler") / "scheduler.json"
        command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", f"{NET}.1", "--port", "0",
                   "--no-dashboard", "--scheduler-file", file]  # fmt: skip
        started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        while not file.exists():
            assert started[0].poll() is None, "the scheduler did not start"
            time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        for host in HOSTS:
            started.append(worker(host, address, NBLLM_MODELS=str(tiny_model.parent)))
        yield address
    finally:
        for process in started[::-1]:
            process.terminate()
            process.communicate(timeout=60)
        for host in HOSTS:
            subprocess.run(["ip", "netns", "del", host], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", BRIDGE], check=False, capture_output=True)


def worker(host, address, **environment):
    command = ["ip", "netns", "exec", host, sys.executable, "-m", "distributed.cli.dask_worker", address,
               "--nthreads", "1", "--no-dashboard", "--no-nanny", "--death-timeout", "60"]  # fmt: skip
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | environment)


def test_workers_on_other_hosts_answer_alike(scheduler, tiny_model):
    texts = [f"What is {number}?" for number in range(40)]
    options = {"seed": 3, "max_tokens": 6, "progress": False}
    expected = nbllm.map(texts, tiny_model, **options)
    with Client(scheduler) as client:
        client.wait_for_workers(2, timeout=60)
        assert nbllm.map(texts, tiny_model, engine=client, **options) == expected
        assert {address.split(":")[1] for address in client.run(os.getpid)} == {f"//{NET}.11", f"//{NET}.12"}
        without = worker(HOSTS[0], scheduler, NBLLM_MODELS=os.devnull)
        try:
            client.wait_for_workers(3, timeout=60)
            with pytest.MonkeyPatch.context() as patch, pytest.raises(NbLLMError, match=f"{NET}.11.*no model"):
                patch.setenv("NBLLM_MODELS", str(tiny_model.parent))
                patch.setattr("nbllm.chat.map.known", lambda name: type("Known", (), {"name": tiny_model.stem}))
                nbllm.map(texts, tiny_model, engine=client, **options)
        finally:
            without.terminate()
            without.wait(60)
