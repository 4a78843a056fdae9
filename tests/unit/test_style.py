"""The layout that CONTRIBUTING.md asks of sources. Knows nothing of what is in them."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KINDS = {".py", ".js", ".css", ".hpp", ".h", ".sh", ".build", ".options"}
MADE = {"build", "dist"}  # folders of the root that are no sources
WIDTH = 120  # characters of a line, at most
LINES = 400  # a file has fewer


def sources():
    """The project's own: neither what is hidden nor what was built or installed, wherever that lies."""
    for folder, inner, names in os.walk(ROOT):
        here = Path(folder)
        inner[:] = [
            name
            for name in inner
            if not name.startswith(".")
            and not (here == ROOT and name in MADE)
            and not (here / name / "pyvenv.cfg").exists()
        ]
        yield from (here / name for name in names if Path(name).suffix in KINDS)


FILES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8").split("\n") for path in sources()}


def test_the_sources_are_found():
    assert {Path(file).suffix for file in FILES} == KINDS
    assert {"nbllm/cli.py", "kernels_src/step.py", "tests/unit/test_style.py"} <= FILES.keys()


def test_a_line_has_120_characters_at_most():
    assert not [f"{file}:{n}" for file, lines in FILES.items() for n, line in enumerate(lines, 1) if len(line) > WIDTH]


def test_a_file_has_fewer_than_400_lines():
    assert not [file for file, lines in FILES.items() if len(lines) - 1 >= LINES]
