"""The errors of the user's cells, as text: for `{Err[3]}` in a prompt and for `%chat fix`.

Only text is kept, so that no error keeps alive what its frames hold. Knows nothing of models.
"""

from dataclasses import dataclass

from nbllm.chat.code import fenced
from nbllm.chat.describe import describe
from nbllm.errors import OneLine, brief

KEPT = 100  # cells

ASK = """This cell of my notebook:

{source}

fails with:

{traceback}

Explain in a few sentences why. Then give the whole cell, mended, in one block of Python."""


@dataclass(frozen=True)
class Failure:
    """A cell that failed: what was typed, and the traceback as a model is told of it."""

    source: str
    traceback: str

    def question(self) -> str:
        """What to ask a model of it."""
        return ASK.format(source=fenced(self.source.strip("\n"), "python"), traceback=fenced(self.traceback))


class Failures:
    """The failures of one IPython shell, which are told of by its event `post_run_cell`.

    Attributes
    ----------
    last : Failure or None
    tracebacks : dict
        By the number of the cell.
    """

    def __init__(self):
        self.last = None
        self.tracebacks = {}

    def record(self, result):
        """Keep what went wrong in a cell, unless it was the user who ended it, or nbllm that refused something."""
        error = result.error_before_exec or result.error_in_exec
        if not isinstance(error, Exception) or isinstance(error, OneLine) or result.execution_count is None:
            return
        try:
            traceback, _ = describe(error)
        except Exception as own:  # the user's error may describe itself, and fail in that
            traceback = f"{brief(error)} (there is no traceback, for to describe it raised {brief(own)})"
        self.last = Failure(result.info.raw_cell, traceback)
        self.tracebacks[result.execution_count] = traceback
        while len(self.tracebacks) > KEPT:
            del self.tracebacks[next(iter(self.tracebacks))]


def failures(shell) -> Failures:
    """Those that the magics of this shell keep; none after `%unload_ext nbllm`, when prose is asked all the same."""
    magics = shell.magics_manager.registry.get("ChatMagics")
    return magics.failures if magics else Failures()
