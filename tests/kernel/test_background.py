"""`%%chat --bg`: a reply that is written while other cells run, what follows and stops it, and who waits for whom."""

import os

import pytest

ENDLESS = "--max-tokens 7000 --schema endless"  # the reply cannot end before
LONG = "Count from one to one thousand, in words, one number a line."


@pytest.fixture
def start(kernel):
    """Starts a reply in the background; what its output is told may come with any later cell."""

    kernel.run("endless = {'type': 'array', 'items': {'type': 'integer'}, 'minItems': 3000}")

    def start(options="--max-tokens 60", prompt=LONG):
        cell = kernel.run(f"%%chat --bg -o answer {options}\n{prompt}")
        assert cell.reply["status"] == "ok", cell.reply
        return followed(kernel, cell)

    yield start
    kernel.run("%chat stop")
    kernel.run("%%chat --new --max-tokens 1\nhello")


def followed(kernel, cell):
    (shown,) = cell.of("display_data")
    cell.display = shown["transient"]["display_id"]
    kernel.ignored.add(cell.display)
    return cell


def updates(kernel, display, *cells):
    """What the output with this name was told from the first of these cells on, from where that shows it if it does."""
    shown = [each for each in cells[0].messages if each["msg_type"] == "display_data"]
    begun = (shown or cells[0].messages)[0]["header"]["date"]
    found = [message for cell in cells for message in cell.messages] + kernel.put_aside
    found = [each for each in found if each["msg_type"] == "update_display_data" and each["header"]["date"] >= begun]
    contents = [each["content"] for each in sorted(found, key=lambda each: each["header"]["date"])]
    return [content for content in contents if content["transient"]["display_id"] == display]


def test_the_cell_is_free_and_its_output_ends_as_it_would_have_alone(kernel, start):
    alone = kernel.run(f"%%chat --max-tokens 60\n{LONG}")
    kernel.run("%chat new")
    asked = start()
    assert kernel.run("6 * 7").of("execute_result")[0]["data"]["text/plain"] == "42"
    waited = kernel.run("reply = answer.wait()")
    assert waited.reply["status"] == "ok"
    last = updates(kernel, asked.display, asked, waited)[-1]
    assert last["data"]["text/plain"] == alone.text == kernel.value("answer.text")
    assert last["metadata"]["nbllm"]["state"] == "done"
    assert (
        kernel.value("[answer.done, reply.text == answer.text, answer.reply is reply or answer.reply == reply]")
        == [True] * 3
    )


def test_without_a_name_the_handle_is_the_value_of_the_cell(kernel, start):
    start("--max-tokens 1")
    cell = followed(kernel, kernel.run(f"%%chat --bg --max-tokens 5\n{LONG}"))
    assert not cell.of("execute_result")
    kernel.run("handle = _")
    assert kernel.run("text = handle.wait().text").reply["status"] == "ok"
    assert (
        kernel.value("len(handle.reply.tokens) == handle.reply.stats.generated_tokens")
        and kernel.value("len(handle.reply.tokens[0].alternatives)") == 5
    )


def test_what_was_asked_later_waits_visibly_and_comes_after_it(kernel, start):
    start("--max-tokens 100")
    second = start("--max-tokens 2", "And now?")
    (shown,) = second.of("display_data")
    assert shown["data"]["text/plain"] == "waiting for the request before it"
    third = kernel.run("%%chat --max-tokens 2\nAnd then?")
    assert third.of("display_data")[0]["data"]["text/plain"] in (
        "waiting for the 2 requests before it", "waiting for the request before it"
    )
    assert updates(kernel, second.display, third)[-1]["metadata"]["nbllm"]["state"] == "done"
    session = "__import__('nbllm.jupyter.session').jupyter.session.running()"
    assert kernel.value(f"[m['content'] for m in {session}.chat.messages][::2]") == [LONG, "And now?", "And then?"]


def test_it_is_stopped_by_its_handle_and_by_the_command_and_what_is_there_is_kept(kernel, start):
    for stop in ("answer.stop()", "%chat stop"):
        asked = start(ENDLESS)
        kernel.run("import time\nwhile not answer.text: time.sleep(0.001)")
        stopped = kernel.run(f"{stop}\nreason = answer.wait().finish_reason")
        assert kernel.value("reason") == "stopped" and kernel.value("bool(answer.text)")
        assert updates(kernel, asked.display, stopped)[-1]["data"]["text/markdown"].endswith("stopped*")
    assert stopped.printed == "1 stopped; what was written is kept\n"
    assert kernel.run("%chat stop").printed == "nothing is being written\n"


