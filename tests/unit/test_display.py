"""Replies as outputs: what a notebook and a terminal get for the same events."""

import io
import sys

import pytest
from fakes import fake_model, tokens
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from nbllm.catalogue import Pulling
from nbllm.chat.conversation import Chat, Notice
from nbllm.jupyter import display
from nbllm.jupyter.session import Answering, Loading
from nbllm.runtime.events import Done, Packing, Prefill, Reading, Stats
from nbllm.runtime.options import Sampling
from nbllm.text import Text

STATS = Stats(prompt_tokens=43, reused_tokens=31, generated_tokens=87, prefill_seconds=0.5, decode_seconds=2.0)
CLUSTERS = "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇫🇷 é é̂ क्षि 각 שָׁ 𝒜"  # each one to the reader, of several characters or bytes
HOSTILE = "<img src=x onerror=alert(1)>*_\x1b]0;title\x07"


def events(text, finish_reason="end", model="Some-Model", **sampling):
    asked = Answering(model, "0" * 16, 2048, Sampling(**{"seed": 7} | sampling))
    pieces = [Text(text[i : i + 4], tokens(1)) for i in range(0, len(text), 4)]
    return [Loading(model), asked, Prefill(31, 43, 31), Prefill(43, 43, 31), *pieces, Done(STATS, finish_reason)]


@pytest.fixture
def notebook():
    """Feeds events to a notebook's output; returns it and every state that was published."""
    InteractiveShell.instance()

    def feed(events, filled=None):
        output = display.NotebookOutput(filled)
        with capture_output() as captured:
            for event in events:
                output.event(event)
            output.finish()
        return output, captured.outputs

    yield feed
    InteractiveShell.clear_instance()


@pytest.fixture
def terminal(monkeypatch):
    """Feeds events to a terminal's output; returns what it wrote."""

    def feed(events, tty=False, filled=None):
        screen = io.StringIO()
        screen.isatty = lambda: tty
        monkeypatch.setattr(sys, "stdout", screen)
        output = display.TerminalOutput(filled)
        for event in events:
            output.event(event)
        output.finish()
        monkeypatch.undo()
        return screen.getvalue()

    return feed


def test_an_interrupt_as_soon_as_the_first_state_is_shown_leaves_nothing_of_it(notebook, monkeypatch):
    sent = []

    def publish(data, metadata, transient, update=False, **more):
        sent.append((data["text/plain"], transient["display_id"], update))
        if not update:
            raise KeyboardInterrupt

    output = display.NotebookOutput()
    monkeypatch.setattr(InteractiveShell.instance().display_pub, "publish", publish)
    with pytest.raises(KeyboardInterrupt):
        output.paint()
    output.finish()
    (shown, name, first), last = sent
    assert (shown, first) == ("waiting for the model", False) and last == ("", name, True)


def test_a_quick_reply_is_painted_rarely_and_completely(notebook):
    text = "word " * 2000
    _, states = notebook(events(text))
    assert states[-1].data["text/plain"] == text
    assert len(states) < 100  # of more than 2,500 events


def test_without_haste_every_piece_is_painted_at_once(notebook, monkeypatch):
    monkeypatch.setattr(display, "INTERVAL", -1.0)
    monkeypatch.setattr(display, "RATE", float("inf"))
    monkeypatch.setattr(display.time, "monotonic", lambda: 0.0)
    _, states = notebook(events("abcdefgh"))
    assert [state.data["text/markdown"] for state in states[:-1]] == [
        "*loading Some-Model*", "*reading the prompt*", "*reading the prompt: 0%*", "*reading the prompt: 100%*",
        "abcd", "abcdefgh",
    ]  # fmt: skip
    assert states[-1].data["text/plain"] == "abcdefgh"
    written = [state for state in states[:-1] if state.metadata["nbllm"]["state"] == "writing"]
    assert [state.metadata["nbllm"]["new"] for state in written] == ["abcd", "efgh"]
    assert not any("text/plain" in state.data for state in written)


@pytest.mark.parametrize("speed", [1000, 160, 12, 1])  # tokens a second
def test_updates_are_few_in_a_second_and_small_in_all_and_none_is_late(notebook, monkeypatch, speed):
    now, size, when = 0.0, 0, []
    monkeypatch.setattr(display.time, "monotonic", lambda: now)
    *before, done = events("")
    output = display.NotebookOutput()

    def send(data, metadata):
        nonlocal size
        size += display.ENVELOPE + sum(map(len, data.values()))
        when.append(now)

    output.send = send
    for event in before:
        output.event(event)
    when.clear()
    for _ in range(400):
        now += 1 / speed
        output.event(Text("word ", tokens(1)))
    output.event(done)
    output.finish()
    pauses = [later - sooner for sooner, later in zip(when, when[1:-1])]
    assert min(pauses) >= 0.05 and max(pauses) <= max(display.PAUSE, 1 / speed) + 1 / speed
    assert size <= (60_000 if speed > 10 else 1_600_000)


