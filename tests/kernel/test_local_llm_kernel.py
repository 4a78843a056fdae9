"""The Local LLM kernel: prose is asked, commands and `%%py` cells run, and it is an IPython kernel in all else."""

import json
from importlib.metadata import version

import pytest

IPYKERNEL = tuple(map(int, version("ipykernel").split(".")[:2]))
TRICKY = "Hello, what's \"up\"? {braces} {x} $y\n  - it\\em ```\n'''q'''\n\n50 % of \N{SNOWMAN}"
MESSAGES = "__import__('nbllm.jupyter.session').jupyter.session.running().chat.messages"
SHELF = "__import__('nbllm.jupyter.session').jupyter.session.running().shelf.current.messages"
SHORT = "%config NbLLM.max_tokens = 6"


def test_prose_is_asked_as_it_was_typed_and_the_history_keeps_it(local_llm):
    local_llm.run(SHORT)
    cell = local_llm.run(TRICKY)
    assert cell.reply["status"] == "ok" and cell.made["generated_tokens"] <= 6
    assert local_llm.value(f"{MESSAGES}[0]") == {"role": "user", "content": TRICKY}
    assert local_llm.value(f"{MESSAGES}[1]['content']") == cell.text
    assert local_llm.ask("history", hist_access_type="tail", n=1)["history"][0][2] == TRICKY


def test_inputs_are_what_was_typed(local_llm):
    typed = [SHORT, "Is it \"so\"?\n\nIt is.", "%%py\nx = 1", "%chat new\n\nAnd now?"]
    for cell in typed:
        local_llm.run(cell)
    assert local_llm.value("[In[1:], _ih[1:], [_i1, _i2, _i3, _i4]]") == [typed] * 3
    local_llm.run("%%py\nseen = _i, _ii, _iii")
    assert local_llm.value("seen") == typed[:0:-1]
    assert local_llm.run("%history -l 5").printed == "\n".join([*typed, "%%py\nseen = _i, _ii, _iii"]) + "\n"
    local_llm.run("What is {In[2]}")
    assert local_llm.value(f"{MESSAGES}[-2]['content']") == f"What is {typed[1]}"
    assert local_llm.run("%%py\n%who").printed.strip() == "seen\t x"
    local_llm.run("%reset -f")
    assert local_llm.value("In[2]") == typed[1]


def test_py_cells_are_python_with_their_own_line_numbers(local_llm):
    cell = local_llm.run("%%py\nimport asyncio\nawait asyncio.sleep(0)\nx = 6 * 7\nx")
    assert cell.of("execute_result")[0]["data"]["text/plain"] == "42"
    failed = local_llm.run("%%py\n\n1/0")
    assert failed.reply["ename"] == "ZeroDivisionError" and "line 3" in "".join(failed.error)
    assert local_llm.run("%%py\nget_ipython().run_cell('print(x)')").printed == "42\n"
    local_llm.run(SHORT)
    local_llm.run("What is {x} plus one?")
    assert local_llm.value(f"{MESSAGES}[0]['content']") == "What is 42 plus one?"


def test_commands_run_also_above_prose(local_llm):
    local_llm.run(SHORT)
    local_llm.run("My name is Aurora.")
    assert local_llm.run("!echo hi").printed.strip() == "hi"
    assert "AVX2" in local_llm.run("%chat info").printed
    assert local_llm.run("%%chat --max-tokens 2\nhello").made["generated_tokens"] == 2
    cell = local_llm.run("%chat new\n\nGood morning!\nHow are you?")
    assert [output["data"]["text/plain"] for output in cell.outputs][0] == "A new conversation."
    assert [message["content"] for message in local_llm.value(MESSAGES)][::2] == ["Good morning!\nHow are you?"]


def test_blank_cells_do_nothing(local_llm):
    cell = local_llm.run("\n  \n")
    assert cell.reply["status"] == "ok" and not cell.updates


