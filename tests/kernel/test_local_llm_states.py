"""Stopping the Local LLM kernel in each of its states, and its end while the model writes."""

import time

import psutil
import pytest
from file_server import serve
from kernel.kernels import PATIENCE
from kernel.test_interrupt import SLOW_LOAD, SLOW_PACKING

SESSION = "__import__('nbllm.jupyter.session').jupyter.session.running()"
LONG = "Count from one to one thousand, in words, one number a line."
MANY = "%chat new\n%config NbLLM.max_tokens = 5000\n%config NbLLM.temperature = 1\n"
ENDLESS = ("%%py\ndef endless(stop):\n    while not stop.is_set():\n        time.sleep(0.01)\n        yield\n"
           f"import time\nbackground = [{SESSION}.submit(endless) for _ in range(2)]")  # fmt: skip


def stopped(kernel, cell):
    """Interrupts a cell that asks; the bound only tells a stop from a wait, and the next cell asks."""
    since = kernel.interrupt()
    cell.finish()
    print(f"stopped after {cell.ended - since:.3f} s")
    assert cell.ended - since < 2 and cell.reply["ename"] == "Stopped"
    assert kernel.run("%config NbLLM.max_tokens = 2\n\nAnd now?").made["generated_tokens"] == 2
    return cell.error[0]


def test_while_loading_while_reading_and_while_writing(local_llm):
    local_llm.run("%%py\n" + SLOW_LOAD)
    cell = local_llm.start("Hello").until(lambda cell: "loading" in str(cell.updates))
    assert stopped(local_llm, cell).startswith("Stopped while loading ")
    cell = local_llm.start("The sea was calm and the night was long. " * 600)
    cell.until(lambda cell: any("%" in update["data"]["text/plain"] for update in cell.updates))
    assert stopped(local_llm, cell) == "Stopped while reading the prompt."
    local_llm.run(MANY)
    cell = local_llm.start(LONG).until(lambda cell: "writing" in cell.states)
    assert (
        stopped(local_llm, cell) == f"Stopped after {cell.made['generated_tokens']} tokens; the partial reply is kept."
    )


def test_while_laying_out_the_weights(local_llm, tmp_path):
    local_llm.run("%%py\n" + SLOW_PACKING.format(folder=str(tmp_path)))
    cell = local_llm.start("Hello").until(lambda cell: "laying out weights: 1%" in str(cell.updates))
    local_llm.interrupt()
    assert cell.finish().error == ["Stopped while laying out weights."]
    local_llm.run("%%py\nPacker.pack = pack\npacked_cache.SYNC = 1 << 24")
    assert local_llm.run("%config NbLLM.max_tokens = 2\n\nHello").made["generated_tokens"] == 2


def test_while_fetching(local_llm, tiny_model, tmp_path):
    import threading

    local_llm.run(f"%%py\nimport os\nos.environ['NBLLM_MODELS'] = {str(tmp_path)!r}")
    with serve(tiny_model.read_bytes()) as server:
        server.pause = threading.Event()
        cell = local_llm.start(f"%chat model {server.url}/tiny.gguf").until(
            lambda cell: "downloading" in str(cell.updates)
        )
        assert stopped(local_llm, cell).startswith("Stopped while downloading ")


def test_while_waiting_behind_another_job_which_goes_on(local_llm):
    local_llm.run("%config NbLLM.max_tokens = 2\n\nHello")
    local_llm.run(ENDLESS)
    cell = local_llm.start(LONG).until(lambda cell: cell.updates)
    local_llm.interrupt()
    assert cell.finish().error == ["Stopped while waiting for the 2 requests before it."]
    assert local_llm.value("[job.ended for job in background]") == [False, False]
    local_llm.interrupt()
    assert local_llm.run("And now?").made["generated_tokens"] == 2
    assert local_llm.value(f"len({SESSION}.chat.messages)") == 4


@pytest.mark.parametrize("how", ["no cell", "a cell of Python"])
def test_while_jobs_run_in_the_background(local_llm, how):
    local_llm.run("%config NbLLM.max_tokens = 2\n\nHello")
    local_llm.run(ENDLESS)
    if how == "no cell":
        local_llm.interrupt()
    else:
        cell = local_llm.start("%%py\nprint('now', flush=True)\nfor job in background:\n    job.wait()")
        cell.until(lambda cell: cell.printed)
        local_llm.interrupt()
        assert cell.finish().reply["status"] in ("ok", "error")
    assert local_llm.run("%%py\nfor job in background:\n    job.wait()").reply["status"] == "ok"
    assert local_llm.run("And now?").made["generated_tokens"] == 2


@pytest.mark.parametrize("ask", [LONG, "%%chat\n" + LONG])
def test_it_ends_at_once_while_the_model_writes_and_leaves_nothing(local_llm, ask):
    local_llm.run(MANY)
    local_llm.run("%%py\nimport subprocess\nchild = subprocess.Popen(['sleep', '600'])")
    here = psutil.Process(local_llm.value("__import__('os').getpid()"))
    family = [here, *here.children(recursive=True)]
    assert len(family) >= 2
    local_llm.start(ask).until(lambda cell: "writing" in cell.states)
    since = time.monotonic()
    local_llm.client.shutdown()
    while any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in family):
        assert time.monotonic() < since + PATIENCE
        time.sleep(0.05)
    print(f"ended after {time.monotonic() - since:.1f} s")


def test_it_restarts_while_the_model_writes(local_llm):
    local_llm.run(MANY)
    here = psutil.Process(local_llm.value("__import__('os').getpid()"))
    local_llm.start(LONG).until(lambda cell: "writing" in cell.states)
    local_llm.manager.restart_kernel()
    assert not here.is_running()
    local_llm.client.wait_for_ready(timeout=PATIENCE)
    assert local_llm.run("%config NbLLM.max_tokens = 2\n\nHello").made["generated_tokens"] == 2
    assert local_llm.value(f"len({SESSION}.chat.messages)") == 2
