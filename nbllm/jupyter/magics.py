"""`%%chat` asks, `%chat` does the rest. Parses what was typed; the session does the work, `cell` and `display` show it.

The options of `%%chat` are those of `Sampling`, field by field. Imported by `%load_ext nbllm`, so it imports nothing
that is not there already in any Jupyter kernel.
"""

import argparse
import keyword
import shlex
from dataclasses import fields
from numbers import Integral

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand
from IPython.display import display

from nbllm.errors import NbLLMError, OptionError
from nbllm.jupyter.config import NbLLM, settings
from nbllm.runtime.options import Sampling

_SHORT = {"temperature": "-t"}


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise OptionError(f"%%chat: {message}; the options are {', '.join(self._option_string_actions)}")


def _name(text):
    if not text.isidentifier() or keyword.iskeyword(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name for a variable")
    return text


def _shown(default):
    return "none" if default in (None, ()) else default


def _parser():
    parser = _Parser("%%chat", add_help=False, allow_abbrev=False)
    parser.add_argument("-n", "--new", action="store_true", help="start a new conversation with this message")
    parser.add_argument("-s", "--system", metavar="TEXT", help="system prompt, from here on in this conversation")
    parser.add_argument("-o", "--out", metavar="NAME", type=_name, help="keep the reply in this variable")
    parser.add_argument("--raw", action="store_true", help="leave {name} as it is, also where it names a variable")
    for option in fields(Sampling):
        kind, flag = option.metadata.get("kind"), "--" + option.name.replace("_", "-")
        how = {"type": int if kind is Integral else float} if kind else {"action": "append"}
        parser.add_argument(
            *(_SHORT[option.name], flag) if option.name in _SHORT else (flag,), **how, metavar="X", default=None,
            help=f"{option.metadata['help']} (default {_shown(option.default)})".replace("%", "%%"),
        )
    return parser


_PARSER = _parser()
_CHAT_HELP = f"""Ask the model what the cell says; the reply streams into the cell's output.

{_PARSER.format_help()}
In the prompt, {{name}} becomes the value of that variable, if there is one; everything else stays as it is.
An interrupt stops the reply; what is there is kept. Defaults: %config NbLLM
"""


@magics_class
class ChatMagics(Magics):
    """The magics of one IPython shell."""

    @no_var_expand
    @cell_magic("chat")
    def ask(self, line, cell):
        from nbllm.chat.conversation import Reply
        from nbllm.jupyter.cell import run
        from nbllm.jupyter.display import output
        from nbllm.jupyter.interpolate import interpolate, variables
        from nbllm.jupyter.session import session

        given = vars(_PARSER.parse_args(_words(line)))
        new, system, name, raw = (given.pop(option) for option in ("new", "system", "out", "raw"))
        current = session(settings(self.shell))
        sampling = current.sampling(**{option: value for option, value in given.items() if value is not None})
        prompt, filled = (cell.strip("\n"), []) if raw else interpolate(cell.strip("\n"), variables(self.shell))
        if not prompt.strip():
            raise NbLLMError("the prompt is empty: write it below the %%chat line")
        shown = output(self.shell, filled)
        try:
            run(current, current.ask(prompt, sampling, system, new), shown)
        finally:
            if name is not None and shown.stats is not None:
                self.shell.user_ns[name] = Reply(
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
        shell.register_magics(ChatMagics(shell))


def unregister(shell):
    """Take the magics and their settings away, end the worker and free the model."""
    from nbllm.jupyter.session import close

    close()
    shell.configurables[:] = [each for each in shell.configurables if not isinstance(each, NbLLM | ChatMagics)]
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("chat", None)


def _words(line):
    try:
        return shlex.split(line)
    except ValueError as error:
        raise OptionError(f"%%chat: {str(error).lower()} in {line.strip()!r}") from error
