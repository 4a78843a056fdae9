"""Fenced code in Markdown: the fences, the blocks of a text, and a text as a block. Knows nothing of models."""

import re
from dataclasses import dataclass

# A fence may stand in a list item or a quotation; the info string after backticks holds no backtick (CommonMark 4.5).
FENCE = re.compile(r"(?P<indent>[ \t>]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*)(?P<fence>`{3,}(?!.*`)|~{3,})")

LINE = re.compile(r"[^\n]*\n|[^\n]+")  # not str.splitlines: it ends lines where Markdown does not

PYTHON = {"", "python", "py", "python3", "ipython", "ipython3"}  # what models call it


@dataclass(frozen=True)
class CodeBlock:
    """One block, without its fences; language is the first word after the opening one, in small letters."""

    language: str
    text: str


def closes(fence: str) -> re.Pattern:
    """What a line matches that closes a block with this fence."""
    return re.compile(rf"[ \t>]*{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$")


def code_blocks(text: str) -> list[CodeBlock]:
    """The blocks of a text, in order; one that is open at the end counts."""
    blocks, closing = [], None
    for line in LINE.findall(text.replace("\r\n", "\n").replace("\r", "\n")):
        if closing is None and (match := FENCE.match(line)):
            closing, indent, lines = closes(match["fence"]), len(match["indent"]), []
            info = line[match.end() :].split()
            blocks.append((info[0].lower() if info else "", lines))
        elif closing is not None and closing.match(line):
            closing = None
        elif closing is not None:
            lines.append(line[len(line[:indent]) - len(line[:indent].lstrip(" \t>")) :])
    return [CodeBlock(language, "".join(lines).rstrip("\n")) for language, lines in blocks]


def python(text: str) -> str:
    """The Python of a text: its blocks that say so, or say nothing, one below the other."""
    return "\n\n".join(block.text for block in code_blocks(text) if block.language in PYTHON)


def fenced(text: str, language: str = "") -> str:
    """The text as a block, by a fence that is longer than any in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