def test_the_end_has_the_reply_and_a_footer_outside_of_its_code(notebook):
    text = "Look:\n```python\nprint('<b>')"
    _, states = notebook(events(text, "length", max_tokens=87), filled={"x": True, "df": False, "y": True})
    assert states[-1].data["text/plain"] == text
    assert states[-1].data["text/markdown"] == (
        text + "\n```\n\n*Some-Model · 12 tokens read, 31 reused, 87 written · 43.5 tokens/s · seed 7 · "
        "with the value of x, y · with a description of df · cut at 87 tokens (--max-tokens)*"
    )
    assert set(states[-1].data) == {"text/plain", "text/markdown"}


@pytest.mark.parametrize(("reason", "told"), [
    ("end", ""), ("stop", ""), ("stopped", " · stopped"), ("context", " · cut: the context of 2048 tokens is full"),
])  # fmt: skip
def test_the_footer_tells_why_a_reply_was_cut(notebook, reason, told):
    output, _ = notebook(events("x", reason, temperature=0))
    assert output.footer() == f"Some-Model · 12 tokens read, 31 reused, 87 written · 43.5 tokens/s{told}"


def test_a_download_shows_how_far_it_is(notebook):
    _, states = notebook([Pulling("tiny", 0, 200_000_000), *events("x")])
    assert states[0].data["text/markdown"] == "*downloading tiny (200 MB): 0%*"


def test_packing_shows_how_far_it_is(notebook):
    output, states = notebook([Loading("tiny"), Packing(37, 100), Packing(40, 100)])
    assert states[1].data["text/markdown"] == "*laying out weights: 37%*"
    _, states = notebook([Loading("tiny"), Packing(37, 100), *events("x")])
    assert states[-1].data["text/plain"] == "x"


def test_reading_weights_shows_how_far_it_is(notebook):
    _, states = notebook([Loading("tiny"), Reading(37, 100), Reading(40, 100)])
    assert states[1].data["text/markdown"] == "*reading weights: 37%*"


def test_notices_stay_above_the_reply(notebook):
    _, states = notebook([Notice("2 exchanges were dropped."), *events("Hello")])
    assert states[-1].data["text/plain"] == "2 exchanges were dropped.\n\nHello"
    assert states[-1].data["text/markdown"].startswith("*2 exchanges were dropped.*\n\nHello\n\n*Some-Model")


def test_without_an_end_no_status_is_left(notebook):
    output, states = notebook(events("")[:2])
    assert (states[-1].data["text/plain"], states[-1].data["text/markdown"]) == ("", "")
    assert output.stopped() == "Stopped before the reply began."


def test_a_hostile_reply_or_name_is_no_markup(notebook):
    _, states = notebook(events(HOSTILE, model=HOSTILE))
    markdown = states[-1].data["text/markdown"]
    assert "<" not in markdown.replace(r"\<", "") and states[-1].data["text/plain"] == HOSTILE


def test_half_of_a_surrogate_pair_is_a_question_mark_wherever_it_stood(notebook, terminal):
    told = [Notice("a\ud800"), *events("hello", model="b\udc00", stop=("\ud83d",))]
    data, metadata = notebook(told)[1][-1].data, notebook(told)[1][-1].metadata["nbllm"]
    assert data["text/plain"] == "a?\n\nhello" and data["text/markdown"].startswith("*a?*\n\nhello\n\n*b? ")
    assert metadata["model"] == "b?" and metadata["sampling"]["stop"] == ["?"]
    assert terminal(told).startswith("[a?]\nhello\n[b? ")


def test_a_terminal_gets_the_text_as_it_comes_and_a_footer(terminal):
    assert terminal([Notice("Note."), *events("Hello\n\tworld")]) == (
        "[Note.]\nHello\n\tworld\n[Some-Model · 12 tokens read, 31 reused, 87 written · 43.5 tokens/s · seed 7]\n"
    )


def test_a_terminal_gets_no_control_characters_of_the_model(terminal):
    written = terminal(events(HOSTILE, model=HOSTILE))
    assert not any(character < " " and character != "\n" for character in written)


def test_a_status_line_is_wiped_away_on_a_screen(terminal):
    written = terminal(events("Hello"), tty=True)
    assert written.startswith("\r\x1b[Kloading Some-Model\r\x1b[Kreading the prompt")
    assert written.rpartition("\r\x1b[K")[2] == terminal(events("Hello"))


def test_what_is_one_to_the_reader_is_whole_in_the_end_wherever_it_was_split(notebook):
    pieces = list(Chat(fake_model(CLUSTERS)).stream("say"))  # a token a byte
    shown = [event.text for event in pieces if isinstance(event, Text)]
    assert "".join(shown) == CLUSTERS and len(shown) == len(CLUSTERS)  # by characters, never by bytes
    _, states = notebook([Answering("model", "0" * 16, 100, Sampling(seed=1), None), *pieces])
    assert states[-1].data["text/plain"] == CLUSTERS and states[-1].data["text/markdown"].startswith(CLUSTERS)
