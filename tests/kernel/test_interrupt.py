"""Stopping: while loading, while reading the prompt, while writing. The measured latency is part of the test report."""

import os
import signal

import pytest

SLOW_LOAD = """
import time, nbllm.jupyter.session as s
real = s.loading
def loading(*arguments, **named):
    time.sleep(3)
    return (yield from real(*arguments, **named))
s.loading = loading
"""
SLOW_PACKING = """
import os, time
from nbllm.runtime import packed_cache
from nbllm.runtime.packed import Packer
os.environ["NBLLM_CACHE"] = {folder!r}
packed_cache.SYNC = 1
pack = Packer.pack
def slow(self):
    for piece in pack(self):
        time.sleep(0.05)
        yield piece
Packer.pack = slow
"""
SLOW_CHECK = """
import hashlib, threading
from nbllm.chat import grammar
short = {"enum": [1, 2]}
check = grammar.check
def slow(schema):
    print("checking", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 5_000_000)  # which no signal interrupts
    check(schema)
grammar.check = slow
"""
RUNNING = "__import__('nbllm.jupyter.session').jupyter.session.running()"
MESSAGES = f"{RUNNING}.chat.messages"
TASK = """
import asyncio
async def asks(): get_ipython().run_cell_magic("chat", "--max-tokens 2000 -t 1", "Count from one to one thousand.")
async def told():
    try: await asyncio.create_task(asks())
    except BaseException as error: return type(error).__name__, str(error)
task = asyncio.create_task(told())
"""
LONG = "%%chat --max-tokens 2000 -t 1\nCount from one to one thousand, in words, one number a line."


@pytest.fixture
def stopped(record_property):
    """Interrupts a cell and finishes it. The law is 0.2 s; the bound here only tells a stop from a wait."""

    def stop(kernel, cell):
        since = kernel.interrupt()
        cell.finish()
        latency = cell.ended - since
        record_property("latency_seconds", round(latency, 3))
        print(f"stopped after {latency:.3f} s")
        assert latency < 2
        assert cell.reply["status"] == "error" and cell.reply["ename"] == "Stopped"
        assert kernel.run("1 + 1").reply["status"] == "ok"
        return cell

    return stop


def test_while_writing_the_partial_reply_stays_everywhere(kernel, stopped):
    cell = kernel.start(LONG)
    cell.until(lambda cell: "writing" in cell.states)
    stopped(kernel, cell)
    made = cell.made
    assert made["finish_reason"] == "stopped" and 0 < made["generated_tokens"] < 2000
    assert cell.error == [f"Stopped after {made['generated_tokens']} tokens; the partial reply is kept."]
    assert kernel.value(f"{MESSAGES}[-1]['content']") == cell.text != ""
    assert cell.outputs[0]["data"]["text/markdown"].rstrip("*").endswith("· stopped")
    assert kernel.run("%%chat --max-tokens 3\nGo on.").made["reused_tokens"] >= made["prompt_tokens"]


def test_while_reading_the_prompt(kernel, stopped):
    kernel.run("%%chat --max-tokens 2\nhello")
    cell = kernel.start("%%chat --max-tokens 2\n" + "The sea was calm and the night was long. " * 600)
    cell.until(lambda cell: any("%" in update["data"]["text/plain"] for update in cell.updates))
    stopped(kernel, cell)
    assert cell.error == ["Stopped while reading the prompt."]
    assert len(kernel.value(MESSAGES)) == 2


def test_while_loading_and_the_model_is_there_for_the_next_question(fresh_kernel, stopped):
    fresh_kernel.run(SLOW_LOAD)
    cell = fresh_kernel.start("%%chat\nhello").until(lambda cell: "loading" in str(cell.updates))
    stopped(fresh_kernel, cell)
    assert cell.error[0].startswith("Stopped while loading ")
    assert cell.text == "" and fresh_kernel.stray(1) == []
    assert fresh_kernel.run("%%chat --max-tokens 2\nhello").made["generated_tokens"] == 2
    assert len(fresh_kernel.value(MESSAGES)) == 2


def test_while_laying_out_the_weights_nothing_of_them_stays_and_the_next_question_does_it_again(
    fresh_kernel, stopped, tmp_path
):
    fresh_kernel.run(SLOW_PACKING.format(folder=str(tmp_path)))
    cell = fresh_kernel.start("%%chat\nhello").until(lambda cell: "laying out weights: 1%" in str(cell.updates))
    stopped(fresh_kernel, cell)
    assert cell.error == ["Stopped while laying out weights."]
    fresh_kernel.run("Packer.pack = pack\npacked_cache.SYNC = 1 << 24")
    assert fresh_kernel.run("%%chat --max-tokens 2\nhello").made["generated_tokens"] == 2
    assert [path.suffix for path in tmp_path.iterdir()] == [".packed"]


