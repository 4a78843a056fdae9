"""The "Local LLM" Jupyter kernel: a cell of prose is a message to the model; magics, `!` and `%%py` cells run.

An IPython kernel in all else, so variables, history, completion and widgets are there. Prose becomes an awaited call
by an input transformer: the history and `In` keep what was typed, and the event loop stays free while the model writes.

    python -m nbllm.jupyter.local_llm_kernel -f CONNECTION_FILE
"""

import re

from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.zmqshell import ZMQInteractiveShell
from traitlets import Type

from nbllm import __version__, load_ipython_extension
from nbllm.jupyter import session
from nbllm.jupyter.cell import run_async
from nbllm.jupyter.completion import named
from nbllm.jupyter.config import settings
from nbllm.jupyter.display import output
from nbllm.jupyter.interpolate import interpolate, names, told
from nbllm.jupyter.sendable import sendable

HINT = (
    "This cell is a message to the model. {name} in it becomes what the model should know of that variable; cells "
    "that start with %%py are Python; %chat help shows the commands."
)
_NAMED = re.compile(r"\{(?P<name>[^{}\n]+)\}")
_PYTHON = re.compile(r"%%py[ \t]*\n?$")
_COMMAND = re.compile(r"%{1,2}[A-Za-z_]|![^\s!]|\?{1,2}[A-Za-z_%]")  # "50 % of", "!" and "?" alone are prose


def transform(lines: list[str]) -> list[str]:
    """The Python for a typed cell, in lines: `%%py` cells as they are, commands for IPython, prose as a call.

    A `%%py` line becomes a comment, so that line numbers in tracebacks are those of the cell. Commands may stand above
    prose, which is asked after them.
    """
    start, end = _parts(lines)
    if start == len(lines):
        return []
    if _PYTHON.match(lines[start]):
        return ["#\n"] * (start + 1) + lines[start + 1 :]
    if end is None:
        return lines[start:]
    commands = [line for line in lines[start:end] if line.strip()]
    prose = "".join(lines[end:] if commands else lines)
    return commands + ([f"await get_ipython().kernel.ask({prose!r})\n"] if prose else [])


def _parts(lines):
    """The numbers of the first line that is not blank, and of the one where prose begins: None in cells of `%%`."""
    start = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    if start < len(lines) and lines[start].startswith("%%"):
        return start, None
    end = start
    while end < len(lines) and (_COMMAND.match(lines[end]) or not lines[end].strip()):
        while lines[end].endswith("\\\n") and end + 1 < len(lines):  # the command goes on in the next line
            end += 1
        end += 1
    return start, end


def _prose(code):
    """Where prose begins in a typed cell; None if there is none. An empty cell is prose that is still to be written."""
    lines = code.splitlines(keepends=True)
    start, end = _parts(lines)
    if end is None or start < end == len(lines):
        return None
    return sum(map(len, lines[:end])) if start < end else 0


def _within(code, cursor):
    """Where the cursor is in the cell; at its end if a front end says nothing of it, or what cannot be."""
    return cursor if type(cursor) is int and 0 <= cursor <= len(code) else len(code)


class Shell(ZMQInteractiveShell):
    """IPython's, but for `In` and `_ih`, which are cells as they were typed and not the Python that was made of them.

    `%macro`, `%save` and `%history -t` still have the latter.
    """

    def init_user_ns(self):
        super().init_user_ns()
        typed = dict.fromkeys(("In", "_ih"), self.history_manager.input_hist_raw)
        self.user_ns.update(typed)
        self.user_ns_hidden.update(typed)


