"""The panel in a real Jupyter kernel: it shares the conversation, is told pieces,
and leaves a transcript in the notebook."""

import pytest

COUNTING = """handle = shown.send('Count to one thousand in words.', max_tokens=2000)
while len(handle.events) < 12: pass"""
SESSION = "__import__('nbllm.jupyter.session').jupyter.session.running()"

COUNT = """
shown.clear().wait()
handle = shown.send('Count from one to one thousand, in words, one number a line.', max_tokens=90, temperature=1)
while len(handle.events) < 12: pass
"""


@pytest.fixture
def panel(kernel):
    kernel.run("%config NbLLM.max_tokens = 40\n%config NbLLM.temperature = 0.7\n%config NbLLM.system = None\n%chat new")
    cell = kernel.run("import nbllm\nshown = nbllm.panel()\nshown")
    assert cell.reply["status"] == "ok", cell.reply
    kernel.shown = cell
    return kernel


def told(*cells):
    """What the browser was told of what these cells began, in order; but not that a question has come."""
    messages = [message for cell in cells for message in (*cell.messages, *cell.later)]
    said = [message["content"]["data"] for message in messages if message["msg_type"] == "comm_msg"]
    contents = [data.get("content", {}) for data in said]
    return sorted((content for content in contents if "number" in content), key=lambda content: content["number"])


def send(kernel, comm, subshell=None, **content):
    """As the browser sends, to a thread of its own if it names one; what comes of it may come later."""
    message = kernel.client.session.msg("comm_msg", {"comm_id": comm, "data": {"method": "custom", "content": content}})
    if subshell is not None:
        message["header"]["subshell_id"] = subshell
    kernel.client.shell_channel.send(message)
    return kernel.follow(message["header"]["msg_id"]).aside()


def ask(kernel, **content):
    """As the browser asks, and waits until that was heard."""
    return send(kernel, kernel.value("shown.widget.comm.comm_id"), **content).until(idle)


def idle(cell):
    return cell.of("status") and cell.of("status")[-1]["execution_state"] == "idle"


def test_it_shows_a_widget_and_leaves_a_transcript(panel):
    widget, transcript = panel.shown.of("display_data")
    assert "application/vnd.jupyter.widget-view+json" in widget["data"]
    assert transcript["data"]["text/plain"] == "Nothing was said yet." and "text/html" not in transcript["data"]
    cell = panel.run("shown.send('My *name* is Aurora.').wait()\nshown.serialize()")
    assert panel.value("shown.serialize()[0]") == {"role": "user", "content": "My *name* is Aurora."}
    last = cell.of("update_display_data")[-1]
    assert last["transient"]["display_id"] == transcript["transient"]["display_id"]
    assert last["data"]["text/plain"].startswith("user: My *name* is Aurora.\n\nassistant: ")
    assert last["data"]["text/markdown"].startswith("<details>\n<summary>Transcript</summary>\n\n**You**\n\nMy *name*")


def test_it_and_cells_share_one_conversation(panel):
    cell = panel.run("%%chat --max-tokens 3\nhello")
    (told_all,) = [content for content in told(cell) if content["kind"] == "all"]
    assert [message["text"] for message in told_all["messages"]] == ["hello", cell.outputs[0]["data"]["text/plain"]]
    panel.run("handle = shown.send('And?')\nhandle.wait()")
    assert panel.value(f"[m['content'] for m in {SESSION}.shelf.current.messages][::2]") == ["hello", "And?"]
    panel.run("shown.undo().wait(); shown.rerun().wait()")
    assert panel.value(f"[m['content'] for m in {SESSION}.shelf.current.messages][::2]") == ["hello"]
    before = panel.value(f"len({SESSION}.shelf.conversations)")
    panel.run("shown.edit(0, 'bye').wait()")
    assert panel.value("[m['content'] for m in shown.serialize()][::2]") == ["bye"]
    assert panel.value(f"len({SESSION}.shelf.conversations)") == before + 1
    panel.run("''.join(shown.stream('More')) == shown.serialize()[-1]['content'] or 1/0")
    panel.run("shown.clear().wait()")
    assert panel.value("shown.serialize()") == []


