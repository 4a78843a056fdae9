"""The progress of a download or of packing, in a terminal or in whatever else standard error is. Does neither."""

import sys

from nbllm.errors import printable
from nbllm.runtime.memory import gb

WIDTH = 30  # characters of the bar


def amount(size: int) -> str:
    """Bytes that come one after the other, as people like to follow them."""
    return gb(size) if size >= 1e9 else f"{size / 1e6:,.0f} MB"


class ProgressLine:
    """A `progress` for `pull` and `load`: a bar that is drawn over itself in a terminal, and one line elsewhere."""

    def __init__(self, name: str, stream=None, line="fetching {name}, {total}, once"):
        self._name = printable(name)
        self._line = line
        self._stream = stream or sys.stderr
        try:
            self._terminal = self._stream.isatty()
        except (AttributeError, ValueError):  # there is none, or one of the user's own, or it is closed
            self._terminal = False
        self._begun = False

    def __call__(self, done: int, total: int):
        if self._terminal:
            full = WIDTH * done // max(total, 1)
            bar = "█" * full + "░" * (WIDTH - full)
            self._write(f"\r{self._name} {bar} {amount(done)} of {amount(total)}")
        elif not self._begun:
            self._write(self._line.format(name=self._name, total=amount(total)) + "\n")
        self._begun = True

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._begun and self._terminal:
            self._write("\n")

    def _write(self, text):
        try:
            self._stream.write(text)
            self._stream.flush()
        except (AttributeError, ValueError, OSError):  # what was to be done is not undone because nobody can see it
            self._terminal, self._stream = False, None
