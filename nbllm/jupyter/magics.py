"""`%%chat` asks, `%chat` does the rest. Parses what was typed; the session does the work, `cell` and `display` show it.

Imported by `%load_ext nbllm`, so it imports nothing
that is not there already in any Jupyter kernel.
"""

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.display import display

from nbllm.errors import NbLLMError, OptionError
from nbllm.jupyter.arguments import PARSER, parse
from nbllm.jupyter.config import NbLLM, settings
from nbllm.jupyter.failures import Failures

_CHAT_HELP = f"""Ask the model what the cell says; the reply streams into the cell's output.

{PARSER.format_help()}
In the prompt, {{name}}, {{name.attribute}}, {{In[3]}}, {{Out[3]}} and {{Err[3]}} become what a model should know of that
object, if it is there; everything else stays as it is. %chat prompt shows what was sent.
An interrupt stops the reply; what is there is kept. Defaults: %config NbLLM
"""


@magics_class
class ChatMagics(Magics):
    """The magics of one IPython shell, which also keep what went wrong in its cells."""

    def __init__(self, shell):
        super().__init__(shell)
        self.failures = Failures()

    @no_var_expand
    @cell_magic("chat")
    def ask(self, line, cell):
        from nbllm.chat.conversation import Reply
        from nbllm.jupyter.cell import run
        from nbllm.jupyter.display import output
        from nbllm.jupyter.interpolate import attached, interpolate, names
        from nbllm.jupyter.session import session

        given, options = parse(line)
        config = settings(self.shell)
        current = session(config)
        sampling = current.sampling(**options)
        prompt, filled = cell.strip("\n"), {}
        if not given.raw:
            prompt, filled = interpolate(prompt, names(self.shell), config.describe)
        if not prompt.strip():
            raise NbLLMError("the prompt is empty: write it below the %%chat line")
        above, also = attached(given.attached, names(self.shell), config.describe)
        shown = output(self.shell, {**also, **filled})
        try:
            run(current, current.ask(above + prompt, sampling, given.system, given.new), shown)
        finally:
            if given.out is not None and shown.stats is not None:
                self.shell.user_ns[given.out] = Reply(
                    shown.text, shown.stats, shown.finish_reason, sampling.seed, shown.think.strip()
                )

    ask.__doc__ = _CHAT_HELP

    @no_var_expand
    @line_magic("chat")
    def command(self, line):
        """The conversation and the model: %chat help lists the commands."""
        name, _, argument = line.strip().partition(" ")
        name = name or "help"
        if name not in _COMMANDS:
            known = ", ".join(_COMMANDS)
            raise OptionError(f"%chat has no {name!r}; there are {known}. To ask, start a cell with %%chat")
        _COMMANDS[name][0](self, argument.strip())

    def _new(self, argument):
        self._run(lambda current: current.new())

    def _info(self, argument):
        from nbllm.chat.info import info
        from nbllm.jupyter.session import running

        print(info(running() and running().model))

    def _prompt(self, argument):
        from nbllm.chat.info import sent
        from nbllm.jupyter.session import running

        print(sent(running() and running().chat))

    def _model(self, argument):
        from nbllm.jupyter.session import running

        if argument:
            name = argument[1:-1] if argument[0] == argument[-1] in "\"'" else argument
            self._run(lambda current: current.switch(name))
            return
        model = running() and running().model
        print(f"in use: {model.name}, {model.path}" if model else "none is loaded yet; the first question loads one")

    def _models(self, argument):
        from nbllm.catalogue.listing import NUMBERS, listing, text
        from nbllm.jupyter.markdown import escaped, table
        from nbllm.jupyter.session import running

        model = running() and running().model
        tables, about = listing(model and model.path)
        plain = text(tables, about)
        if not hasattr(self.shell, "kernel"):
            print(plain)
            return
        parts = (f"**{escaped(each.title)}**\n\n{table(each.head, each.rows, NUMBERS)}" for each in tables)
        display({"text/plain": plain, "text/markdown": "\n\n".join((*parts, escaped(about)))}, raw=True)

    def _help(self, argument):
        for usage, help in (command[1:] for command in _COMMANDS.values()):
            print(f"%chat {usage:22} {help}")
        print("\n" + _CHAT_HELP)

    def _run(self, job):
        from nbllm.jupyter.cell import run
        from nbllm.jupyter.display import output
        from nbllm.jupyter.session import session

        current = session(settings(self.shell))
        run(current, job(current), output(self.shell))


_COMMANDS = {  # name: (method, usage, help)
    "new": (ChatMagics._new, "new", "start a new conversation"),
    "info": (ChatMagics._info, "info", "the model, the threads, the processor and the kernels chosen for it"),
    "prompt": (ChatMagics._prompt, "prompt", "the exact text and token ids that the model got last"),
    "model": (ChatMagics._model, "model [NAME_OR_PATH]", "change the model, fetching it if need be; or name it"),
    "models": (ChatMagics._models, "models", "the models that are here or can be fetched, and which fit in memory"),
    "help": (ChatMagics._help, "help", "this"),
}


def register(shell):
    """Add the magics and their settings to this shell, once."""
    settings(shell)
    if "chat" not in shell.magics_manager.magics["cell"]:
        magics = ChatMagics(shell)
        shell.register_magics(magics)
        shell.events.register("post_run_cell", magics.failures.record)


def unregister(shell):
    """Take the magics and their settings away, end the worker and free the model."""
    from nbllm.jupyter.session import close

    close()
    if "chat" in shell.magics_manager.magics["cell"]:
        magics = shell.magics_manager.registry.pop(ChatMagics.__name__)
        shell.events.unregister("post_run_cell", magics.failures.record)
    shell.configurables[:] = [each for each in shell.configurables if not isinstance(each, NbLLM | ChatMagics)]
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("chat", None)