def test_the_browser_is_told_pieces_and_few_of_them(panel):
    panel.run("%config NbLLM.max_tokens = 400\n%config NbLLM.temperature = 1")
    cell = panel.run("handle = shown.send('Tell me a very long story about the sea and all its fish.')\n"
                     "stats = handle.wait()[-1].stats")  # fmt: skip
    pieces = [content for content in told(cell) if content["kind"] == "reply"]
    text = "".join(content.get("text", "") for content in pieces)
    assert text == panel.value("shown.serialize()[-1]['content']")
    written = panel.value("stats.generated_tokens")
    assert written > 100
    print(f"{len(pieces)} updates, {cell.size:,} bytes for {written} tokens")
    assert cell.size < 60_000
    assert pieces[-1]["done"] and pieces[-1]["footer"].startswith("smollm2-135m · ")


def test_what_the_browser_asks_is_done_and_a_mistake_is_told_there(panel):
    ask(panel, kind="hello")
    head, error = told(ask(panel, kind="set", name="temperature", value=-1))
    assert error["kind"] == "error" and "temperature" in error["text"] and head["settings"]["temperature"] == 0.7
    assert panel.value(f"{SESSION}.config.temperature") == 0.7
    ask(panel, kind="set", name="max_tokens", value=3)
    assert told(ask(panel, kind="set", name="max_tokens", value="3"))[-1]["kind"] == "error"
    ask(panel, kind="set", name="system", value="Be brief.")
    ask(panel, kind="send", text="hello")
    cell = panel.run("import time\nwhile len(shown.serialize()) < 3: time.sleep(0.01)")
    panel.ignored.add(cell.id)  # the transcript may be updated after the cell has ended
    assert panel.value("[m['role'] for m in shown.serialize()]") == ["system", "user", "assistant"]
    (error,) = told(ask(panel, kind="send", text=" "))
    assert error["kind"] == "error" and "empty" in error["text"]
    (error,) = told(ask(panel, kind="dance"))
    assert error["kind"] == "error" and error["text"] == "KeyError: 'dance'"  # raised, too: the log has it


def test_stop_ends_a_reply_and_keeps_it(panel):
    panel.run("%config NbLLM.max_tokens = 2000")
    panel.run("handle = shown.send('Count to one thousand in words.')\nwhile len(handle.events) < 12: pass").aside()
    ask(panel, kind="stop")
    panel.run("reason = handle.wait()[-1].finish_reason")
    assert panel.value("reason") == "stopped" and panel.value("len(shown.serialize())") == 2
    panel.run("%config NbLLM.max_tokens = 5\nshown.send('Again.').wait()")
    assert panel.value("len(shown.serialize())") == 4


def test_messages_are_numbered_and_one_who_comes_in_the_middle_is_told_what_was_sent(panel):
    cell = panel.run(COUNTING).aside()
    asking = ask(panel, kind="hello")
    panel.run("shown.stop()\nhandle.wait()")
    contents = [content for content in told(asking, cell) if content["kind"] != "head"]
    begun = next(n for n, content in enumerate(contents) if content.get("whole"))
    pending, after = contents[begun]["pending"], contents[begun + 1 :]
    text = pending["text"] + "".join(content.get("text", "") for content in after if content["kind"] == "reply")
    assert pending["question"].startswith("Count") and text == panel.value("shown.serialize()[-1]['content']")
    numbers = [content["number"] for content in told(asking, cell)]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_question_that_comes_to_nothing_is_given_back(panel):
    (error,) = told(ask(panel, kind="send", text="\n"))
    assert error["ended"] and error["wrong"] and error["draft"] == "\n"
    cell = panel.run("%config NbLLM.max_tokens = 5\nshown.send('hello').wait()\n"
                     "long = shown.send('word ' * 20000)").aside()  # fmt: skip
    panel.run("try: long.wait()\nexcept Exception as error: told = str(error)")
    contents = told(cell)
    error = next(content for content in contents if content["kind"] == "error")
    assert error["draft"] == "word " * 20000 and error["text"] == panel.value("told")
    assert not any(content["kind"] == "reply" for content in contents[contents.index(error) :])  # it is the last word
    before = panel.value(f"len({SESSION}.shelf.conversations)")
    error = told(ask(panel, kind="edit", number=0, text=" "))[-1]
    assert error["kind"] == "error" and panel.value(f"len({SESSION}.shelf.conversations)") == before


@pytest.mark.parametrize("number", [1, 99, -1, "x", None, 0.5])
def test_an_edit_of_a_question_that_there_is_not_asks_nothing_and_is_given_back(panel, number):
    panel.run("%config NbLLM.max_tokens = 3\nshown.send('hello').wait()")
    before = panel.value(f"[{SESSION}.shelf.conversations.keys().__repr__(), shown.serialize()]")
    cell = ask(panel, kind="edit", number=number, text="bye")
    cell.until(lambda cell: any(content["kind"] == "error" for content in told(cell)))
    error = next(content for content in told(cell) if content["kind"] == "error")
    assert error["text"].startswith("there is no question ") and error["draft"] == "bye" and error["ended"]
    panel.run("shown._session.submit(lambda stop: iter(())).wait()").aside()
    assert panel.value(f"[{SESSION}.shelf.conversations.keys().__repr__(), shown.serialize()]") == before


