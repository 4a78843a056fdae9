"""What a reasoning model thinks is kept apart from its answer: in the stream, the conversation,
and what the user sees."""

import io
import sys

import pytest
from fakes import CHATML, fake_model, tokens
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from nbllm import cli, model
from nbllm.chat.conversation import Chat
from nbllm.chat.thinking import Thought, Thoughts
from nbllm.jupyter import display
from nbllm.jupyter.session import Answering
from nbllm.text import Text
from nbllm.runtime.events import Done, Stats
from nbllm.runtime.options import Sampling

OPENING = CHATML.replace("assistant\\n'", "assistant\\n<think>\\n'")  # this template opens the thought itself


def split(pieces, prompt="", space=False):
    """The thought and the answer of a reply that comes in these pieces."""
    thoughts = Thoughts(prompt, space)
    pairs = [*(thoughts.push(piece) for piece in pieces), thoughts.push("", end=True)]
    return tuple("".join(part) for part in zip(*pairs))


REPLIES = {  # what the model writes -> the thought, and the answer
    "Hello.": ("", "Hello."),
    "  Hello. ": ("", "  Hello. "),
    "<think>\nHm.\n</think>\n\nHello. \n": ("Hm.\n", "Hello. \n"),
    "\n<think>Hm.</think>Hello.": ("Hm.", "Hello."),
    "[THINK]Hm.[/THINK]Hello.": ("Hm.", "Hello."),
    "<thinking>Hm. </think></thinking> Hello.": ("Hm. </think>", "Hello."),
    "<think>\n\n</think>\n\nHello.": ("", "Hello."),
    "<think>not ended </thin": ("not ended </thin", ""),
    "<think>a <think> b</think>c</think>d": ("a <think> b", "c</think>d"),
    "a <think>b</think>": ("", "a <think>b</think>"),
    "<thi": ("", "<thi"),
    "</think>a": ("", "</think>a"),
    "": ("", ""),
    " ": ("", " "),
}


@pytest.mark.parametrize(("text", "parts"), REPLIES.items())
def test_a_thought_is_what_stands_between_the_tags_before_the_answer(text, parts):
    assert split([text]) == parts
    assert split(text) == parts  # one character at a time


@given(st.sampled_from(list(REPLIES)), st.data())
def test_the_pieces_do_not_matter(text, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    assert split([text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)])]) == REPLIES[text]


@pytest.mark.parametrize("text", ["\nHm.</think>\n\nHello.", "Hm.</think>Hello."])
def test_the_template_may_have_opened_the_thought(text):
    assert split(text, "<|assistant|>\n<think>\n") == ("Hm.", "Hello.")
    assert split("Hello.", "<|assistant|>\n<think>\n\n</think>\n\n") == ("", "Hello.")


def test_text_is_held_back_only_while_it_may_be_a_tag():
    thoughts = Thoughts("")
    assert [thoughts.push(piece) for piece in ("<", "thi", "nk", ">", "a<", "/b", " </", "think>", "\n", "c<")] == [
        ("", ""), ("", ""), ("", ""), ("", ""), ("a", ""), ("</b", ""), (" ", ""), ("", ""), ("", ""), ("", "c<"),
    ]  # fmt: skip


def test_one_space_before_an_answer_is_the_vocabularys():
    assert split(["  Hello"], space=True) == ("", " Hello")
    assert split([" Hello"], space=False) == ("", " Hello")


def test_a_conversation_keeps_the_thought_beside_the_answer_and_does_not_send_it_again():
    chat = Chat(fake_model("<think>\nHm.\n</think>\n\nHello.", "ok"))
    events = list(chat.stream("hi"))
    assert "".join(event.text for event in events if isinstance(event, Thought)) == "Hm.\n"
    assert "".join(event.text for event in events if isinstance(event, Text)) == "Hello."
    ids = [token.id for event in events if isinstance(event, Text | Thought) for token in event.tokens]
    assert bytes(ids).decode() == "<think>\nHm.\n</think>\n\nHello."
    assert (chat.last.text, str(chat.last), chat.last.think) == ("Hello.", "Hello.", "Hm.")
    assert chat.messages[1] == {"role": "assistant", "content": "Hello.", "reasoning_content": "Hm."}
    chat("more")
    sent = chat.model.detokenize(chat.sent)
    assert "Hm." not in sent and "<|im_start|>assistant\nHello.<|im_end|>" in sent


