"""Terminal IPython: the reply is printed, and Ctrl-C stops it with one line."""

import os
import re
import sys

import pytest

pexpect = pytest.importorskip("pexpect", reason="terminals are driven by pexpect, which is not for Windows")

ASK = "get_ipython().run_cell_magic('chat', {!r}, {!r})"  # in one line, as IPython reads lines from this terminal
PROMPT = r"In \[\d+\]: "
FOOTER = r"\[\S+ · \d+ tokens read, \d+ reused, \d+ written · [\d.]+ tokens/s · seed 1.*?\]"


@pytest.fixture
def terminal(default_model):
    """Runs lines in IPython on a terminal, and returns the screen up to what is expected."""
    child = pexpect.spawn(sys.executable, ["-m", "IPython", "--no-banner", "--simple-prompt", "--colors=nocolor"],
                          env=os.environ | {"TERM": "dumb"}, timeout=60, encoding="utf-8", echo=False,
                          dimensions=(50, 300))  # fmt: skip
    child.expect(PROMPT)

    def run(code):
        child.sendline(code)
        child.expect(PROMPT)
        return child.before

    run("%load_ext nbllm")
    run(f"%config NbLLM.model = {str(default_model)!r}")
    run("%config NbLLM.seed = 1")
    run.child = child
    yield run
    child.close(force=True)


def test_a_reply_is_printed_with_its_footer(terminal):
    screen = terminal(ASK.format("-o answer --max-tokens 12", "Tell me about the moon."))
    assert re.search(FOOTER, screen)
    text = terminal("print('<<' + answer.text + '>>')")
    reply = re.search(r"<<(.*)>>", text, re.DOTALL)[1]
    assert reply in screen


def test_ctrl_c_stops_a_reply_and_ipython_goes_on(terminal):
    terminal.child.sendline(ASK.format("--max-tokens 2000 -t 1", "Count from one to one thousand, in words."))
    terminal.child.expect(r"\x1b\[K(?!waiting|loading|reading)\w")  # no status any more, the reply
    terminal.child.sendintr()
    terminal.child.expect(r"Stopped after \d+ tokens; the partial reply is kept\.")
    terminal.child.expect(PROMPT)
    assert "Traceback" not in terminal.child.before
    assert "42" in terminal("6 * 7")


def test_a_reply_in_the_background_is_silent_until_it_is_asked_for(terminal):
    asked = terminal(ASK.format("--bg -o later --max-tokens 12", "Tell me about the moon."))
    assert "Traceback" not in asked and not re.search(FOOTER, asked)
    (state,) = re.findall(r"<a reply in the background: .*?>", terminal("later"))
    assert state.endswith("characters>")
    reply = re.search(r"<<(.+)>>", terminal("print('<<' + later.wait().text + '>>')"), re.DOTALL)[1]
    assert f"done, {len(reply):,} characters>" in terminal("later").replace("\r", "")


def test_a_reply_in_the_background_is_stopped_by_a_command(terminal):
    terminal(ASK.format("--bg -o later --max-tokens 2000 -t 1", "Count from one to one thousand, in words."))
    assert "Traceback" not in terminal("%chat stop")
    screen = terminal("later.wait().stats.generated_tokens if later.text else later.wait()")
    assert re.search(r"Out\[\d+\]: \d+\b|Stopped before", screen) and "Traceback" not in screen