def test_an_interrupt_ends_the_waiting_and_not_the_reply(kernel, start):
    start(ENDLESS)
    kernel.run("import time\nwhile not answer.text: time.sleep(0.001)")
    for wait in ("answer.wait()", "await answer"):
        cell = kernel.start(f"print('now')\n{wait}").until(lambda cell: cell.printed)
        kernel.interrupt()
        assert cell.finish().error == ["No longer waiting; the reply goes on, until %chat stop or its stop() ends it."]
        assert kernel.value("answer.done") is False
    assert kernel.run("answer.wait(0.001)").reply["ename"] == "NbLLMError"
    kernel.run("answer.stop()")
    assert kernel.run("assert (await answer) is answer.reply or (await answer) == answer.reply").reply["status"] == "ok"


TASKS = {
    "a task that is cancelled": """
import asyncio
async def waits(): return await answer
task = asyncio.create_task(waits())
await asyncio.sleep(0)
task.cancel()
try: await task
except asyncio.CancelledError as error: told = type(error).__name__, task.cancelled()
""",
    "a timeout": """
import asyncio
try: await asyncio.wait_for(answer, 0.01)
except BaseException as error: told = type(error).__name__, True
""",
    "a timeout of several": """
import asyncio
try:
    async with asyncio.timeout(0.01): await answer
except BaseException as error: told = type(error).__name__, True
""",
}


@pytest.mark.parametrize("waiting", TASKS)
def test_whoever_cancels_the_waiting_is_told_as_of_any_other_and_the_reply_goes_on(kernel, start, waiting):
    start(ENDLESS)
    assert kernel.run(TASKS[waiting]).reply["status"] == "ok"
    assert kernel.value("told") == ["CancelledError" if "task" in waiting else "TimeoutError", True]
    assert kernel.value("answer.done") is False


FORK = """
import asyncio, os
def in_fork(function):
    reads, writes = os.pipe()
    if (child := os.fork()) == 0:
        try: function()
        except BaseException as error: os.write(writes, f"{type(error).__name__}: {error}".encode())
        finally: os._exit(0)
    os.close(writes)
    told = os.fdopen(reads).read()
    os.waitpid(child, 0)
    return told
async def awaited(): await answer
told = [in_fork(answer.wait), in_fork(lambda: asyncio.new_event_loop().run_until_complete(awaited()))]
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_in_a_fork_it_is_not_waited_for(kernel, start):
    start(ENDLESS)
    kernel.run("while not answer.text: pass")
    kernel.run(FORK)
    line = "NbLLMError: the thread that runs models has ended in this process; restart the Jupyter kernel"
    assert kernel.value("told") == [line, line]
    assert kernel.value("answer.done") is False


def test_stopped_before_it_began_it_says_so_and_waiting_for_it_is_an_error(kernel, start):
    start(ENDLESS)
    kernel.run("first = answer")
    second = start("--max-tokens 2", "And now?")
    stopped = kernel.run("answer.stop()\nfirst.stop()\nfirst.wait()\nanswer.wait()")
    assert stopped.reply["ename"] == "NbLLMError" and stopped.reply["evalue"].startswith("Stopped ")
    assert updates(kernel, second.display, stopped)[-1]["data"]["text/plain"] == stopped.reply["evalue"]
    assert kernel.value("[answer.text, answer.reply, answer.done]") == ["", None, True]


def test_a_failure_is_told_in_the_output_and_raised_to_who_waits(kernel, start):
    asked = start("--max-tokens 2", "word " * 9000)
    failed = kernel.run("answer.wait()")
    assert failed.reply["ename"] == "ContextFullError"
    shown = [update["data"]["text/plain"] for update in updates(kernel, asked.display, asked, failed)]
    assert failed.reply["evalue"] in shown
    assert kernel.run("1 + 1").reply["status"] == "ok"


def test_what_must_wait_for_the_reply_is_refused(kernel):
    for options in ("--code", "--each x"):
        assert kernel.run(f"%%chat --bg {options}\nhello").reply["ename"] == "OptionError"


def test_shown_again_it_is_the_same_output(kernel, start):
    asked = start("--max-tokens 5")
    kernel.run("answer.wait()")
    (again,) = kernel.run("answer").of("display_data")
    assert again["transient"]["display_id"] == asked.display and again["metadata"]["nbllm"]["state"] == "done"
    assert again["data"]["text/plain"] == kernel.value("answer.text")


def test_shown_again_while_it_is_written_what_is_new_goes_on_from_there(kernel, start):
    asked = start(ENDLESS)
    kernel.run("import time\nwhile not answer.text: time.sleep(0.001)")
    again = kernel.run("answer")
    (shown,) = again.of("display_data")
    more = "had = len(answer.text)\nwhile len(answer.text) < had + 500: time.sleep(0.001)"
    stopped = kernel.run(f"{more}\nanswer.stop(); answer.wait()")
    text = shown["data"]["text/plain"]
    for update in updates(kernel, asked.display, again, stopped):
        text = update["data"].get("text/plain") or text + update["metadata"]["nbllm"]["new"]
        assert kernel.value("answer.text").startswith(text)
    assert text == kernel.value("answer.text")