def test_an_interrupt_stops_prose_and_py_cells(local_llm):
    local_llm.run("%config NbLLM.max_tokens = 2000\n%config NbLLM.temperature = 1")
    cell = local_llm.start("Count from one to one thousand, in words.")
    cell.until(lambda cell: "writing" in cell.states)
    since = local_llm.interrupt()
    cell.finish()
    print(f"stopped after {cell.ended - since:.3f} s")
    assert cell.ended - since < 2
    assert cell.error == [f"Stopped after {cell.made['generated_tokens']} tokens; the partial reply is kept."]
    assert local_llm.value(f"{MESSAGES}[-1]['content']") == cell.text
    sleeping = local_llm.start("%%py\nprint('now', flush=True)\nimport time; time.sleep(60)")
    sleeping.until(lambda cell: cell.printed)
    local_llm.interrupt()
    assert sleeping.finish().reply["ename"] == "KeyboardInterrupt"
    assert local_llm.run("%%py\n1 + 1").reply["status"] == "ok"


def test_an_interrupt_stops_the_reading_of_a_prompt(local_llm):
    local_llm.run(SHORT)
    cell = local_llm.start("The sea was calm and the night was long. " * 600)
    cell.until(lambda cell: any("%" in update["data"]["text/plain"] for update in cell.updates))
    since = local_llm.interrupt()
    assert cell.finish().error == ["Stopped while reading the prompt."]
    print(f"stopped after {cell.ended - since:.3f} s")


def test_run_all_halts_after_an_interrupt(local_llm):
    local_llm.run("%config NbLLM.max_tokens = 2000")
    first = local_llm.start("Tell me a long story.").until(lambda cell: len(cell.updates) > 4)
    second = local_llm.start("And then?")
    local_llm.interrupt()
    assert first.finish().reply["ename"] == "Stopped"
    assert second.finish().reply["status"] == "aborted"


@pytest.mark.skipif(IPYKERNEL < (7, 4), reason="ipykernel before 7.4 handles comms when the cell has ended")
def test_comms_are_handled_while_the_model_writes(local_llm):
    """Widgets are alive during a reply, because prose is awaited."""
    local_llm.run("%config NbLLM.max_tokens = 60")
    local_llm.run("%%py\nimport comm\nasked, handled = [], []\nchannel = comm.create_comm(target_name='test')\n"
                  "channel.on_msg(lambda message: handled.append(list(asked)))")
    opened = local_llm.value("channel.comm_id")
    cell = local_llm.start("Tell me a long story about the sea.").until(lambda cell: len(cell.updates) > 3)
    message = local_llm.client.session.msg("comm_msg", {"comm_id": opened, "data": {}})
    local_llm.ignored.add(message["header"]["msg_id"])
    local_llm.client.shell_channel.send(message)
    cell.finish()
    assert local_llm.value("[asked.append('later'), handled][1]") == [[]]


def test_is_complete_completion_and_inspection_leave_prose_alone(local_llm):
    assert local_llm.ask("is_complete", "don't you (think") == {"status": "complete"}
    assert local_llm.ask("is_complete", "%%py\nfor i in x:")["status"] == "incomplete"
    assert local_llm.ask("complete", "hello wor")["matches"] == []
    assert "import" in local_llm.ask("complete", "%%py\nimpo")["matches"]
    assert local_llm.ask("inspect", "%%py\nprint", 9)["found"] is True


def test_below_commands_what_the_cursor_is_in_decides(local_llm):
    local_llm.run("%%py\nwords = ['moon']")
    cell = "%chat sw\n\nWhat are {words} and {wo"
    assert local_llm.ask("complete", cell)["matches"] == ["words"]
    assert local_llm.ask("complete", cell)["cursor_start"] == len(cell) - 2
    assert local_llm.ask("complete", cell, len("%chat sw"))["matches"] == ["switch"]
    assert "moon" in local_llm.ask("inspect", cell, cell.index("words"))["data"]["text/plain"]
    assert "message to the model" in local_llm.ask("inspect", cell, cell.index("What"))["data"]["text/plain"]
    assert "start a new conversation" in local_llm.ask("inspect", cell, len("%chat"))["data"]["text/plain"]
    assert local_llm.ask("is_complete", "%chat new\ndon't you (think") == {"status": "complete"}
    assert local_llm.ask("complete", "%%chat\n\nWhat are {wo")["matches"] == ["words"]
    assert local_llm.ask("complete", "%%py\n\nwords.appe")["matches"] == ["append"]


