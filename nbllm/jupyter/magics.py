"""`%%chat` asks, `%chat` does the rest. Parses what was typed; the session does the work, `cell` and `display` show it.

Imported by `%load_ext nbllm`, so it imports nothing that is not there already in any Jupyter kernel.
"""

import asyncio
import traceback
from functools import wraps

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand

from nbllm.errors import NbLLMError, OptionError, Stopped
from nbllm.jupyter.arguments import parse
from nbllm.jupyter.commands import COMMANDS, HELP, answer, asking_cell, background, likely, usage
from nbllm.jupyter.completion import matcher
from nbllm.jupyter.config import NbLLM, settings
from nbllm.jupyter.failures import Failures


CELL, STEP = InteractiveShell.run_code.__code__, asyncio.Handle._run.__code__  # what runs a cell, and a step of a task


def _in_one_line(magic):
    """The magic, of which an interrupt at any place says no more than that.

    In a task of the user's it is no KeyboardInterrupt: it would end the event loop, and the Jupyter kernel with it.
    """

    @wraps(magic)
    def told(*arguments):
        try:
            return magic(*arguments)
        except KeyboardInterrupt as error:
            text = str(error) if isinstance(error, Stopped) else "Stopped."
            within = (frame.f_code for frame, _ in traceback.walk_stack(None))
            nearest = next((code for code in within if code in (CELL, STEP)), CELL)
            raise (NbLLMError if nearest is STEP else Stopped)(text) from None

    return told


@magics_class
class ChatMagics(Magics):
    """The magics of one IPython shell, which also keep what went wrong in its cells."""

    def __init__(self, shell):
        super().__init__(shell)
        self.failures = Failures()
        self.matcher = matcher(shell)

    @no_var_expand
    @cell_magic("chat")
    @_in_one_line
    def ask(self, line, cell):
        from nbllm.jupyter.interpolate import attached, interpolate, names
        from nbllm.jupyter.schemas import schema
        from nbllm.jupyter.session import session

        given, options = parse(line)
        config = settings(self.shell)
        fits = schema(self.shell, given)
        if given.bg and (given.code or given.each is not None):
            raise OptionError("--bg does not wait for the reply, which --code and --each must; leave one of them out")
        if given.each is not None:
            from nbllm.jupyter.each import each

            return each(self.shell, config, given, options, cell.strip("\n"), fits)
        current = session(config)
        sampling = current.sampling(**({"repeat_penalty": 1.0} if fits else {}) | options)
        prompt, filled = cell.strip("\n"), {}
        if not given.raw:
            prompt, filled = interpolate(prompt, names(self.shell), config.describe)
        if not prompt.strip():
            raise NbLLMError("the prompt is empty: write it below the %%chat line")
        above, also = attached(given.attached, names(self.shell), config.describe)
        running = asking_cell(self.shell)
        job = current.ask(above + prompt, sampling, given.system, given.new, fits, likely(given), running)
        if given.bg:
            return background(self.shell, job, given, {**also, **filled})
        answer(self.shell, job, given, {**also, **filled})

    ask.__doc__ = HELP

    @no_var_expand
    @line_magic("chat")
    @_in_one_line
    def command(self, line):
        name, _, argument = line.strip().partition(" ")
        name = name or "help"
        if name not in COMMANDS:
            known = ", ".join(COMMANDS)
            raise OptionError(f"%chat has no {name!r}; there are {known}. To ask, start a cell with %%chat")
        COMMANDS[name].run(self.shell, argument.strip())

    command.__doc__ = f"{usage()}\n\n%%chat: {HELP}"  # of both: with Shift-Tab, IPython finds this one for either


def register(shell):
    """Add the magics and their settings to this shell, once."""
    settings(shell)
    if "chat" not in shell.magics_manager.magics["cell"]:
        magics = ChatMagics(shell)
        shell.register_magics(magics)
        shell.events.register("post_run_cell", magics.failures.record)
        shell.Completer.custom_matchers.append(magics.matcher)


def unregister(shell):
    """Take the magics and their settings away, end the worker and free the model."""
    from nbllm.jupyter.session import close

    close()
    if "chat" in shell.magics_manager.magics["cell"]:
        magics = shell.magics_manager.registry.pop(ChatMagics.__name__)
        shell.events.unregister("post_run_cell", magics.failures.record)
        shell.Completer.custom_matchers.remove(magics.matcher)
    shell.configurables[:] = [each for each in shell.configurables if not isinstance(each, NbLLM | ChatMagics)]
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("chat", None)