def test_after_an_edit_the_browser_has_the_copy_before_the_reply(panel):
    panel.run("%config NbLLM.max_tokens = 3\nshown.send('hello').wait()\nshown.send('And?').wait()")
    cell = panel.run("shown.edit(1, 'Why?').wait()").aside()
    contents = [content for content in told(cell) if content["kind"] in ("all", "reply", "error")]
    copied = next(n for n, content in enumerate(contents) if content["kind"] == "all")
    assert contents[copied]["from"] == 2 and contents[copied]["messages"] == []
    assert contents[copied]["pending"]["question"] == "Why?" and contents[copied]["pending"]["text"] == ""
    assert any(content.get("text") for content in contents[copied:])
    assert panel.value("[m['content'] for m in shown.serialize()][::2]") == ["hello", "Why?"]


def test_half_of_a_surrogate_pair_breaks_neither_the_panel_nor_cells_and_stays_in_the_conversation(panel, tmp_path):
    panel.run("%config NbLLM.max_tokens = 3\nhalf = '\\ud800 boo'\n"
              "def magic(*words): get_ipython().run_line_magic('chat', ' '.join(words))")
    path = str(tmp_path / "talk.jsonl")

    def fine(code):
        cell = panel.run(code).aside()
        assert cell.reply["status"] == "ok", cell.reply
        return cell

    fine("get_ipython().run_cell_magic('chat', '--stop \\ud800', 'say {half}')")
    fine(f"%chat save {path}")
    assert any(content["kind"] == "all" and content["messages"][0]["text"] == "say ? boo"
               for content in told(fine(f"%chat load {path}")))  # fmt: skip
    assert panel.value("shown.serialize()[0]['content'] == 'say ' + half")
    assert told(ask(panel, kind="hello"))[0]["messages"][0]["text"] == "say ? boo"
    assert fine("shown").of("display_data")[-1]["data"]["text/plain"].startswith("user: say ? boo\n\nassistant: ")
    assert "say ? boo" in fine("%chat list").of("display_data")[0]["data"]["text/markdown"]
    payload = fine("%chat edit").reply["payload"]
    assert [each["text"] for each in payload if "text" in each] == ["%%chat --raw\nsay ? boo"]
    fine("shown._asked(shown.widget, {'kind': 'set', 'name': 'system', 'value': '\\ud800'}, [])\n"
         "shown._session.submit(lambda stop: iter(())).wait()\n%config NbLLM.system = None")
    assert panel.value("shown.serialize()[0] == {'role': 'system', 'content': '\\ud800'}")
    fine("magic('new', '\\ud800')")
    assert "| ? |" in fine("%chat list").of("display_data")[0]["data"]["text/markdown"]
    (line,) = panel.run("magic('load', '\\ud801')").aside().error
    assert line.startswith("ConversationFileError: \\ud801 cannot be read")
    fine("%chat new")


def test_a_question_whose_prompt_was_being_read_is_given_back(panel):
    cell = panel.run("shown.send('hello').wait()\nlong = shown.send('word ' * 6000)\n"
                     "while not any(type(event).__name__ == 'Prefill' for event in long.events): pass"
                     ).aside()  # fmt: skip
    panel.run("shown.stop()\nlong.wait()")
    (error,) = [content for content in told(cell) if content["kind"] == "error"]
    assert error["draft"] == "word " * 6000 and error["ended"] and not error["wrong"]
    assert error["text"] == "Stopped before the reply began." and panel.value("len(shown.serialize())") == 2


def test_a_conversation_that_was_saved_with_its_cache_is_not_read_again(panel, tmp_path):
    path = str(tmp_path / "talk.jsonl")
    panel.run("before = shown.send('My name is Aurora, and I live in a house by the sea.').wait()[-1].stats")
    assert panel.run(f"%chat save {path} --cache").reply["status"] == "ok"
    panel.run("%chat new")
    panel.run("shown.send('Something else.').wait()")
    panel.run(f"shown.load({path!r}).wait()\nafter = shown.send('And?').wait()[-1].stats")
    assert panel.value("after.reused_tokens >= before.prompt_tokens + before.generated_tokens - 1")


