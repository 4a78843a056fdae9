"""A reply as Markdown: mathematics, money, HTML, images and code, finished or not."""

import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.jupyter.markdown import markdown

D = "\\$*\u2060*"  # money: escaped, and an element in the page for MathJax to stop at
CASES = {
    "round and square brackets": (r"\(a+b\) then \[ c \]", "$a+b$ then $$ c $$"),
    "brackets over lines": ("\\[\nx^2\n\\]", "$$\nx^2\n$$"),
    "spaces inside": (r"\( x \)", "$x$"),
    "dollars that are mathematics": ("$E=mc^2$ and $$x$$", "$E=mc^2$ and $$x$$"),
    "money": ("It costs $5, not $10.", f"It costs {D}5, not {D}10."),
    "money in a range": ("$20-$30", f"{D}20-{D}30"),
    "an escaped dollar": (r"\$5", f"{D}5"),
    "shell variables": ("$HOME and $PATH", f"{D}HOME and {D}PATH"),
    "one dollar": ("$", D),
    "less in mathematics": (r"\(a<b\)", r"$a\lt b$"),
    "HTML": ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
    "an escaped tag": (r"\<b>", "&lt;b>"),
    "an image": ("![x](http://example.org/x.png)", r"\![x](http://example.org/x.png)"),
    "links to the web, to mail, to a file": (
        "[a](https://example.org) [b]( http://x.y 't') [c](mailto:a@b.c) [d](./e_f/g.md#h)\n[i]: https://example.org",
        "[a](https://example.org) [b]( http://x.y 't') [c](mailto:a@b.c) [d](./e_f/g.md#h)\n[i]: https://example.org",
    ),
    "a link to a script": ("[a](javascript:x) [b](data:x)", r"[a\](javascript:x) [b\](data:x)"),
    "a link to a script in disguise": (
        "[a](&#106;avascript:x) [b](\n JaVascript&colon;x)",
        "[a\\](&#106;avascript:x) [b\\](\n JaVascript&colon;x)",
    ),
    "a script defined below": ("[a][b] [b]\n\n[b]:\njavascript:x", "[a][b] [b]\n\n[b\\]:\njavascript:x"),
    "a script after an escaped backslash": (r"[a\\](javascript:x)", r"[a\\\](javascript:x)"),
    "a script in what is no mathematics": (r"\( a $ [b](javascript:x) $ c \)", "$a $ [b] (javascript:x) $ c$"),
    "a code span": (r"`\(x\) $5 <b>`", r"`\(x\) $5 <b>`"),
    "a code span in longer ticks": ("``a`<b>``<i>", "``a`<b>``&lt;i>"),
    "a lonely tick": ("`<b>", "`&lt;b>"),
    "ticks over lines": ("`<b>\n<b>`", "`&lt;b>\n&lt;b>`"),
    "a fence": ("```html\n<b> $5\n```\n<b>", "```html\n<b> $5\n```\n&lt;b>"),
    "a tilde fence": ("~~~\n```\n<b>\n~~~\n<b>", "~~~\n```\n<b>\n~~~\n&lt;b>"),
    "a longer fence": ("````\n```\n<b>\n````", "````\n```\n<b>\n````"),
    "a fence in a list": ("1. x\n   ```\n   <b>\n   ```\n   <b>", "1. x\n   ```\n   <b>\n   ```\n   &lt;b>"),
    "a fence after a bullet": ("- ```\n  <b>", "- ```\n  <b>\n  ```"),
    "an open fence": ("```rust\nfn main() {", "```rust\nfn main() {\n```"),
    "an open fence at a line's end": ("```\nx\n", "```\nx\n```"),
    "inline ticks three long": ("```code``` <b>", "```code``` &lt;b>"),
    "other line ends": ("```\r\n<b>\r\n```\r\n<b>", "```\n<b>\n```\n&lt;b>"),
    "an open bracket": (r"\(x", r"\(x"),
    "plain text": ("Hello *world*, 1 > 0 & so on.", "Hello *world*, 1 > 0 & so on."),
    "nothing": ("", ""),
}


@pytest.mark.parametrize("name", CASES)
def test_is_rewritten(name):
    text, expected = CASES[name]
    assert markdown(text) == expected


@given(st.text(st.sampled_from("ab<>$!&[](){}\\`~- \n1.")))
def test_no_tag_opens_outside_code(text):
    """Seen by a reader of Markdown that knows no more than fences at the margin and spans on a line."""
    if "`" not in text and "~" not in text:
        assert "<" not in markdown(text)
        assert "![" not in markdown(text).replace(r"\![", "")


@given(st.text(string.ascii_letters + string.digits + " .,;:*_-+#>=\n()"))
def test_plain_text_stays_as_it_is(text):
    assert markdown(text) == text


@pytest.mark.parametrize(
    "part", [r"\(", r"\[", r"\[ ", "$", "$$", "`", "``` ", "~~~\n", "<", "![", "](", "]: ", "> - 1. ", "$a"]
)
def test_a_hostile_reply_costs_no_more_than_seconds(part):
    since = time.monotonic()
    markdown(part * (20_000 // len(part)))
    assert time.monotonic() - since < 10
