"""What `%chat` does beside asking: a table of commands. The session and its shelf do the work.

A command is given the IPython shell and what stands behind its name. Imports what it needs when it runs, as `%load_ext`
imports this file.
"""

from collections.abc import Callable
from dataclasses import dataclass

from IPython.display import display

from nbllm.errors import NbLLMError, OptionError, printable
from nbllm.jupyter.arguments import PARSERS, parse
from nbllm.jupyter.config import settings
from nbllm.jupyter.failures import failures
from nbllm.jupyter.sendable import sendable

CELL = {"question": "%%chat --raw\n", "code": ""}  # how a cell begins that asks, or that is Python
ALTERNATIVES = 5  # likely tokens that are told with each of a reply that is kept
FIRST = 60  # characters of a conversation's first question in the list

HELP = f"""Ask the model what the cell says; the reply streams into the cell's output.

{PARSERS["%%chat"].format_help()}
In the prompt, {{name}}, {{name.attribute}}, {{In[3]}}, {{Out[3]}} and {{Err[3]}} become what a model should know of
that object, if it is there; everything else stays as it is. %chat prompt shows what was sent.
An interrupt stops the reply; what is there is kept. Defaults: %config NbLLM
"""


def answer(shell, job, given, filled=None):
    """Run a job that answers, show the reply, and put it where the options say."""
    from nbllm.jupyter.cell import run
    from nbllm.jupyter.display import output
    from nbllm.jupyter.session import session

    shown = output(shell, filled)
    try:
        run(session(settings(shell)), job, shown)
    finally:
        if given.out is not None and (reply := shown.reply()):
            shell.user_ns[given.out] = reply
    if given.code:
        code = shown.reply().code
        if not code:
            raise NbLLMError("the reply has no block of Python to put into the next cell; ask for one")
        next_cell(shell, "code", code)


def background(shell, job, given, filled):
    """Run a job that answers while other cells run. Its handle goes where the options say, or is returned,
    to be shown."""
    from nbllm.jupyter.background import Background
    from nbllm.jupyter.session import session

    handle = Background(shell, session(settings(shell)), job, filled)
    if given.out is None:
        return handle
    shell.user_ns[given.out] = handle
    display(handle)


def likely(given) -> int:
    """How many likely tokens are told beside each: only of a reply that is kept."""
    return ALTERNATIVES if given.out is not None or getattr(given, "bg", False) else 0


def asking_cell(shell) -> str | None:
    """Which cell of a notebook a question is of, where running a cell again takes the conversation back to it."""
    asking = getattr(getattr(shell, "kernel", None), "asking_cell", None)
    return asking() if asking else None


def next_cell(shell, kind, text):
    """Put a cell below the running one, as this Jupyter kernel has it; nothing runs."""
    shell.set_next_input(sendable(getattr(getattr(shell, "kernel", None), "cell_begins", CELL)[kind] + text))


def _job(make):
    """The command that runs a job of the session's, which `make` is given with the argument."""

    def command(shell, argument):
        from nbllm.jupyter.cell import run
        from nbllm.jupyter.display import output
        from nbllm.jupyter.session import session

        current = session(settings(shell))
        run(current, make(current, argument), output(shell))

    return command


def _change(how):
    """The command that changes the shelf; `how` is given it and the argument."""
    return _job(lambda current, argument: current.change(lambda shelf: how(shelf, argument)))


def _saving(current, argument):
    path = argument.removesuffix("--cache").rstrip()
    return current.save(_file(path), path != argument)


_save = _job(_saving)
_load = _job(lambda current, argument: current.load(_file(argument)))


def _stats(shell, argument):
    from nbllm.catalogue.listing import Table
    from nbllm.chat.stats import HEAD, NUMBERS, plot, rows
    from nbllm.jupyter.session import session

    transcript = session(settings(shell)).shelf.current
    if not transcript.messages:
        print("nothing was asked yet; ask with %%chat")
        return
    image = plot(transcript)
    if image and hasattr(shell, "kernel"):
        display({"image/svg+xml": image, "text/plain": "speed of the turns"}, raw=True)
    _show(shell, [Table("Turns", HEAD, rows(transcript))], NUMBERS)


def _edit(shell, argument):
    count, questions = _count(argument), []

    def before(shelf):
        questions.append(shelf.current.question(count))
        return shelf.branch(undo=count)

    _change(lambda shelf, argument: before(shelf))(shell, argument)
    next_cell(shell, "question", questions[0])


def _retry(shell, argument):
    from nbllm.jupyter.session import session

    from nbllm.jupyter.schemas import schema

    given, options = parse(argument, "%chat retry")
    fits = schema(shell, given)
    current = session(settings(shell))
    sampling = current.sampling(**({"repeat_penalty": 1.0} if fits else {}) | options)
    answer(shell, current.ask_again(sampling, fits, likely(given)), given)


def _fix(shell, argument):
    from nbllm.jupyter.interpolate import attached, names
    from nbllm.jupyter.session import session

    given, options = parse(argument, "%chat fix")
    failure = failures(shell).last
    if failure is None:
        raise NbLLMError("no cell has failed since nbllm was loaded; run the one that does, then %chat fix")
    config = settings(shell)
    current = session(config)
    above, filled = attached(given.attached, names(shell), config.describe)
    given.code = True
    job = current.ask(
        above + failure.question(), current.sampling(**options), given.system, given.new, cell=asking_cell(shell)
    )
    answer(shell, job, given, filled)


