"""Tab and Shift-Tab, as a front end asks for them."""

import pytest


@pytest.mark.parametrize(("code", "typed", "offered"), [
    ("%%chat --max", "--max", ["--max-tokens"]),
    ("%%chat -t 0 -w some_na", "some_na", ["some_name"]),
    ("%%chat\nHow large is {some_na", "some_na", ["some_name"]),
    ("%%chat\nHow large is {some_name.rea", "some_name.rea", ["some_name.real"]),
    ("x = 1\n%chat und", "und", ["undo"]),
])  # fmt: skip
def test_tab_offers_what_fits_and_nothing_else(kernel, code, typed, offered):
    kernel.run("some_name = 1")
    for rest in ("", "\nand more"):
        reply = kernel.ask("complete", code + rest, len(code))
        assert (reply["matches"], code[reply["cursor_start"] : reply["cursor_end"]]) == (offered, typed)


def test_python_is_completed_as_before(kernel):
    assert "print" in kernel.ask("complete", "prin")["matches"]


def test_shift_tab_shows_the_options_and_the_commands(kernel):
    cell = kernel.ask("inspect", "%%chat", 6)
    assert cell["found"] and "--max-tokens X" in cell["data"]["text/plain"]
    shown = kernel.run("%%chat?").reply["payload"][0]["data"]["text/plain"]
    assert "most tokens in a reply" in shown and "--with NAMES" in shown
    assert "%chat undo [N]" in kernel.run("%chat?").reply["payload"][0]["data"]["text/plain"]


def test_in_the_local_llm_kernel_names_are_offered_in_prose(local_llm):
    local_llm.run("%%py\nsome_name = 1")
    reply = local_llm.ask("complete", "Is {some_na", 11)
    assert (reply["matches"], reply["cursor_start"], reply["cursor_end"]) == (["some_name"], 4, 11)
    assert local_llm.ask("complete", "Is some_na", 10)["matches"] == []
    assert local_llm.ask("complete", "%chat und", 9)["matches"] == ["undo"]