def test_a_system_prompt_waits_for_the_reply_that_is_written(panel):
    panel.run(COUNTING).aside()
    ask(panel, kind="set", name="system", value="Be brief.")
    assert panel.value("[handle.ended, shown.serialize()]") == [False, []]
    last = "shown._session.submit(lambda stop: iter(())).wait()"
    panel.run(f"shown.stop()\nhandle.wait()\n{last}")
    assert panel.value("shown.serialize()[0]") == {"role": "system", "content": "Be brief."}
    ask(panel, kind="set", name="system", value="")
    panel.run(last)
    assert panel.value("shown.serialize()[0]['role']") == "user"


def test_while_a_cell_computes_what_comes_on_a_thread_of_its_own_is_answered_and_stopped(panel, tmp_path):
    gate, comm = tmp_path / "gate", panel.value("shown.widget.comm.comm_id")
    panel.run("%config NbLLM.max_tokens = 5")
    request = panel.client.session.msg("create_subshell_request", {})
    panel.client.control_channel.send(request)
    panel.ignored.add(request["header"]["msg_id"])
    thread = panel.client.get_control_msg(timeout=60)["content"]["subshell_id"]
    computing = panel.start(f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)")
    computing.until(lambda cell: cell.of("execute_input"))
    try:
        first = send(panel, comm, thread, kind="send", text="hello", view="mine")
        first.until(lambda cell: any(content["kind"] == "all" for content in told(cell)))
        assert first.of("comm_msg")[0]["data"]["content"] == {"kind": "taken", "view": "mine"}
        asked, answered = told(first)[-1]["messages"]
        assert asked["text"] == "hello" and answered["text"]
        send(panel, comm, thread, kind="set", name="max_tokens", value=2000).until(idle)
        second = send(panel, comm, thread, kind="send", text="Count to one thousand in words.")
        second.until(lambda cell: any(content.get("text") for content in told(cell)))
        send(panel, comm, thread, kind="stop").until(idle)
        second.until(lambda cell: told(cell)[-1]["kind"] == "all")
        assert "stopped" in [content for content in told(second) if content["kind"] == "reply"][-1]["footer"]
    finally:
        gate.touch()
    assert computing.finish().reply["status"] == "ok"


def test_while_a_cell_computes_what_comes_where_cells_do_waits_for_its_end(panel, tmp_path):
    gate, comm = tmp_path / "gate", panel.value("shown.widget.comm.comm_id")
    panel.run("%config NbLLM.max_tokens = 5")
    waits = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    computing = panel.start(f"{waits}\nbefore = len(shown.serialize())")
    computing.until(lambda cell: cell.of("execute_input"))
    asked = send(panel, comm, kind="send", text="hello")
    gate.touch()
    computing.finish()
    asked.until(lambda cell: any(content["kind"] == "all" for content in told(cell)))
    assert panel.value("before") == 0 and panel.value("shown.serialize()[0]['content']") == "hello"


def close(kernel):
    """As a browser does that lets the widget go."""
    message = kernel.client.session.msg(
        "comm_close", {"comm_id": kernel.value("shown.widget.comm.comm_id"), "data": {}}
    )
    kernel.client.shell_channel.send(message)
    return kernel.follow(message["header"]["msg_id"]).aside().until(idle)


def test_a_reply_goes_on_to_its_end_when_the_browser_is_gone_and_leaves_nothing(panel):
    panel.run("import threading, psutil\nprocess = psutil.Process()\nshown.send('hello', max_tokens=2).wait()")
    before = panel.value("[process.num_threads(), process.num_fds()]")
    panel.run(COUNT).aside()
    close(panel)
    panel.run("done = handle.wait()[-1]")
    assert panel.value("[done.finish_reason, done.stats.generated_tokens]") == ["length", 90]
    assert panel.run("%%chat --max-tokens 2\nhello").reply["status"] == "ok"
    assert panel.value("[process.num_threads(), process.num_fds()]") == before
    cell = panel.run("again = nbllm.panel()\nagain")
    assert cell.of("comm_open") and panel.value("[len(again.serialize()), again is nbllm.panel()]") == [4, True]
    assert told(panel.run("%%chat --max-tokens 2\nhello")) != []


def test_an_interrupt_while_no_cell_runs_leaves_its_reply_alone(panel):
    panel.run(COUNT).aside()
    panel.interrupt()
    panel.run("done = handle.wait()[-1]")
    assert panel.value("[done.finish_reason, done.stats.generated_tokens]") == ["length", 90]