def test_while_changing_the_model_the_old_one_stays(fresh_kernel, stopped, tiny_model):
    model = fresh_kernel.run("%%chat --max-tokens 2\nhello").made["model"]
    fresh_kernel.run(SLOW_LOAD)
    cell = fresh_kernel.start(f"%chat model {tiny_model}").until(lambda cell: "loading" in str(cell.updates))
    stopped(fresh_kernel, cell)
    assert fresh_kernel.run("%%chat --max-tokens 2\nhello").made["model"] == model


def test_cells_after_it_do_not_run(kernel):
    first = kernel.start(LONG).until(lambda cell: len(cell.updates) > 4)
    others = [kernel.start(f"ran_{number} = True") for number in range(3)]
    kernel.interrupt()
    assert first.finish().reply["ename"] == "Stopped"
    assert [cell.finish().reply["status"] for cell in others] == ["aborted"] * 3
    assert not kernel.value("[name for name in globals() if name.startswith('ran_')]")


def test_a_stopped_reply_is_in_its_variable_too(kernel, stopped):
    cell = kernel.start(LONG.replace("%%chat", "%%chat -o partial"))
    cell.until(lambda cell: "writing" in cell.states)
    stopped(kernel, cell)
    assert kernel.value("[partial.text, partial.finish_reason]") == [cell.text, "stopped"]


def test_an_interrupt_when_nothing_runs_changes_nothing(kernel):
    kernel.run("%%chat --max-tokens 2\nhello")
    kernel.interrupt()
    assert kernel.run("%%chat --max-tokens 2\nhello").reply["status"] == "ok"


def test_while_compiled_code_checks_a_schema(kernel, stopped):
    kernel.run(SLOW_CHECK)
    cell = kernel.start("%%chat --schema short\nhello").until(lambda cell: "checking" in cell.printed)
    stopped(kernel, cell)
    assert cell.error == ["Stopped."] and cell.updates == []
    kernel.run("grammar.check = check\n[each.join() for each in threading.enumerate() if each.name == 'nbllm schema']")
    assert kernel.run("%%chat --schema short --max-tokens 20\nhello").text in ("1", "2")


@pytest.mark.parametrize("place", ["paint", "finish"])
def test_one_that_comes_between_two_lines_of_nbllm_is_told_in_one_line_too(kernel, place):
    kernel.run(f"from nbllm.jupyter.display import NotebookOutput\nreal = NotebookOutput.{place}\n"
               f"def interrupted(self): raise KeyboardInterrupt\nNotebookOutput.{place} = interrupted")  # fmt: skip
    for code in ("%%chat --max-tokens 2\nhello", "%chat save /no/such/folder/x"):
        assert kernel.run(code).error == ["Stopped."]
    kernel.run(f"NotebookOutput.{place} = real")
    assert kernel.run("%%chat --max-tokens 2\nhello").reply["status"] == "ok"


@pytest.mark.parametrize("waits", ["", "await asyncio.wait([task])"])
def test_in_a_task_of_the_users_it_ends_the_reply_and_not_the_jupyter_kernel(kernel, waits):
    cell = kernel.start(TASK + waits).until(lambda cell: "writing" in cell.states)
    kernel.interrupt()
    kernel.ignored.add(cell.finish().id)
    assert kernel.run("told = await task").reply["status"] == "ok"
    name, text = kernel.value("told")
    assert name == "NbLLMError" and text.endswith("the partial reply is kept.")


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no signals for users")
def test_a_signal_handler_of_the_users_that_raises_ends_the_reply_too(kernel):
    kernel.run("import signal\ndef over(*told): raise TimeoutError('over')\nsignal.signal(signal.SIGUSR1, over)")
    cell = kernel.start(LONG).until(lambda cell: "writing" in cell.states)
    os.kill(kernel.manager.provisioner.pid, signal.SIGUSR1)
    assert cell.finish().reply["ename"] == "TimeoutError"
    assert cell.text  # and not only what was new
    assert kernel.run(f"while {RUNNING}.busy: pass").reply["status"] == "ok"
    assert kernel.value(f"{RUNNING}.chat.last.finish_reason") == "stopped"
