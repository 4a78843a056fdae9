"""Fenced code in a reply: its blocks, and which of them are Python."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.chat.code import CodeBlock, code_blocks, fenced, python

CASES = {
    "none": [],
    "a\n```python\nx = 1\n\ny = 2\n```\nb": [("python", "x = 1\n\ny = 2")],
    "```\nx\n```\n~~~ Bash title\nls\n~~~": [("", "x"), ("bash", "ls")],
    "```py\nopen at the end": [("py", "open at the end")],
    "````\n```\ninner\n```\n````": [("", "```\ninner\n```")],
    "- item\n  ```python\n  if x:\n      y\n  ```": [("python", "if x:\n    y")],
    "> ```\n> quoted\n> ```": [("", "quoted")],
    "```python\r\nx\r\n```": [("python", "x")],
    "inline ```x``` code": [],
    "```\n```": [("", "")],
}


@pytest.mark.parametrize("text", CASES)
def test_the_blocks_of(text):
    assert code_blocks(text) == [CodeBlock(*block) for block in CASES[text]]


def test_python_is_what_says_so_or_says_nothing():
    text = "\n".join(f"```{language}\n{i}\n```" for i, language in enumerate(["python", "bash", "", "ipython", "json"]))
    assert python(text) == "0\n\n2\n\n3"


@given(st.text(st.sampled_from("`~a \n")).map(lambda text: text.strip("\n")))
def test_a_fenced_text_is_one_block_whatever_it_holds(text):
    assert code_blocks(fenced(text, "python")) == [CodeBlock("python", text)]