def test_a_cell_with_half_of_a_surrogate_pair_is_answered(local_llm):
    local_llm.client.session.pack = lambda value: json.dumps(value, default=str).encode()  # as browsers write it
    local_llm.run(SHORT)
    assert local_llm.run("Hello \ud83d there").reply["status"] == "ok"
    assert local_llm.value(f"{MESSAGES}[0]['content']") == "Hello ? there"
    assert local_llm.run("%chat save /\ud83d/talk.jsonl").reply["ename"] == "ConversationFileError"


def test_a_cursor_that_is_nowhere_in_the_cell_is_at_its_end(local_llm):
    local_llm.run("%%py\nwords = ['moon']")
    cell = "What are {words"
    for cursor in (None, -1, 10**9):
        for request, found in (("complete", {"matches": ["words"]}), ("inspect", {"found": True})):
            message = local_llm.client.session.msg(f"{request}_request", {"code": cell, "cursor_pos": cursor})
            local_llm.client.shell_channel.send(message)
            reply = local_llm.message("shell")
            assert reply["parent_header"]["msg_id"] == message["header"]["msg_id"]
            assert reply["content"].items() >= found.items()


def test_prose_is_asked_also_without_the_magics(local_llm):
    local_llm.run("%load_ext nbllm\n%unload_ext nbllm")
    local_llm.run("%%py\nx = 42")
    assert "42" in local_llm.ask("inspect", "What is {x}?", 10)["data"]["text/plain"]
    local_llm.run("What is {x} plus one?")
    assert local_llm.value(f"{MESSAGES}[-2]['content']") == "What is 42 plus one?"
    local_llm.run("%load_ext nbllm")
    assert local_llm.run("%%chat --max-tokens 2\nhello").made["generated_tokens"] == 2


def test_its_kernelspec_and_its_introduction(local_llm):
    info = local_llm.ask("kernel_info")
    assert info["implementation"] == "nbllm" and info["language_info"]["name"] == "markdown"
    spec = local_llm.manager.kernel_spec
    assert (spec.display_name, spec.language, spec.interrupt_mode) == ("Local LLM", "markdown", "message")


def asked(kernel):
    return [message["content"] for message in kernel.value(MESSAGES)][::2]


def run_as(kernel, name, code):
    """Run a cell as a front end does that has a name for it."""
    message = kernel.client.session.msg("execute_request", {"code": code, "silent": False, "store_history": True,
                                        "user_expressions": {}, "allow_stdin": False, "stop_on_error": True},
                                        metadata={"cellId": name})  # fmt: skip
    kernel.client.shell_channel.send(message)
    return kernel.follow(message["header"]["msg_id"]).finish()


def test_running_an_earlier_cell_again_takes_the_conversation_back_to_it(local_llm):
    local_llm.run(SHORT)
    for name, text in (("a", "one"), ("b", "two"), ("c", "three")):
        run_as(local_llm, name, text)
    again = run_as(local_llm, "b", "two, but better")
    assert asked(local_llm) == ["one", "two, but better"]
    assert "The conversation goes on from this cell: 1 later exchange was taken back." in again.text
    assert "taken back" not in run_as(local_llm, "b", "two again").text  # the last cell: only its own reply is replaced
    assert asked(local_llm) == ["one", "two again"]
    run_as(local_llm, "c", "three")  # was taken back, so it is new
    local_llm.run("no name")
    local_llm.run("%chat retry")
    local_llm.run("%chat undo")
    assert asked(local_llm) == ["one", "two again", "three"]
    local_llm.run("%chat branch other")
    run_as(local_llm, "a", "first")
    assert asked(local_llm) == ["first"]
    local_llm.run("%chat switch 1")
    assert [m["content"] for m in local_llm.value(SHELF)][::2] == ["one", "two again", "three"]
    run_as(local_llm, "c", "three")
    local_llm.run("%chat retry")
    run_as(local_llm, "c", "and this")
    assert asked(local_llm) == ["one", "two again", "and this"]