class LocalLLMKernel(IPythonKernel):
    """An IPython kernel whose cells are a conversation."""

    implementation = "nbllm"
    implementation_version = __version__
    banner = f"Local LLM (nbllm {__version__}): write to the model. Python in cells that start with %%py; %chat help"
    language_info = {
        "name": "markdown",
        "mimetype": "text/markdown",
        "file_extension": ".md",
        "codemirror_mode": "text/plain",  # as Markdown, a list in a `%%py` cell is a link, and a comment a heading
        "pygments_lexer": "text",
    }
    help_links = []
    shell_class = Type(Shell)
    cell_begins = {"question": "", "code": "%%py\n"}  # how `%chat` writes cells for this Jupyter kernel

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._typed = None  # the cell being run, as it was typed
        self._cell = None  # and its name until it asks, if the front end has one for it
        load_ipython_extension(self.shell)
        self.shell.input_transformers_cleanup.insert(0, self._transform)

    def _transform(self, lines):
        # Only the cell itself: what cells, start-up files and %run give to run_cell is Python.
        return transform(lines) if "".join(lines).removesuffix("\n") == self._typed else lines

    async def ask(self, prose):
        """Ask the model and show the reply in the running cell."""
        config = settings(self.shell)
        current = session.session(config)
        prompt, filled = interpolate(prose.strip("\n"), names(self.shell), config.describe)
        job = current.ask(prompt, current.sampling(), cell=self.asking_cell())
        await run_async(current, job, output(self.shell, filled))

    def asking_cell(self) -> str | None:
        """The name of the running cell, for its first question:
        to there the conversation goes back when it runs again."""
        cell, self._cell = self._cell, None
        return cell

    async def do_execute(self, code, silent, store_history=True, user_expressions=None, allow_stdin=False, **cell):
        # Silent code comes from front ends, not from the user, and is Python.
        self._typed = None if silent else code.removesuffix("\n")
        self._cell = cell.get("cell_id")
        try:
            return await super().do_execute(code, silent, store_history, user_expressions, allow_stdin, **cell)
        finally:
            self._typed = None

    def do_is_complete(self, code):
        if _prose(code) is not None:
            return {"status": "complete"}
        first, _, rest = code.lstrip().partition("\n")
        return super().do_is_complete(rest if _PYTHON.match(first) else code)

    async def execute_request(self, stream, ident, parent):
        # The cell is sent back to all front ends, which none is with half of a surrogate pair, and then no reply.
        await super().execute_request(stream, ident, parent | {"content": sendable(parent["content"])})

    def do_complete(self, code, cursor_pos):
        cursor_pos = _within(code, cursor_pos)
        prose = _prose(code)
        if prose is None or cursor_pos < prose:
            return super().do_complete(code[:prose], cursor_pos)
        typed, offers = named(self.shell, code[:cursor_pos])
        where = {"cursor_start": cursor_pos - len(typed), "cursor_end": cursor_pos}
        return {"status": "ok", "metadata": {}, "matches": offers, **where}

    def do_inspect(self, code, cursor_pos, detail_level=0, omit_sections=()):
        cursor_pos = _within(code, cursor_pos)
        prose = _prose(code)
        if prose is None or cursor_pos < prose:
            return super().do_inspect(code[:prose], cursor_pos, detail_level, omit_sections)
        config = settings(self.shell)
        reference = next(
            (match["name"] for match in _NAMED.finditer(code) if match.start() < cursor_pos < match.end()), None
        )
        text = told(reference, names(self.shell), config.describe) if reference else None
        return {"status": "ok", "found": True, "data": {"text/plain": sendable(text or HINT)}, "metadata": {}}

    def do_history(self, *arguments, **options):
        reply = super().do_history(*arguments, **options)
        # which IPython calls 0 in some replies, and by its number in others
        current = self.shell.history_manager.session_number
        return reply | {"history": [(session or current, *entry) for session, *entry in reply["history"]]}

    async def interrupt_request(self, stream, ident, parent):
        # On the control thread, so it works whatever the main thread does, and also when no cell runs.
        if session.running() is not None:
            session.running().interrupt()
        await super().interrupt_request(stream, ident, parent)
        # Another thread may take the signal, and Python handles it on the main one, which sleeps until something comes.
        self.io_loop.add_callback(self.io_loop.call_later, 0.05, int)

    def do_shutdown(self, restart):
        # On the control thread, too: what runs ends now, so that the process can.
        if session.running() is not None:
            session.running().stop()
        return super().do_shutdown(restart)


if __name__ == "__main__":
    IPKernelApp.launch_instance(kernel_class=LocalLLMKernel)