def test_a_template_gets_the_thought_and_shows_of_it_what_it_wants():
    template = "{% for m in messages %}({{ m.reasoning_content }}){{ m.content }}{% endfor %}"
    chat = Chat(fake_model("<think>Hm.<|im_end|></think>Hello.", "ok", template=template))
    chat("a")
    chat("b")
    assert chat.model.detokenize(chat.sent) == "()a(Hm.<|im_end|>)Hello.()b"
    assert 257 not in chat.sent  # the token that the model's own text spells


def test_a_reply_that_was_cut_in_its_thought_is_kept():
    chat = Chat(fake_model("Hm, let me see", "ok", template=OPENING))
    reply = chat("hi", max_tokens=5)
    assert (reply.text, reply.think, reply.finish_reason) == ("", "Hm, l", "length")
    assert [message["content"] for message in chat.messages] == ["hi", ""]


def test_a_turn_that_is_broken_off_keeps_what_was_held_back():
    def on_step(step):
        if step == 3:
            raise KeyboardInterrupt

    chat = Chat(fake_model("<think>", on_step=on_step))
    with pytest.raises(KeyboardInterrupt):
        chat("hi")
    assert chat.last.text == chat.messages[1]["content"] == "<th"


# ---- what the user sees

STATS = Stats(prompt_tokens=4, reused_tokens=0, generated_tokens=8, prefill_seconds=0.5, decode_seconds=2.0)
HOSTILE = "<img src=x onerror=alert(1)>\n\x1b]0;title\x07\n```\n</details>"


def events(thought, answer):
    asked = Answering("M", "0" * 16, 2048, Sampling(temperature=0))
    return [
        asked, Thought(thought, tokens(1)), Thought("\nSo.\n", tokens(1)), Text(answer, tokens(2)),
        Done(STATS, "end"),
    ]  # fmt: skip


def feed(output, events):
    for event in events:
        output.event(event)
    output.finish()
    return output


def in_notebook(thought, answer):
    InteractiveShell.instance()
    try:
        with capture_output() as captured:
            output = feed(display.NotebookOutput(), events(thought, answer))
    finally:
        InteractiveShell.clear_instance()
    return output, captured.outputs[-1]


def test_a_notebook_shows_the_thought_as_a_quotation_and_records_it():
    output, shown = in_notebook("Hm.", "Hello.")
    assert shown.data["text/plain"] == "> Hm.\n> So.\n\nHello."
    assert shown.data["text/markdown"].startswith("> Hm.\n> So.\n\nHello.\n\n*M · ")
    assert shown.metadata["nbllm"]["think"] == "Hm.\nSo."
    assert (output.text, output.think) == ("Hello.", "Hm.\nSo.\n")


def test_a_hostile_thought_is_no_markup_and_ends_before_the_answer():
    _, shown = in_notebook(HOSTILE, "Hello.")
    thought, _, rest = shown.data["text/markdown"].partition("\n\nHello.")
    lines = thought.split("\n")
    assert all(line.startswith("> ") for line in lines) and lines[-1].strip("> ") == "```"
    assert "<" not in thought.partition("```")[0] and rest.startswith("\n\n*M")


@pytest.mark.parametrize(("tty", "shown"), [
    (False, "> Hm.\n> So.\n> \n\nHello.\n[M"),
    (True, "\x1b[2mHm.\x1b[22m\x1b[2m\nSo.\n\x1b[22m\n\nHello.\n[M"),
])  # fmt: skip
def test_a_terminal_shows_the_thought_dimmed_or_quoted(monkeypatch, tty, shown):
    screen = io.StringIO()
    screen.isatty = lambda: tty
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(display.time, "monotonic", iter(range(0, 10**6, 100)).__next__)
    feed(display.TerminalOutput(), events("Hm.", "Hello."))
    assert shown in screen.getvalue()


def test_a_terminal_gets_no_control_characters_of_a_thought(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    feed(display.TerminalOutput(), events(HOSTILE, HOSTILE))
    assert not any(character < " " and character != "\n" for character in screen.getvalue())


def test_the_command_line_has_the_answer_alone_on_standard_output(monkeypatch, capsys):
    fake = fake_model("<think>Hm.</think>Hello.")
    monkeypatch.setattr(model, "load", lambda *arguments, **named: fake)
    assert cli.main(["chat", "hi"]) == 0
    assert capsys.readouterr() == ("Hello.\n", "Hm.\n\n")
