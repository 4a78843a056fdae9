"""What the Local LLM kernel makes of a typed cell: Python, commands, or a question."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.jupyter.local_llm_kernel import transform


def asked(line):
    """The question in a line of Python that asks."""
    call = ast.parse(line).body[0].value.value
    assert ast.unparse(call.func) == "get_ipython().kernel.ask"
    return ast.literal_eval(call.args[0])


@given(st.text(st.characters(codec="utf-8")).filter(lambda text: text.strip() and text.lstrip()[0] not in "%!?"))
def test_prose_is_asked_to_the_letter(text):
    (line,) = transform((text + "\n").splitlines(keepends=True))
    assert asked(line) == text + "\n"


@pytest.mark.parametrize("text", ["50 % of x", "% of x", "! Help", "?", "!", "Is it? %chat", "1 + 1", "import os"])
def test_this_is_prose_too(text):
    (line,) = transform([text + "\n"])
    assert asked(line) == text + "\n"


CASES = {
    "%%py\nx = 1\n": "#\nx = 1\n",
    "\n%%py \nx\n": "#\n#\nx\n",
    "%%py": "#\n",
    "%%python\nprint()\n": "%%python\nprint()\n",
    "\n%%chat -t 0\nhi\n": "%%chat -t 0\nhi\n",
    "%chat info\n": "%chat info\n",
    "!ls\n\n%pwd\n\n": "!ls\n%pwd\n",
    "?print\n": "?print\n",
    "!echo a \\\n  b\n": "!echo a \\\n  b\n",
    "!echo a \\\n\n": "!echo a \\\n",
    "%pwd \\\n": "%pwd \\\n",
    "\n \n\x1e\n": "",
    "": "",
}


@pytest.mark.parametrize("text", CASES)
def test_commands_and_python_stay(text):
    assert "".join(transform(text.splitlines(keepends=True))) == CASES[text]


def test_prose_below_a_command_of_several_lines_is_no_part_of_it():
    *command, line = transform(["!echo a \\\n", "  b \\\n", "c\n", "Hello\n"])
    assert command == ["!echo a \\\n", "  b \\\n", "c\n"] and asked(line) == "Hello\n"


def test_prose_below_commands_is_asked_after_them():
    command, line = transform(["\n", "%chat new\n", "\n", "Hello\n", "%x\n"])
    assert command == "%chat new\n" and asked(line) == "Hello\n%x\n"
