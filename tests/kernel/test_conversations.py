"""Conversations in a Jupyter kernel: taken back, asked again, copied, saved; and what goes into the next cell."""

import json

import pytest

CHAT = "__import__('nbllm.jupyter.session').jupyter.session.running()"
SAY = "%%chat --max-tokens 3\n"


def questions(kernel):
    return [message["content"] for message in kernel.value(f"{CHAT}.shelf.current.messages")][::2]


def next_cell(cell):
    """What the cell put into the next one, and that it is a new cell, not this one's text."""
    (payload,) = (each for each in cell.reply["payload"] if each["source"] == "set_next_input")
    assert payload["replace"] is False
    return payload["text"]


@pytest.fixture
def talk(kernel):
    """A conversation with two exchanges."""
    kernel.run(SAY + "My name is Aurora.")
    kernel.run(SAY + "And yours?")
    return kernel


def test_undo_takes_back_and_the_cache_goes_on(talk):
    assert talk.run("%chat undo").text == "Taken back: 1. The conversation goes on after 1 exchange."
    made = talk.run(SAY + "What is my name?").made
    assert made["prompt_tokens"] - made["reused_tokens"] < 30
    assert questions(talk) == ["My name is Aurora.", "What is my name?"]


def test_retry_replaces_the_reply_and_takes_options(talk):
    asked = talk.value(f"{CHAT}.chat.sent")
    cell = talk.run("%chat retry --max-tokens 5 -t 0 -o again")
    assert talk.value(f"{CHAT}.chat.sent") == asked and cell.made["sampling"]["temperature"] == 0
    assert questions(talk) == ["My name is Aurora.", "And yours?"]
    assert talk.value(f"{CHAT}.chat.messages[-1]['content']") == cell.text == talk.value("again.text")


def test_edit_puts_a_question_into_the_next_cell_and_the_conversation_into_a_copy(talk):
    name = talk.value(f"{CHAT}.shelf.name")
    assert next_cell(talk.run("%chat edit 2")) == "%%chat --raw\nMy name is Aurora."
    assert questions(talk) == []
    assert f"Conversation {name} goes on after 2 exchanges." == talk.run(f"%chat switch {name}").text


def test_conversations_have_names_and_are_listed(talk):
    talk.run("%chat new tales | of *mine*")
    talk.run(SAY + "Once\nupon a time " + "x" * 100)
    (shown,) = talk.run("%chat list").of("display_data")
    assert "\n| tales \\| of \\*mine\\* | 1 | Once upon a time xxx" in shown["data"]["text/markdown"]
    assert "goes on" in shown["data"]["text/plain"].splitlines()[-1]
    talk.run("%chat new")


def test_a_conversation_that_began_with_an_attachment_is_listed_by_its_question(kernel):
    kernel.run("x = 'The sea was calm. ' * 20")
    kernel.run("%%chat --new --max-tokens 3 --with x\nWhat is x?")
    (shown,) = kernel.run("%chat list").of("display_data")
    assert "| 1 | What is x? | goes on |" in shown["data"]["text/markdown"]


def test_a_conversation_is_saved_loaded_in_another_and_exported(talk, tmp_path):
    path = tmp_path / "my talk.jsonl"
    assert talk.run(f"%chat save '{path}'").text == f"Saved 2 exchanges in {path}."
    talk.run("%chat new")
    assert talk.run(f"%chat load '{path}'").text.startswith("Conversation my talk")
    assert questions(talk) == ["My name is Aurora.", "And yours?"]
    talk.run(f"%chat export '{tmp_path / 'talk.md'}'")
    assert (tmp_path / "talk.md").read_text().startswith("> My name is Aurora.\n\n")
    assert json.loads(path.read_text().splitlines()[1])["role"] == "user"
    path.write_bytes(path.read_bytes()[:-2])
    (line,) = talk.run(f"%chat load '{path}'").error
    assert line.startswith("ConversationFileError: ") and "is damaged" in line


def test_the_reply_s_python_goes_into_the_next_cell_and_is_not_run(kernel):
    kernel.run("""
from nbllm.jupyter import session as module
from nbllm.chat.conversation import Chat
real = Chat.stream
def spoken(text):
    from nbllm.text import Text
    from nbllm.runtime.events import Done, Stats, Token
    def stream(self, message, stop_flag=None, **options):
        asked.append(message)
        yield Text(text, (Token(1), Token(2)))
        yield Done(Stats(1, 0, 2, 0.5, 0.5), "end")
    Chat.stream = stream
asked, ran = [], []
spoken("Look:\\n```python\\nran.append(1)\\n```\\n```bash\\nls\\n```")
""")
    cell = kernel.run("%%chat --code -o answer\nhello")
    assert next_cell(cell) == "ran.append(1)"
    assert kernel.value("[ran, answer.code, [token.id for token in answer.tokens]]") == [[], "ran.append(1)", [1, 2]]
    assert kernel.run("1/0").reply["ename"] == "ZeroDivisionError"
    assert next_cell(kernel.run("%chat fix")) == "ran.append(1)"
    question = kernel.value("asked[-1]")
    assert "```python\n1/0\n```" in question and "ZeroDivisionError: division by zero" in question
    kernel.run("spoken('no code')")
    cell = kernel.run("%%chat --code\nhello")
    assert cell.error == ["NbLLMError: the reply has no block of Python to put into the next cell; ask for one"]
    kernel.run("Chat.stream = real")


def test_overflow_is_a_setting(kernel):
    kernel.run("%config NbLLM.overflow = 'stop'")
    kernel.run(SAY + "hello")
    assert kernel.value(f"{CHAT}.chat.overflow") == "stop"
    kernel.run("%config NbLLM.overflow = 'drop'")


def test_in_the_local_llm_kernel_the_next_cell_is_prose_or_marked_as_python(local_llm):
    local_llm.run("%config NbLLM.max_tokens = 3")
    local_llm.run("Good morning!")
    assert next_cell(local_llm.run("%chat edit")) == "Good morning!"
    local_llm.run("%%py\nfrom nbllm.jupyter.commands import next_cell")
    assert next_cell(local_llm.run("%%py\nnext_cell(get_ipython(), 'code', 'x = 1')")) == "%%py\nx = 1"