def _list(shell, argument):
    from nbllm.catalogue.listing import Table
    from nbllm.jupyter.session import session

    shelf = session(settings(shell)).shelf
    rows = [
        (name, str(each.exchanges), _begins(each), "goes on" if name == shelf.name else "")
        for name, each in list(shelf.conversations.items())
    ]
    _show(shell, [Table("Conversations", ("name", "exchanges", "first question", ""), rows)], ("exchanges",))


def _begins(transcript):
    if not transcript.messages:
        return ""
    from nbllm.jupyter.interpolate import asked

    question = " ".join(asked(transcript.messages[0]["content"])[: 4 * FIRST].split())
    return question if len(question) <= FIRST else f"{question[:FIRST]}..."


def _stop(shell, argument):
    from nbllm.jupyter.session import running

    stopped = running().stop() if running() else 0
    print(f"{stopped} stopped; what was written is kept" if stopped else "nothing is being written")


def _panel(shell, argument):
    from nbllm.jupyter.panel import panel

    display(panel())


def _info(shell, argument):
    from nbllm.chat.info import info
    from nbllm.jupyter.session import running

    print(info(running() and running().model))


def _prompt(shell, argument):
    from nbllm.chat.info import sent
    from nbllm.jupyter.session import running

    print(sent(running() and running().chat))


def _model(shell, argument):
    from nbllm.jupyter.cell import run
    from nbllm.jupyter.display import output
    from nbllm.jupyter.session import running, session

    if argument:
        current = session(settings(shell))
        run(current, current.switch(_unquoted(argument)), output(shell))
        return
    model = running() and running().model
    used = f"in use: {model.name}, {model.path}" if model else "none is loaded yet; the first question loads one"
    print(printable(used))


def _models(shell, argument):
    from nbllm.catalogue.listing import NUMBERS, listing
    from nbllm.jupyter.session import running

    model = running() and running().model
    tables, about = listing(model and model.path)
    _show(shell, tables, NUMBERS, about)


def _show(shell, tables, numbers, about=""):
    """Tables as Markdown in a notebook, as plain text elsewhere."""
    from nbllm.catalogue.listing import text
    from nbllm.jupyter.markdown import escaped, table

    plain = sendable(text(tables, about).rstrip())
    if not hasattr(shell, "kernel"):
        print(plain)
        return
    parts = (f"**{escaped(each.title)}**\n\n{table(each.head, each.rows, numbers)}" for each in tables)
    marked = sendable("\n\n".join((*parts, escaped(about))).rstrip())
    display({"text/plain": plain, "text/markdown": marked}, raw=True)


def _help(shell, argument):
    print(f"{usage()}\n\n{HELP}")


def usage() -> str:
    """The commands, a line each."""
    return "\n".join(f"%chat {command.usage:22} {command.help}" for command in COMMANDS.values())


def _unquoted(argument):
    return argument[1:-1] if argument[:1] == argument[-1:] in ("'", '"') else argument


def _count(argument):
    # no conversation has as many as a number of more digits, and Python reads none of thousands
    if argument and not (argument.isdecimal() and len(argument) < 10 and int(argument)):
        raise OptionError(f"{argument[:40]!r} is no number of exchanges; give 1 for the last, or 2, 3, ...")
    return int(argument or 1)


def _file(argument):
    if not argument:
        raise OptionError("name a file behind the command, as in %chat save talk.jsonl")
    return _unquoted(argument)


@dataclass(frozen=True)
class Command:
    """One command of `%chat`."""

    run: Callable
    usage: str
    help: str


COMMANDS = {
    "new": Command(_change(lambda shelf, name: shelf.new(name or None)), "new [NAME]", "start a new conversation"),
    "list": Command(_list, "list", "the conversations of this session"),
    "switch": Command(_change(lambda shelf, name: shelf.switch(name)), "switch NAME",
                      "go on with another conversation"),
    "branch": Command(_change(lambda shelf, name: shelf.branch(name or None)), "branch [NAME]",
                      "go on in a copy of the conversation"),
    "undo": Command(_change(lambda shelf, number: shelf.undo(_count(number))), "undo [N]",
                    "take back the last exchange, or the last N"),
    "retry": Command(_retry, "retry [OPTIONS]", "ask the last question again, in place of its reply"),
    "edit": Command(_edit, "edit [N]", "put the Nth question from the end into the next cell, to ask it in a copy"),
    "fix": Command(_fix, "fix [OPTIONS]", "explain the last error of a cell, and put a mended one below"),
    "save": Command(_save, "save FILE [--cache]", "save the conversation; with its cache, it need not be read again"),
    "load": Command(_load, "load FILE", "go on with a saved conversation"),
    "export": Command(_change(lambda shelf, path: shelf.export(_file(path))), "export FILE",
                      "write the conversation as Markdown"),
    "stop": Command(_stop, "stop", "stop the replies that no cell waits for"),
    "panel": Command(_panel, "panel", "a panel to chat in, which shares the conversation"),
    "stats": Command(_stats, "stats", "how fast the turns of the conversation were, and what they reused"),
    "info": Command(_info, "info", "the model, the threads, the processor and the kernels chosen for it"),
    "prompt": Command(_prompt, "prompt", "the exact text and token ids that the model got last"),
    "model": Command(_model, "model [NAME_OR_PATH]", "change the model, fetching it if need be; or name it"),
    "models": Command(_models, "models", "the models that are here or can be fetched, and which fit in memory"),
    "help": Command(_help, "help", "this"),
}  # fmt: skip