def test_every_cell_that_asks_takes_the_conversation_back_to_its_first_question(local_llm):
    local_llm.run(SHORT)
    run_as(local_llm, "a", "%%chat -t 0\none")
    run_as(local_llm, "b", "%%py\nfor word in 'two', 'three':\n    get_ipython().run_cell_magic('chat', '', word)")
    run_as(local_llm, "c", "%%py\n1 / 0")
    run_as(local_llm, "d", "%chat fix")  # six tokens have no code, and that is said
    fix = asked(local_llm)[3]
    assert asked(local_llm) == ["one", "two", "three", fix] and "1 / 0" in fix
    run_as(local_llm, "f", "Thank you.")
    run_as(local_llm, "d", "%chat fix")
    assert asked(local_llm) == ["one", "two", "three", fix]
    run_as(local_llm, "e", "%chat retry")
    run_as(local_llm, "e", "%chat retry")  # has no question of its own
    run_as(local_llm, "b", "%%chat\nfour")
    assert asked(local_llm) == ["one", "four"]
    again = run_as(local_llm, "a", "%%chat\none again")
    assert "The conversation goes on from this cell: 1 later exchange was taken back." in again.text
    assert asked(local_llm) == ["one again"]
    run_as(local_llm, "a", "%%chat --new\nfive")
    assert asked(local_llm) == ["five"]
    run_as(local_llm, "b", "six")
    shown = run_as(local_llm, "a", "%%chat --bg -o later\nseven").of("display_data")
    local_llm.ignored.add(shown[0]["transient"]["display_id"])  # grows during the next cell
    local_llm.run("%%py\nlater.wait()")
    assert asked(local_llm) == ["seven"]


def test_a_cell_that_is_run_again_and_stopped_at_once_takes_nothing_back(local_llm):
    local_llm.run(SHORT)
    run_as(local_llm, "a", "one")
    run_as(local_llm, "b", "two")
    before = local_llm.value(MESSAGES)
    message = "The sea was calm and the night was long. " * 100_000
    failed = run_as(local_llm, "a", message)
    assert failed.reply["ename"] == "ContextFullError" and local_llm.value(MESSAGES) == before


def test_shift_tab_shows_what_the_model_would_be_told(local_llm):
    local_llm.run("%%py\nx = [1, 2, 3]")
    shown = local_llm.ask("inspect", "What is {x}, and {y}?", 10)
    assert shown["found"] is True and "[1, 2, 3]" in shown["data"]["text/plain"]
    for place in (3, 19):
        assert "message to the model" in local_llm.ask("inspect", "What is {x}, and {y}?", place)["data"]["text/plain"]


def test_an_interrupt_reaches_what_no_cell_waits_for(local_llm):
    local_llm.run(SHORT)
    local_llm.run("one")
    local_llm.run("%%py\nfrom nbllm.jupyter import session\nnow = session.running()\n"
                  "handle = now.submit(now.ask('Tell me a long story.', now.sampling(max_tokens=5000)))\n"
                  "while len(handle.events) < 20: pass")  # fmt: skip
    local_llm.interrupt()
    while local_llm.run("%%py\nreason = handle.wait()[-1].finish_reason").reply.get("ename") == "KeyboardInterrupt":
        pass  # the signal may come as late as in this cell
    assert local_llm.value("reason") == "stopped"
    assert local_llm.run("And then?").reply["status"] == "ok"


def test_it_ends_at_once_when_it_is_shut_down_while_writing(local_llm):
    local_llm.run("%config NbLLM.max_tokens = 5000")
    local_llm.start("Tell me a long story.").until(lambda cell: len(cell.updates) > 4)
    local_llm.client.shutdown()
    assert local_llm.manager.provisioner.process.wait(timeout=20) == 0
